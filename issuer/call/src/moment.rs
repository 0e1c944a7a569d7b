//! Points in time, as people write and read them (RFC 3339, UTC).

/// `2026-11-21T09:30:00.123Z` of milliseconds since the Unix epoch.
pub fn format(ms: u64) -> String {
    let (days, rest) = (ms / DAY_MS, ms % DAY_MS);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

/// `2026-11-21T09:30:00Z` of seconds since the Unix epoch.
pub fn format_seconds(seconds: u64) -> String {
    format(seconds.saturating_mul(1000)).replace(".000Z", "Z")
}

/// Milliseconds since the epoch of `2026-11-21`, `2026-11-21T09:30[:00[.123]]Z`, or so long ago: `90s`, `15m`, `2h`, `7d`.
///
/// # Errors
/// What is understood.
pub fn parse(text: &str, now_ms: u64) -> Result<u64, String> {
    ago(text, now_ms).or_else(|| date_time(text)).ok_or_else(|| {
        format!("{text:?} is no time: give 2026-11-21T09:30:00Z, 2026-11-21, or 15m, 2h, 7d for so long ago")
    })
}

/// Seconds of a span: `90s`, `15m`, `2h`, `7d`.
///
/// # Errors
/// What is understood.
pub fn parse_span(text: &str) -> Result<u64, String> {
    span_ms(text).map(|ms| ms / 1000).ok_or_else(|| format!("{text:?} is no span of time: give 36h or 2d"))
}

fn ago(text: &str, now_ms: u64) -> Option<u64> {
    now_ms.checked_sub(span_ms(text)?)
}

fn span_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.chars().last()? {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        _ => return None,
    };
    let count: u64 = number(text.get(..text.len() - 1)?)?;
    count.checked_mul(unit_ms)
}

fn date_time(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
    let days = days(year, month, day)?;
    if time.next().is_some() || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    number(fraction)?;
    let milliseconds = number(format!("{fraction:0<3}").get(..3)?)?;
    Some(days * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1000 + milliseconds)
}

fn number(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Year, month and day of a day since the epoch. Counted in years that begin in March, so that the leap day is last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since the epoch, of a day that exists, from 1970 to 9999.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let march_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (march_year / 400, march_year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * DAYS_OF_ERA + day_of_era - DAYS_TO_EPOCH;
    (civil(days) == (year, month, day)).then_some(days)
}

const DAY_MS: u64 = 86_400_000;
/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
/// Of 400 years.
const DAYS_OF_ERA: u64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        // Computed by `date -u -d … +%s`.
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-21T09:30:00Z", 1_795_253_400),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse(text, 0), Ok(seconds * 1000), "{text}");
            assert_eq!(format_seconds(seconds), text);
        }
        assert_eq!(parse("2026-11-21", 0), Ok(1_795_219_200_000));
        assert_eq!(parse("2026-11-21T09:30Z", 0), parse("2026-11-21T09:30:00.000Z", 0));
        assert_eq!(format(parse("2026-11-21T09:30:00.12Z", 0).unwrap()), "2026-11-21T09:30:00.120Z");
        assert_eq!(parse("15m", 1_000_000), Ok(100_000));
        assert_eq!((parse_span("36h"), parse_span("2d")), (Ok(129_600), Ok(172_800)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "m",
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "2026-11-21T24:00:00Z",
            "2026-11-21T09:30:00",
            "-5m",
            "+5m",
            "99999999999999999999d",
            "2d",
            "2026-11-21T09:30:00.Zz",
            "1969-12-31",
        ] {
            assert!(parse(text, 1000).is_err(), "{text}");
            assert!(text == "2d" || parse_span(text).is_err(), "{text}");
        }
    }
}
