//! Trust bundles: as the document that other trust domains read, and those of other trust domains.

use arc_swap::ArcSwap;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::json::Object;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, public_key::PublicKey};

use crate::{authority::AuthorityError, svid::Bundle};

/// The bundles of other trust domains that are here.
#[derive(Debug)]
pub struct ForeignBundles {
    bundles: ArcSwap<Vec<Arc<Bundle>>>,
    changes: watch::Sender<u64>,
}

impl Default for ForeignBundles {
    fn default() -> Self {
        Self { bundles: ArcSwap::default(), changes: watch::Sender::new(0) }
    }
}

impl ForeignBundles {
    /// Those that are here now.
    pub fn now(&self) -> Arc<Vec<Arc<Bundle>>> {
        self.bundles.load_full()
    }

    /// Turns with every change. What it counts means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes other ones from now on, and tells everybody who waits.
    pub fn replace(&self, bundles: Vec<Arc<Bundle>>) {
        self.bundles.store(Arc::new(bundles));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The document (SPIFFE Trust Domain and Bundle §4): a JWK set of X.509 and JWT authorities, with a sequence number and
/// a refresh hint.
///
/// # Errors
/// If an X.509 authority is none, or of a kind of key that a JWK cannot say.
pub fn to_document(bundle: &Bundle) -> Result<Value, AuthorityError> {
    let mut keys = Vec::new();
    for der in &bundle.x509_authorities {
        keys.push(Value::Object(x509_authority(der)?));
    }
    for key in bundle.jwt_authorities.iter() {
        let mut jwk = key.to_jwk();
        jwk.insert("use".to_owned(), "jwt-svid".into());
        keys.push(Value::Object(jwk));
    }
    Ok(json!({
        "keys": keys,
        "spiffe_sequence": bundle.sequence,
        "spiffe_refresh_hint": bundle.refresh_hint_seconds,
    }))
}

/// X509-SVID §6.2: no `kid`; the certificate itself in `x5c`, alone (RFC 7517 §4.7), and its key beside it.
fn x509_authority(der: &[u8]) -> Result<Object, AuthorityError> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return Err(AuthorityError("not a certificate in DER"));
    };
    let mut jwk = public_members(&certificate)?;
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
    Ok(jwk)
}

/// RFC 7518 §6, RFC 8037 §2.
fn public_members(certificate: &X509Certificate<'_>) -> Result<Object, AuthorityError> {
    let unknown = AuthorityError("an authority's key is of a kind that a JWK cannot say");
    let encode = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    let trimmed = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        encode(bytes.get(zeros..).unwrap_or_default())
    };
    let key = certificate.public_key().parsed().map_err(|_| unknown)?;
    let members = match &key {
        PublicKey::EC(point) => {
            let bytes = point.data().strip_prefix(&[4]).ok_or(unknown)?;
            let (x, y) = bytes.split_at_checked(bytes.len() / 2).ok_or(unknown)?;
            let curve = match bytes.len() {
                64 => "P-256",
                96 => "P-384",
                132 => "P-521",
                _ => return Err(unknown),
            };
            vec![("kty", "EC".into()), ("crv", curve.into()), ("x", encode(x)), ("y", encode(y))]
        }
        PublicKey::RSA(rsa) => {
            vec![("kty", "RSA".into()), ("n", trimmed(rsa.modulus)), ("e", trimmed(rsa.exponent))]
        }
        PublicKey::Unknown(bytes) if bytes.len() == 32 => {
            vec![("kty", "OKP".into()), ("crv", "Ed25519".into()), ("x", encode(bytes))]
        }
        PublicKey::Unknown(_)
        | PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_) => return Err(unknown),
    };
    Ok(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
