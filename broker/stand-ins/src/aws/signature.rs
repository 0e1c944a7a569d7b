//! AWS Signature Version 4, as far as requests with a body to `/` need it: made by whoever calls, made again by the
//! stand-in and compared.

use aws_lc_rs::{digest, hmac};
use axum::http::HeaderMap;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};
use subtle::ConstantTimeEq as _;

use super::{
    answer::Refusal,
    sessions::{Session, Sessions},
};
use deputize_call::moment;

/// Where and when a signature holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'s> {
    /// `20261122T010203Z`.
    pub(super) time: &'s str,
    pub(super) region: &'s str,
    pub(super) service: &'s str,
}

/// Who signed, as checked.
pub(super) struct Signed {
    pub(super) session: Arc<Session>,
    /// For which service.
    pub(super) service: String,
    pub(super) region: String,
}

/// The signature over these headers, by lower-case name, and this body.
pub(super) fn sign(
    secret_access_key: &str,
    scope: Scope<'_>,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> String {
    let mut canonical = "POST\n/\n\n".to_owned();
    for (name, value) in headers {
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        // Writing to a text cannot fail.
        let _ = writeln!(canonical, "{name}:{value}");
    }
    let _ = write!(canonical, "\n{}\n{}", names(headers), sha256(body));
    let to_sign =
        format!("{ALGORITHM}\n{}\n{}\n{}", scope.time, scope.credential(), sha256(canonical.as_bytes()));
    let first = format!("AWS4{secret_access_key}");
    let mut key = mac(first.as_bytes(), scope.date());
    for part in [scope.region, scope.service, "aws4_request"] {
        key = mac(key.as_ref(), part);
    }
    hex(mac(key.as_ref(), &to_sign).as_ref())
}

/// The header `Authorization` of a request that is signed so.
pub(super) fn authorization(
    (access_key_id, secret_access_key): (&str, &str),
    scope: Scope<'_>,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> String {
    let signature = sign(secret_access_key, scope, headers, body);
    format!(
        "{ALGORITHM} Credential={access_key_id}/{}, SignedHeaders={}, Signature={signature}",
        scope.credential(),
        names(headers)
    )
}

/// Who signed this request. What is not signed, signed long ago, or with another key, is refused.
pub(super) fn authenticate(
    headers: &HeaderMap,
    body: &[u8],
    sessions: &Sessions,
    now_seconds: u64,
) -> Result<Signed, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let parts = header("authorization").and_then(|value| value.strip_prefix(ALGORITHM));
    let parts =
        parts.ok_or_else(|| Refusal::new("MissingAuthenticationToken", "the request is not signed"))?;
    let part = |name: &str| {
        let found = parts.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| Refusal::new("IncompleteSignature", format!("Authorization names no {name}")))
    };
    let credential: Vec<&str> = part("Credential")?.split('/').collect();
    let [access_key_id, date, region, service, "aws4_request"] = credential.as_slice() else {
        return Err(Refusal::new("IncompleteSignature", "Credential is no scope"));
    };
    let session = sessions.get(access_key_id).ok_or_else(unknown_token)?;
    let token = header("x-amz-security-token").unwrap_or_default();
    if !bool::from(token.as_bytes().ct_eq(session.session_token.expose().as_bytes())) {
        return Err(unknown_token());
    }
    let time = header("x-amz-date").unwrap_or_default();
    let scope = Scope { time, region, service };
    let signed = signed_headers(headers, part("SignedHeaders")?)?;
    let expected = sign(session.secret_access_key.expose(), scope, &signed, body);
    if scope.date() != *date || !bool::from(expected.as_bytes().ct_eq(part("Signature")?.as_bytes())) {
        return Err(Refusal::new("SignatureDoesNotMatch", "the signature does not match"));
    }
    if !is_recent(time, now_seconds) {
        return Err(Refusal::new("SignatureDoesNotMatch", "signature expired, or from the future"));
    }
    if now_seconds >= session.expires_seconds {
        return Err(Refusal::new("ExpiredToken", "the security token included in the request is expired"));
    }
    Ok(Signed { session, service: (*service).to_owned(), region: (*region).to_owned() })
}

/// The headers that were signed: `host` must be, and whatever AWS reads.
fn signed_headers(headers: &HeaderMap, names: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let incomplete = |what: String| Refusal::new("SignatureDoesNotMatch", what);
    let names: Vec<&str> = names.split(';').collect();
    let must = headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    if let Some(missing) = must.chain(["host"]).find(|name| !names.contains(name)) {
        return Err(incomplete(format!("{missing} is not signed")));
    }
    let mut signed = BTreeMap::new();
    for name in names {
        // Of a header that comes twice nobody could say which one is meant.
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(incomplete(format!("{name} is signed, and does not come once")));
        };
        let value = value.to_str().map_err(|_| incomplete(format!("{name} is no text")))?;
        signed.insert(name.to_owned(), value.to_owned());
    }
    Ok(signed)
}

/// `20261122T010203Z` of seconds since the Unix epoch.
pub(super) fn basic_time(seconds: u64) -> String {
    moment::format_seconds(seconds).chars().filter(|character| !matches!(character, '-' | ':')).collect()
}

fn is_recent(time: &str, now_seconds: u64) -> bool {
    let earliest = now_seconds.saturating_sub(SKEW_SECONDS);
    // Times of one form are in the order of their texts.
    time.len() == 16
        && basic_time(earliest).as_str() <= time
        && time <= basic_time(now_seconds.saturating_add(SKEW_SECONDS)).as_str()
}

impl Scope<'_> {
    fn date(&self) -> &str {
        self.time.get(..8).unwrap_or_default()
    }

    fn credential(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date(), self.region, self.service)
    }
}

fn unknown_token() -> Refusal {
    Refusal::new("InvalidClientTokenId", "the security token included in the request is invalid")
}

fn names(headers: &BTreeMap<String, String>) -> String {
    headers.keys().map(String::as_str).collect::<Vec<_>>().join(";")
}

fn mac(key: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What AWS allows between its clock and the caller's.
const SKEW_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    /// `post-vanilla` of the test suite that AWS publishes for Signature Version 4.
    #[test]
    fn the_published_example_has_the_published_signature() {
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let scope = Scope { time: "20150830T123600Z", region: "us-east-1", service: "service" };
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let signature = sign(secret, scope, &headers, b"");
        assert_eq!(signature, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
        assert_ne!(signature, sign(secret, scope, &headers, b"more"));
    }

    #[test]
    fn times_are_those_of_the_hour() {
        assert_eq!(basic_time(1_440_938_160), "20150830T123600Z");
        assert!(is_recent("20150830T123600Z", 1_440_938_160));
        for (time, now) in [
            ("20150830T123600Z", 1_440_938_461),
            ("20150830T123600Z", 1_440_937_859),
            ("", 1_440_938_160),
            ("2015-08-30", 1_440_938_160),
        ] {
            assert!(!is_recent(time, now), "{time} {now}");
        }
    }
}
