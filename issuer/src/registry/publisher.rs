//! A publisher's signature over the manifest of a server (S-17): a compact JWS of the server's name, its version and
//! the digest of its manifest. It says whose definitions these are; whether to trust them stays the operator's choice.

use deputize_call::{
    digest::{Digest, Manifest, manifest_digest, tool_digest},
    json::Object,
    jws::{self, EmbeddedKey, JwsError, string_claim},
    keys::KeySet,
    sign::SigningKey,
};
use serde::Serialize;

use super::Publisher;

/// `typ` of the signature.
pub const MANIFEST_TYP: &str = "mcp-manifest+jwt";

/// The member of `_meta` under which a server or a `server.json` carries the signature.
pub const SIGNATURE_MEMBER: &str = "deputize/manifest-signature";

/// Why a publisher's signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// Not a signature over a manifest.
    #[error("the publisher's signature is malformed: {0}")]
    Malformed(JwsError),
    /// By a key that is none of the given ones.
    #[error("the manifest is signed by a key that is not among the publisher's")]
    ForeignKey,
    /// It does not verify.
    #[error("the publisher's signature does not verify")]
    Signature,
    /// It is expired or not yet valid.
    #[error("the publisher's signature is outside of its time: {0}")]
    Time(JwsError),
    /// The tools are not those that were signed.
    #[error("the tools are not those that the publisher signed as {name} {version}")]
    Differs {
        /// The name that was signed.
        name: String,
        /// The version that was signed.
        version: String,
    },
    /// A definition has no digest.
    #[error("a definition cannot be digested")]
    Undigestible,
}

/// Signs the manifest of these tools under a name and version.
///
/// # Errors
/// [`PublisherError`].
pub fn sign(
    (name, version): (&str, &str),
    tools: &[&Object],
    key: &SigningKey,
    now_seconds: u64,
) -> Result<String, PublisherError> {
    let manifest_digest = manifest(name, version, tools)?;
    let claims = Claims { name, version, manifest_digest, iat: now_seconds };
    key.sign(MANIFEST_TYP, &claims).map_err(PublisherError::Malformed)
}

/// Verifies that one of the publisher's keys signed exactly these tools.
///
/// # Errors
/// [`PublisherError`].
pub fn verify(
    signature: &str,
    tools: &[&Object],
    keys: &KeySet,
    now_seconds: u64,
) -> Result<Publisher, PublisherError> {
    let malformed = PublisherError::Malformed;
    let jws = jws::parse(signature.trim(), EmbeddedKey::Refused).map_err(malformed)?;
    if jws.header.typ.as_deref() != Some(MANIFEST_TYP) {
        return Err(malformed(JwsError::Malformed("signed as something else")));
    }
    let key = keys.find(&jws).map_err(|_| PublisherError::ForeignKey)?;
    key.verify(&jws).map_err(|_| PublisherError::Signature)?;
    let (name, version) = (
        string_claim(&jws.claims, "name", MAX_NAME).map_err(malformed)?,
        string_claim(&jws.claims, "version", MAX_NAME).map_err(malformed)?,
    );
    if jws.claims.contains_key("exp") {
        jws::check_times(&jws.claims, now_seconds, LEEWAY_SECONDS).map_err(PublisherError::Time)?;
    }
    let signed = string_claim(&jws.claims, "manifest_digest", 64).map_err(malformed)?;
    if signed != manifest(name, version, tools)?.to_string() {
        return Err(PublisherError::Differs { name: name.to_owned(), version: version.to_owned() });
    }
    Ok(Publisher { name: name.to_owned(), version: version.to_owned(), key: key.thumbprint().to_owned() })
}

fn manifest(name: &str, version: &str, tools: &[&Object]) -> Result<Digest, PublisherError> {
    let digests: Result<Vec<Digest>, _> = tools.iter().map(|tool| tool_digest(tool)).collect();
    let digests = digests.map_err(|_| PublisherError::Undigestible)?;
    // Publishers sign tools; what they say of prompts and resources is for the operator's approval alone.
    let manifest = Manifest { id: name, version, tools: &digests, ..Manifest::default() };
    manifest_digest(&manifest).map_err(|_| PublisherError::Undigestible)
}

#[derive(Serialize)]
struct Claims<'c> {
    name: &'c str,
    version: &'c str,
    manifest_digest: Digest,
    iat: u64,
}

const MAX_NAME: usize = 256;
const LEEWAY_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::sign::SigningAlgorithm;
    use serde_json::{Value, json};

    const NOW: u64 = 1_795_000_000;

    fn key() -> SigningKey {
        SigningKey::generate(SigningAlgorithm::EdDSA).unwrap()
    }

    fn keys(key: &SigningKey) -> KeySet {
        KeySet::new(vec![key.public().clone()])
    }

    fn tool(description: &str) -> Object {
        let value = json!({ "name": "t", "description": description, "inputSchema": { "type": "object" } });
        let Value::Object(tool) = value else { panic!("an object") };
        tool
    }

    #[test]
    fn who_signed_is_told_and_everything_else_refused() {
        let (key, other) = (key(), key());
        let (signed, changed) = (tool("Looks up."), tool("Looks up!"));
        let signature = sign(("com.example/crm", "1.2.0"), &[&signed], &key, NOW).unwrap();
        let publisher = verify(&signature, &[&signed], &keys(&key), NOW).unwrap();
        assert_eq!((publisher.name.as_str(), publisher.version.as_str()), ("com.example/crm", "1.2.0"));
        assert_eq!(publisher.key, key.public().thumbprint());

        let refused = |signature: &str, tools: &[&Object], keys: &KeySet| {
            verify(signature, tools, keys, NOW).unwrap_err()
        };
        assert!(matches!(refused(&signature, &[&changed], &keys(&key)), PublisherError::Differs { .. }));
        assert!(matches!(refused(&signature, &[], &keys(&key)), PublisherError::Differs { .. }));
        let twice = refused(&signature, &[&signed, &signed], &keys(&key));
        assert!(matches!(twice, PublisherError::Differs { .. }));
        assert_eq!(refused(&signature, &[&signed], &keys(&other)), PublisherError::ForeignKey);
        let named = SigningKey::from_pkcs8(&other.to_pkcs8().unwrap(), Some(key.kid())).unwrap();
        let foreign = sign(("com.example/crm", "1.2.0"), &[&signed], &named, NOW).unwrap();
        assert_eq!(refused(&foreign, &[&signed], &keys(&key)), PublisherError::Signature);
        let (head, payload) = signature.rsplit_once('.').unwrap();
        let broken = format!("{head}.{}", payload.chars().rev().collect::<String>());
        assert!(verify(&broken, &[&signed], &keys(&key), NOW).is_err());
        let claims = json!({ "name": "n", "version": "1",
            "manifest_digest": manifest("n", "1", &[&signed]).unwrap(), "exp": NOW - 3600 });
        let expired = key.sign(MANIFEST_TYP, &claims).unwrap();
        assert!(matches!(refused(&expired, &[&signed], &keys(&key)), PublisherError::Time(_)));
        let retyped = key.sign("JWT", &claims).unwrap();
        assert!(matches!(refused(&retyped, &[&signed], &keys(&key)), PublisherError::Malformed(_)));
    }
}
