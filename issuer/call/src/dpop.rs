//! DPoP proofs (RFC 9449): made by clients, verified by the broker and by guards.

use crate::{
    digest::{sha256, sha256_of},
    jws::{self, EmbeddedKey, JwsError, UnverifiedJws, string_claim, time_claim},
    keys::PublicKey,
    sign::SigningKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

/// `typ` of a proof (RFC 9449 §4.2).
pub const TYP: &str = "dpop+jwt";

/// A proof that is well formed; the signature is not yet verified. Its nonce can be looked at first, so that a
/// challenge costs no signature.
#[derive(Debug)]
pub struct UnverifiedProof<'a> {
    jws: UnverifiedJws<'a>,
    nonce: Option<String>,
}

/// A proof that passed every check of RFC 9449 §4.3 but replay, which is for the caller to ask of a once-only set.
#[derive(Debug, Clone)]
pub struct VerifiedProof {
    /// Thumbprint of the proof's key.
    pub jkt: String,
    /// Id of the proof.
    pub jti: String,
    /// When the client says it was made.
    pub iat: u64,
    /// 16 bytes that stand for (jkt, jti) in a once-only set.
    pub tag: [u8; 16],
}

/// What a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// HTTP method.
    pub htm: &'e str,
    /// The *configured* public URL, without query and fragment; compared after RFC 3986 normalization of scheme and host alone.
    pub htu: &'e str,
    /// The access token that it accompanies; `None` at the token endpoint.
    pub access_token: Option<&'e str>,
    /// `cnf.jkt` that the key must have, where one is known.
    pub jkt: Option<&'e str>,
    /// Now, in seconds since the epoch.
    pub now_seconds: u64,
    /// How far `iat` may be from now, either way.
    pub window_seconds: u64,
}

/// Parses the value of the one `DPoP` header (§4.3 checks 2–5: one well-formed JWT of the right type and an
/// asymmetric algorithm, with all required claims; check 1, that there is one header only, is the caller's).
pub fn parse(header: &str) -> Result<UnverifiedProof<'_>, JwsError> {
    let jws = jws::parse(header, EmbeddedKey::Required)?;
    if jws.header.typ.as_deref() != Some(TYP) {
        return Err(JwsError::Malformed("typ is not dpop+jwt"));
    }
    string_claim(&jws.claims, "jti", MAX_JTI_BYTES)?;
    string_claim(&jws.claims, "htm", MAX_HTM_BYTES)?;
    string_claim(&jws.claims, "htu", MAX_HTU_BYTES)?;
    time_claim(&jws.claims, "iat")?.ok_or(JwsError::Claim("iat", "missing"))?;
    let nonce = match jws.claims.contains_key("nonce") {
        true => Some(string_claim(&jws.claims, "nonce", MAX_NONCE_BYTES)?.to_owned()),
        false => None,
    };
    Ok(UnverifiedProof { jws, nonce })
}

impl UnverifiedProof<'_> {
    /// The `nonce` claim.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
    /// All remaining checks of §4.3 but nonce (done by the caller, before) and replay (after).
    pub fn verify(self, expected: &Expected<'_>) -> Result<VerifiedProof, JwsError> {
        let claims = &self.jws.claims;
        // Check 8. Methods are case-sensitive (RFC 9110 §9.1).
        if string_claim(claims, "htm", MAX_HTM_BYTES)? != expected.htm {
            return Err(JwsError::Claim("htm", "another method"));
        }
        // Check 9.
        if !same_target(string_claim(claims, "htu", MAX_HTU_BYTES)?, expected.htu) {
            return Err(JwsError::Claim("htu", "another URL"));
        }
        // Check 11.
        let iat = time_claim(claims, "iat")?.ok_or(JwsError::Claim("iat", "missing"))?;
        if iat.abs_diff(expected.now_seconds) > expected.window_seconds {
            return Err(JwsError::Claim("iat", "outside the window"));
        }
        // Check 12, first half: the proof is for this access token.
        if let Some(access_token) = expected.access_token
            && string_claim(claims, "ath", MAX_ATH_BYTES)? != access_token_hash(access_token)
        {
            return Err(JwsError::Claim("ath", "another access token"));
        }
        // Check 7 is in `from_jwk`: a private member refuses the key.
        let jwk = self.jws.header.jwk.as_ref().ok_or(JwsError::Header("jwk"))?;
        let key = PublicKey::from_jwk(jwk)?;
        let jkt = key.thumbprint();
        // Check 12, second half: the token is bound to this key.
        if expected.jkt.is_some_and(|bound| bound != jkt) {
            return Err(JwsError::Key("not the key that the token is bound to"));
        }
        // Check 6, last because dearest.
        key.verify(&self.jws)?;
        let jti = string_claim(claims, "jti", MAX_JTI_BYTES)?;
        Ok(VerifiedProof { jkt: jkt.to_owned(), jti: jti.to_owned(), iat, tag: replay_tag(jkt, jti) })
    }
}

/// What a new proof says.
#[derive(Debug, Clone, Copy)]
pub struct NewProof<'p> {
    /// HTTP method.
    pub htm: &'p str,
    /// Target URL without query and fragment.
    pub htu: &'p str,
    /// Unique id.
    pub jti: &'p str,
    /// Now.
    pub iat: u64,
    /// The nonce last given by this server.
    pub nonce: Option<&'p str>,
    /// The access token that it accompanies.
    pub access_token: Option<&'p str>,
}

