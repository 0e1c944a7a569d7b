//! Paths of C2SP tlog-tiles: `tile/L/N[.p/W]`, where `L` is a level or `entries` and `N` is cut into groups of three
//! digits, all but the last behind an `x`.

/// What a tile path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath {
    /// The level of a hash tile; `None` for a bundle of entries.
    pub level: Option<u8>,
    /// Its number at that level.
    pub number: u64,
    /// Its width: 256 unless partial.
    pub width: u16,
}

impl TilePath {
    /// Parses what follows `tile/`; `None` if it is no canonical tile path.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(canonical(level).filter(|level: &u8| *level < 64)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, FULL_WIDTH),
            Some((number, width)) => {
                (number, canonical(width).filter(|width| (1..FULL_WIDTH).contains(width))?)
            }
        };
        Some(Self { level, number: tile_number(number)?, width })
    }
}

fn tile_number(text: &str) -> Option<u64> {
    let mut groups = text.split('/').rev();
    let last = groups.next()?;
    let mut digits = vec![last];
    for group in groups {
        digits.push(group.strip_prefix('x')?);
    }
    // A first group of zeros would be a second name of the same tile.
    let redundant = digits.len() > 1 && digits.last() == Some(&"000");
    if digits.len() > 6
        || redundant
        || digits.iter().any(|d| d.len() != 3 || !d.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    digits.into_iter().rev().collect::<String>().parse().ok()
}

fn canonical<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number: &N| number.to_string() == text)
}

const FULL_WIDTH: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths_alone_are_read() {
        let tile = |level, number, width| Some(TilePath { level, number, width });
        assert_eq!(TilePath::parse("0/x001/x234/067"), tile(Some(0), 1_234_067, 256));
        assert_eq!(TilePath::parse("entries/000.p/17"), tile(None, 0, 17));
        assert_eq!(TilePath::parse("1/005"), tile(Some(1), 5, 256));
        for wrong in [
            "",
            "0",
            "0/5",
            "00/005",
            "64/005",
            "0/x000/005",
            "0/001/005",
            "0/005.p/0",
            "0/005.p/256",
            "0/+05",
            "x/005",
            "0/../005",
        ] {
            assert_eq!(TilePath::parse(wrong), None, "{wrong}");
        }
    }
}
