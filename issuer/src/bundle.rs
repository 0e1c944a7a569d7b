//! Trust bundles: as the document that other trust domains read, and those of other trust domains.

use arc_swap::ArcSwap;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::{
    json::{self, Object},
    keys::{KeySet, PublicKey},
};
use serde_json::{Value, json};
use spiffe::TrustDomain;
use std::sync::Arc;
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, public_key::PublicKey as X509Key};

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

/// Reads that document of another trust domain. Keys for a use that is unknown are passed over (SPIFFE Trust Domain and
/// Bundle §4.2.2), and so is whatever has no certificate, or no `kid`, where its use demands one (X509-SVID §6.2,
/// JWT-SVID §6.2).
///
/// # Errors
/// If it is no such document, an authority in it is none, or there is none at all.
pub fn from_document(trust_domain: TrustDomain, document: &[u8]) -> Result<Bundle, AuthorityError> {
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(AuthorityError("a bundle has 256 KiB at most"));
    }
    let document =
        json::parse_object(document).map_err(|_| AuthorityError("a bundle is a strict JSON object"))?;
    let Some(Value::Array(keys)) = document.get("keys") else {
        return Err(AuthorityError("a bundle has its keys in `keys`"));
    };
    if keys.len() > MAX_KEYS {
        return Err(AuthorityError("a bundle has 100 keys at most"));
    }
    let (mut x509_authorities, mut jwt_authorities) = (Vec::new(), Vec::new());
    for key in keys.iter().filter_map(Value::as_object) {
        match key.get("use").and_then(Value::as_str) {
            Some("x509-svid") => x509_authorities.extend(certificate_of(key)?),
            Some("jwt-svid") if key.contains_key("kid") => jwt_authorities.push(jwt_authority(key)?),
            _ => {}
        }
    }
    if x509_authorities.is_empty() && jwt_authorities.is_empty() {
        return Err(AuthorityError("there is no authority in the bundle"));
    }
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    Ok(Bundle {
        trust_domain,
        x509_authorities,
        jwt_authorities: KeySet::new(jwt_authorities),
        sequence: number("spiffe_sequence").unwrap_or_default(),
        refresh_hint_seconds: number("spiffe_refresh_hint").unwrap_or(REFRESH_HINT_SECONDS),
    })
}

/// X509-SVID §6.2: the first of `x5c`; without one the key is passed over.
fn certificate_of(jwk: &Object) -> Result<Option<Vec<u8>>, AuthorityError> {
    let Some(first) = jwk.get("x5c").and_then(|chain| chain.get(0)).and_then(Value::as_str) else {
        return Ok(None);
    };
    let no_certificate = AuthorityError("an X.509 authority in the bundle is no certificate of a CA");
    let der = STANDARD.decode(first).map_err(|_| no_certificate)?;
    match X509Certificate::from_der(&der) {
        Ok(([], certificate)) if certificate.is_ca() => Ok(Some(der)),
        _ => Err(no_certificate),
    }
}

fn jwt_authority(jwk: &Object) -> Result<PublicKey, AuthorityError> {
    // `use` is SPIFFE's here; what a JWK's own would say (RFC 7517 §4.2) is left open.
    let mut jwk = jwk.clone();
    jwk.remove("use");
    PublicKey::from_jwk(&jwk).map_err(|_| AuthorityError("a JWT authority in the bundle is no public key"))
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
        X509Key::EC(point) => {
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
        X509Key::RSA(rsa) => {
            vec![("kty", "RSA".into()), ("n", trimmed(rsa.modulus)), ("e", trimmed(rsa.exponent))]
        }
        X509Key::Unknown(bytes) if bytes.len() == 32 => {
            vec![("kty", "OKP".into()), ("crv", "Ed25519".into()), ("x", encode(bytes))]
        }
        X509Key::Unknown(_) | X509Key::DSA(_) | X509Key::GostR3410(_) | X509Key::GostR3410_2012(_) => {
            return Err(unknown);
        }
    };
    Ok(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

const MAX_DOCUMENT_BYTES: usize = 256 << 10;
const MAX_KEYS: usize = 100;
/// Of a bundle that does not say.
const REFRESH_HINT_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, IsCa, KeyPair};

    fn certificate(is_ca: IsCa) -> Value {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(certificate.der())] })
    }

    fn jwt_key() -> Value {
        // RFC 7515 §A.3.1.
        json!({
            "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": "one",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    fn read(document: &Value) -> Result<Bundle, &'static str> {
        let trust_domain = TrustDomain::new("example-federated.org").unwrap();
        from_document(trust_domain, document.to_string().as_bytes()).map_err(|error| error.0)
    }

    #[test]
    fn a_foreign_bundle_is_read_and_what_is_not_understood_is_passed_over() {
        let ca = || certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let nameless = json!({ "kty": "EC", "use": "jwt-svid", "crv": "P-256" });
        let bundle = read(&json!({
            "keys": [ca(), jwt_key(), ca(), nameless, { "kty": "EC", "use": "x509-svid" }, { "use": "wit-svid" }],
            "spiffe_sequence": 7,
        }));
        let bundle = bundle.unwrap();
        assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.iter().count()), (2, 1));
        assert_eq!((bundle.sequence, bundle.refresh_hint_seconds), (7, 300));
        let ours = to_document(&bundle).unwrap();
        let again = read(&ours).unwrap();
        assert_eq!(to_document(&again).unwrap(), ours, "what is written is what is read");
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let mut private = jwt_key();
        private["d"] = json!("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI");
        let mut damaged = certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        damaged["x5c"] = json!(["AAAA"]);
        for (what, document) in [
            ("nothing", json!({ "keys": [] })),
            ("no keys", json!({ "key": [jwt_key()] })),
            ("other uses alone", json!({ "keys": [{ "kty": "EC", "use": "sig" }] })),
            ("a leaf", json!({ "keys": [certificate(IsCa::ExplicitNoCa)] })),
            ("a damaged certificate", json!({ "keys": [damaged, jwt_key()] })),
            ("a private key", json!({ "keys": [private] })),
            ("a list", json!([jwt_key()])),
            ("too many keys", json!({ "keys": vec![jwt_key(); 101] })),
        ] {
            assert!(read(&document).is_err(), "{what}");
        }
    }
}