/// Makes a proof.
pub fn prove(key: &SigningKey, proof: &NewProof<'_>) -> Result<String, JwsError> {
    key.sign_with_embedded_key(
        TYP,
        &ProofClaims {
            jti: proof.jti,
            htm: proof.htm,
            htu: without_query(proof.htu),
            iat: proof.iat,
            nonce: proof.nonce,
            ath: proof.access_token.map(access_token_hash),
        },
    )
}

/// `ath`: base64url(SHA-256(access token)) (RFC 9449 §4.2).
pub fn access_token_hash(access_token: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(access_token.as_bytes()))
}

#[derive(Serialize)]
struct ProofClaims<'p> {
    jti: &'p str,
    htm: &'p str,
    htu: &'p str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

/// Whether two URLs name one target, "ignoring any query and fragment parts" (§4.3, check 9).
///
/// Of RFC 3986 §6.2 only what cannot change the resource: case of scheme and host, the default port, an empty path.
/// Dot segments and percent-encodings are compared as they stand: a server may well tell `/a%2Fb` from `/a/b`.
fn same_target(claimed: &str, expected: &str) -> bool {
    match (Target::of(claimed), Target::of(expected)) {
        (Some(claimed), Some(expected)) => {
            claimed.scheme.eq_ignore_ascii_case(expected.scheme)
                && claimed.host.eq_ignore_ascii_case(expected.host)
                && claimed.port == expected.port
                && claimed.path == expected.path
        }
        _ => false,
    }
}

struct Target<'u> {
    scheme: &'u str,
    /// User information, if there is any, stays in here and so matches no configured URL.
    host: &'u str,
    port: &'u str,
    path: &'u str,
}

impl<'u> Target<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, rest) = without_query(url).split_once("://")?;
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
        // The colons of an IPv6 address stand before its closing bracket.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        let is_default = match port {
            "" => true,
            "443" => scheme.eq_ignore_ascii_case("https"),
            "80" => scheme.eq_ignore_ascii_case("http"),
            _ => false,
        };
        let path = if path.is_empty() { "/" } else { path };
        (!host.is_empty()).then_some(Self { scheme, host, port: if is_default { "" } else { port }, path })
    }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// (jkt, jti) in 16 bytes. A thumbprint is base64url: the zero byte ends it beyond doubt.
fn replay_tag(jkt: &str, jti: &str) -> [u8; 16] {
    let mut tag = [0; 16];
    for (byte, hashed) in tag.iter_mut().zip(sha256_of(&[jkt.as_bytes(), &[0], jti.as_bytes()])) {
        *byte = hashed;
    }
    tag
}

const MAX_JTI_BYTES: usize = 256;
const MAX_HTM_BYTES: usize = 32;
const MAX_HTU_BYTES: usize = 2048;
const MAX_NONCE_BYTES: usize = 256;
const MAX_ATH_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SigningAlgorithm;

    const NEW: NewProof<'_> = NewProof {
        htm: "POST",
        htu: "https://crm.example.com/mcp?session=1#top",
        jti: "j1",
        iat: 1_795_000_000,
        nonce: Some("n1"),
        access_token: Some("the token"),
    };
    const EXPECTED: Expected<'_> = Expected {
        htm: "POST",
        htu: "https://crm.example.com/mcp",
        access_token: Some("the token"),
        jkt: None,
        now_seconds: 1_795_000_003,
        window_seconds: 5,
    };

    #[test]
    fn what_a_client_proves_a_server_verifies() {
        for algorithm in [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256] {
            let key = SigningKey::generate(algorithm).unwrap();
            let header = prove(&key, &NEW).unwrap();
            let proof = parse(&header).unwrap();
            assert_eq!(proof.nonce(), Some("n1"));
            let jkt = key.public().thumbprint();
            let verified = proof.verify(&Expected { jkt: Some(jkt), ..EXPECTED }).unwrap();
            assert_eq!((verified.jkt.as_str(), verified.jti.as_str(), verified.iat), (jkt, "j1", NEW.iat));
            let other = SigningKey::generate(algorithm).unwrap();
            let stranger = Expected { jkt: Some(other.public().thumbprint()), ..EXPECTED };
            assert!(matches!(parse(&header).unwrap().verify(&stranger), Err(JwsError::Key(_))));
        }
    }

    #[test]
    fn one_expectation_missed_is_a_refusal() {
        let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let header = prove(&key, &NEW).unwrap();
        let refused = |expected| match parse(&header).unwrap().verify(&expected) {
            Err(JwsError::Claim(name, _)) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(Expected { htm: "GET", ..EXPECTED }), "htm");
        assert_eq!(refused(Expected { htu: "https://crm.example.com/mcp/", ..EXPECTED }), "htu");
        assert_eq!(refused(Expected { now_seconds: 1_795_000_006, ..EXPECTED }), "iat");
        assert_eq!(refused(Expected { access_token: Some("another"), ..EXPECTED }), "ath");
        let without = prove(&key, &NewProof { access_token: None, nonce: None, ..NEW }).unwrap();
        assert_eq!(parse(&without).unwrap().nonce(), None);
        assert_eq!(
            parse(&without).unwrap().verify(&EXPECTED).unwrap_err(),
            JwsError::Claim("ath", "missing")
        );
        parse(&without).unwrap().verify(&Expected { access_token: None, ..EXPECTED }).unwrap();
    }

    #[test]
    fn tags_keep_key_and_id_apart() {
        let tags = [("a", "b"), ("a", "c"), ("b", "b"), ("ab", ""), ("", "ab")]
            .map(|(jkt, jti)| replay_tag(jkt, jti));
        assert_eq!(std::collections::HashSet::from(tags).len(), tags.len());
    }
}
