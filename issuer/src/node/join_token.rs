//! Join tokens: a secret that lets one machine become one node, once.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;

use crate::{authority::hex, clock, error::IssueError, secret::Secret};

/// A join token: 256 random bits. Shown to whoever made it, once; its digest alone is kept.
#[derive(Debug)]
pub struct JoinToken(Secret<String>);

/// What is kept of a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinTokenDigest([u8; 32]);

impl JoinToken {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, clock::NoRandomness> {
        let mut bytes = [0; 32];
        clock::fill_random(&mut bytes)?;
        Ok(Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))))
    }

    /// The text.
    pub fn text(&self) -> &Secret<String> {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> JoinTokenDigest {
        JoinTokenDigest(sha256(self.0.expose().as_bytes()))
    }
}

impl JoinTokenDigest {
    /// Of a text that somebody brought, if that can be a token at all.
    ///
    /// # Errors
    /// [`IssueError::ClientAuthentication`].
    pub fn of(text: &str) -> Result<Self, IssueError> {
        let malformed = IssueError::ClientAuthentication("join_token_malformed");
        let secret = text.strip_prefix(PREFIX).ok_or(malformed.clone())?;
        match URL_SAFE_NO_PAD.decode(secret) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(sha256(text.as_bytes()))),
            Ok(_) | Err(_) => Err(malformed),
        }
    }

    /// The bytes: the key under which a store keeps it. A search for them tells nothing of the token.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What it is called on record: the first half, in hexadecimal.
    pub fn name(&self) -> String {
        hex(self.0.get(..16).unwrap_or_default())
    }
}

/// Says to whoever finds one what it is, and lets scanners of secrets know it.
const PREFIX: &str = "deputize-join-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_and_never_shown_by_accident() {
        let (one, other) = (JoinToken::generate().unwrap(), JoinToken::generate().unwrap());
        assert_eq!(JoinTokenDigest::of(one.text().expose()).unwrap(), one.digest());
        assert_ne!(one.digest(), other.digest());
        assert!(!format!("{one:?}").contains(&one.text().expose()[20..]));
    }

    #[test]
    fn what_is_no_token_is_refused_before_anything_is_looked_up() {
        let good = JoinToken::generate().unwrap();
        let good = good.text().expose();
        let (short, long, twice) = (&good[..good.len() - 1], format!("{good}AAAA"), format!("{good}{good}"));
        for text in ["", "deputize-join-", &good[1..], short, &long, &twice, &good.replace("join", "Join")] {
            assert!(JoinTokenDigest::of(text).is_err(), "{text}");
        }
    }
}
