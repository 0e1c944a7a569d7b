//! Trust bundles: as the document that other trust domains read, and those of other trust domains.

use arc_swap::ArcSwap;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::{
    json::{self, Object},
    keys::{KeySet, PublicKey},
};
use serde_json::{Value, json};
use spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;
use tokio::sync::watch;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    prelude::FromDer as _,
    public_key::PublicKey as X509Key,
};

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

/// Whether two bundles have the same authorities, whatever else they say.
pub fn has_same_authorities(one: &Bundle, other: &Bundle) -> bool {
    one.x509_authorities == other.x509_authorities
        && one.jwt_authorities.to_jwks() == other.jwt_authorities.to_jwks()
}

/// Whether one bundle has an authority that the other lacks.
pub fn widens(new: &Bundle, old: &Bundle) -> bool {
    let known = |der: &Vec<u8>| old.x509_authorities.contains(der);
    let held: Vec<Object> = old.jwt_authorities.iter().map(PublicKey::to_jwk).collect();
    !new.x509_authorities.iter().all(known)
        || !new.jwt_authorities.iter().all(|key| held.contains(&key.to_jwk()))
}

/// As much of a bundle as another one of its trust domain has too: those of its authorities that both have, and all else
/// as the first one says it. Nothing where they have no authority in common.
pub fn intersection(held: &Bundle, other: &Bundle) -> Option<Bundle> {
    let x509_authorities =
        held.x509_authorities.iter().filter(|der| other.x509_authorities.contains(der)).cloned().collect();
    let others: Vec<Object> = other.jwt_authorities.iter().map(PublicKey::to_jwk).collect();
    let jwt_authorities =
        held.jwt_authorities.iter().filter(|key| others.contains(&key.to_jwk())).cloned().collect();
    let common = Bundle { x509_authorities, jwt_authorities: KeySet::new(jwt_authorities), ..held.clone() };
    let is_empty = common.x509_authorities.is_empty() && common.jwt_authorities.iter().next().is_none();
    (!is_empty && held.trust_domain == other.trust_domain).then_some(common)
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

/// Reads that document of another trust domain. Keys of a kind, or for a use, that is unknown are passed over (SPIFFE
/// Trust Domain and Bundle §4.2.1, §4.2.2), and so is whatever has no certificate, or no `kid`, where its use demands one
/// (X509-SVID §6.2, JWT-SVID §6.2).
///
/// INVARIANT: what is taken, [`to_document`] can say, within the same bound: it is told on to nodes.
///
/// # Errors
/// If it is no such document, or would be none where it is told on; if an authority in it is none or another trust
/// domain's, or there is none at all.
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
            Some("x509-svid") => x509_authorities.extend(certificate_of(key, &trust_domain)?),
            Some("jwt-svid") if key.contains_key("kid") && is_of_known_kind(key) => {
                jwt_authorities.push(jwt_authority(key)?);
            }
            _ => {}
        }
    }
    if x509_authorities.is_empty() && jwt_authorities.is_empty() {
        return Err(AuthorityError("there is no authority in the bundle"));
    }
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    let sequence = number("spiffe_sequence");
    // §4.1.1: an integer. Without one there is no order; with one that cannot be read there would seem to be none.
    if sequence.is_none() && document.contains_key("spiffe_sequence") {
        return Err(AuthorityError("the bundle's spiffe_sequence is no integer of 64 bits"));
    }
    let bundle = Bundle {
        trust_domain,
        x509_authorities,
        jwt_authorities: KeySet::new(jwt_authorities),
        sequence: sequence.unwrap_or_default(),
        refresh_hint_seconds: number("spiffe_refresh_hint").unwrap_or(REFRESH_HINT_SECONDS),
    };
    // Beside each certificate its key is written, which whoever published it may have left out.
    if to_document(&bundle)?.to_string().len() > MAX_DOCUMENT_BYTES {
        return Err(AuthorityError(
            "a bundle has 256 KiB at most, with the key of each certificate written out",
        ));
    }
    Ok(bundle)
}

/// X509-SVID §6.2: the first of `x5c`. Without one, or with a key of a kind that is unknown, it is passed over.
fn certificate_of(jwk: &Object, trust_domain: &TrustDomain) -> Result<Option<Vec<u8>>, AuthorityError> {
    let Some(first) = jwk.get("x5c").and_then(|chain| chain.get(0)).and_then(Value::as_str) else {
        return Ok(None);
    };
    let no_certificate = AuthorityError("an X.509 authority in the bundle is no certificate of a CA");
    let der = STANDARD.decode(first).map_err(|_| no_certificate)?;
    match X509Certificate::from_der(&der) {
        Ok(([], certificate)) if certificate.is_ca() => {
            if !is_of(&certificate, trust_domain) {
                return Err(AuthorityError(
                    "an X.509 authority in the bundle is that of another trust domain",
                ));
            }
            // No chain to it could be verified here, and to no node could it be told.
            Ok(public_members(&certificate).is_ok().then_some(der))
        }
        _ => Err(no_certificate),
    }
}

/// X509-SVID §3.1: a signing certificate need have no SPIFFE ID; one that has some has its own trust domain's.
fn is_of(certificate: &X509Certificate<'_>, trust_domain: &TrustDomain) -> bool {
    let Ok(names) = certificate.subject_alternative_name() else { return false };
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let mut ids = names.filter_map(|name| match name {
        GeneralName::URI(uri)
            if uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) =>
        {
            Some(SpiffeId::new(uri))
        }
        _ => None,
    });
    ids.all(|id| id.is_ok_and(|id| id.is_member_of(trust_domain)))
}

/// Whether a JWT authority's `kty`, and its curve, is one that verifies here (SPIFFE Trust Domain and Bundle §4.2.1).
/// What has no `kty` is no key at all, and refused as such.
fn is_of_known_kind(jwk: &Object) -> bool {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    match text("kty") {
        None | Some("RSA") => true,
        Some("EC") => matches!(text("crv"), None | Some("P-256" | "P-384")),
        Some("OKP") => matches!(text("crv"), None | Some("Ed25519")),
        Some(_) => false,
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
    let info = certificate.public_key();
    let key = info.parsed().map_err(|_| unknown)?;
    let members = match &key {
        X509Key::EC(point) => {
            let bytes = point.data().strip_prefix(&[4]).ok_or(unknown)?;
            let (x, y) = bytes.split_at_checked(bytes.len() / 2).ok_or(unknown)?;
            // Others have points of the same length.
            let named = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            let curve = match (named.ok_or(unknown)?, bytes.len()) {
                (named, 64) if named == OID_EC_P256 => "P-256",
                (named, 96) if named == OID_NIST_EC_P384 => "P-384",
                (named, 132) if named == OID_NIST_EC_P521 => "P-521",
                _ => return Err(unknown),
            };
            vec![("kty", "EC".into()), ("crv", curve.into()), ("x", encode(x)), ("y", encode(y))]
        }
        X509Key::RSA(rsa) => {
            vec![("kty", "RSA".into()), ("n", trimmed(rsa.modulus)), ("e", trimmed(rsa.exponent))]
        }
        X509Key::Unknown(bytes) if info.algorithm.algorithm == OID_SIG_ED25519 && bytes.len() == 32 => {
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
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
        SanType, SignatureAlgorithm,
    };

    fn certificate(is_ca: IsCa) -> Value {
        certificate_of_id(is_ca, None)
    }

    fn certificate_of_id(is_ca: IsCa, id: Option<&str>) -> Value {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.subject_alt_names.extend(id.map(|id| SanType::URI(id.try_into().unwrap())));
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
    fn the_bundle_of_another_trust_domain_is_refused_as_far_as_it_says_whose_it_is() {
        let with = |id: &str| {
            let ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            read(&json!({ "keys": [jwt_key(), certificate_of_id(ca, Some(id))] }))
        };
        for own in ["spiffe://example-federated.org", "https://example.org/authority"] {
            assert!(with(own).is_ok(), "{own}");
        }
        for others in [
            "spiffe://example.org",
            "SPIFFE://example.org",
            "spiffe:",
            "spiffe://example-federated.org.example.org",
            "spiffe://example-federated.org:443",
        ] {
            let refused = with(others).unwrap_err();
            assert_eq!(
                refused, "an X.509 authority in the bundle is that of another trust domain",
                "{others}"
            );
        }
    }

    /// A key that nobody has.
    struct Strange(Vec<u8>, &'static SignatureAlgorithm);

    impl PublicKeyData for Strange {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static SignatureAlgorithm {
            self.1
        }
    }

    /// The certificate of an authority with this key, wherein one name of an algorithm stands for another as long.
    fn strange(key: Strange, (named, instead): (&[u8], &[u8])) -> Value {
        let own = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.signed_by(&key, &Issuer::from_params(&params, &own)).unwrap();
        let mut der = certificate.der().to_vec();
        let at = der.windows(named.len()).position(|part| part == named).unwrap();
        der[at..at + named.len()].copy_from_slice(instead);
        json!({ "use": "x509-svid", "x5c": [STANDARD.encode(der)] })
    }

    /// What a JWK cannot say, or what nobody here would verify by it.
    fn strange_kinds() -> Vec<(&'static str, Value)> {
        const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        const DSA: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
        const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
        let on = |last: u8| [&P384[..6], &[last]].concat();
        let point = |first: u8, bytes: usize| {
            let key = [vec![first], vec![7; bytes]].concat();
            Strange(key, &PKCS_ECDSA_P384_SHA384)
        };
        let octets = |bytes: usize| Strange(vec![7; bytes], &PKCS_ED25519);
        let integer = Strange(vec![0x02, 0x01, 0x05], &PKCS_ECDSA_P384_SHA384);
        vec![
            ("Ed448", strange(octets(57), (ED25519, &[0x06, 0x03, 0x2b, 0x65, 0x71]))),
            ("X25519", strange(octets(32), (ED25519, &[0x06, 0x03, 0x2b, 0x65, 0x6e]))),
            ("Ed25519, cut short", strange(octets(31), (ED25519, ED25519))),
            ("secp224r1", strange(point(4, 56), (P384, &on(0x21)))),
            ("secp256k1", strange(point(4, 64), (P384, &on(0x0a)))),
            ("a compressed point", strange(point(2, 48), (P384, P384))),
            ("DSA", strange(integer, (EC, DSA))),
        ]
    }

    #[test]
    fn authorities_with_keys_that_no_jwk_can_say_are_passed_over() {
        let unknown = [
            json!({ "kty": "AKP", "alg": "ML-DSA-65", "use": "jwt-svid", "kid": "two", "pub": "AAAA" }),
            json!({ "kty": "EC", "crv": "secp256k1", "use": "jwt-svid", "kid": "two", "x": "AA", "y": "AA" }),
            json!({ "kty": "OKP", "crv": "Ed448", "use": "jwt-svid", "kid": "two", "x": "AA" }),
        ];
        let unknown = unknown.map(|key| ("a JWK of an unknown kind", key));
        for (what, key) in strange_kinds().into_iter().chain(unknown) {
            let bundle = read(&json!({ "keys": [key, jwt_key()] })).expect(what);
            assert!(bundle.x509_authorities.is_empty(), "{what}");
            assert_eq!(bundle.jwt_authorities.iter().count(), 1, "{what}");
            to_document(&bundle).expect(what);
            assert!(read(&json!({ "keys": [key] })).is_err(), "{what}, alone");
        }
        let good = Strange([vec![4], vec![7; 96]].concat(), &PKCS_ECDSA_P384_SHA384);
        let good = strange(good, (&[0x2b, 0x81, 0x04], &[0x2b, 0x81, 0x04]));
        assert_eq!(read(&json!({ "keys": [good] })).unwrap().x509_authorities.len(), 1);
        for (what, key) in [
            ("no kind", json!({ "use": "jwt-svid", "kid": "two" })),
            ("no curve", json!({ "kty": "EC", "use": "jwt-svid", "kid": "two" })),
        ] {
            assert!(read(&json!({ "keys": [key, jwt_key()] })).is_err(), "{what}");
        }
    }

    #[test]
    fn a_bundle_that_could_not_be_told_on_is_refused() {
        let of_name = |length: usize| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let name = format!("https://example.org/{}", "a".repeat(length));
            params.subject_alt_names.push(SanType::URI(name.as_str().try_into().unwrap()));
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
        };
        let shortest = of_name(300).len();
        let hundred = |bytes: usize| {
            let der = of_name(300 + bytes - shortest);
            let key = json!({ "use": "x509-svid", "x5c": [STANDARD.encode(der)] });
            json!({ "keys": vec![key; 100] })
        };
        let (fits, does_not) = (hundred(1700), hundred(1880));
        assert!(does_not.to_string().len() <= MAX_DOCUMENT_BYTES, "as it was published it is small enough");
        let told = to_document(&read(&fits).unwrap()).unwrap().to_string();
        assert!(told.len() <= MAX_DOCUMENT_BYTES);
        let refused = "a bundle has 256 KiB at most, with the key of each certificate written out";
        assert_eq!(read(&does_not).unwrap_err(), refused);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_taken_can_be_told_and_read_again(picked in prop::collection::vec(0_usize..10, 0..12), at: u16, byte: u8) {
            let ca = certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
            let mut all: Vec<Value> = strange_kinds().into_iter().map(|(_, key)| key).collect();
            all.extend([ca, jwt_key(), json!({ "kty": "AKP", "use": "jwt-svid", "kid": "x" })]);
            let mut keys: Vec<Value> = picked.iter().map(|one| all[*one].clone()).collect();
            // One byte of the first certificate is another one.
            if let Some(text) = keys.iter().find_map(|key| key["x5c"][0].as_str().map(str::to_owned)) {
                let mut der = STANDARD.decode(text).unwrap();
                let at = usize::from(at) % der.len();
                der[at] = byte;
                keys.push(json!({ "use": "x509-svid", "x5c": [STANDARD.encode(der)] }));
            }
            if let Ok(bundle) = read(&json!({ "keys": keys })) {
                let told = to_document(&bundle).unwrap();
                prop_assert!(told.to_string().len() <= MAX_DOCUMENT_BYTES);
                prop_assert!(has_same_authorities(&read(&told).unwrap(), &bundle));
            }
        }
    }

    #[test]
    fn what_widens_is_an_authority_that_was_not_there() {
        let ca = || certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let (one, two) = (ca(), ca());
        let bundle = |keys: Value| read(&json!({ "keys": keys })).unwrap();
        let (both, less) = (bundle(json!([one, two, jwt_key()])), bundle(json!([two, jwt_key()])));
        assert!(widens(&both, &less) && !widens(&less, &both) && !widens(&both, &both));
        assert!(widens(&both, &bundle(json!([one, two]))) && !widens(&bundle(json!([one, two])), &both));
        assert!(has_same_authorities(&both, &both) && !has_same_authorities(&both, &less));
    }

    #[test]
    fn what_two_bundles_have_in_common_is_in_both() {
        let ca = || certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        let (one, two, three) = (ca(), ca(), ca());
        let bundle = |keys: Value| read(&json!({ "keys": keys, "spiffe_sequence": 4 })).unwrap();
        let (old, new) = (bundle(json!([one, two, jwt_key()])), bundle(json!([two, three, jwt_key()])));
        let common = intersection(&old, &new).unwrap();
        assert!(has_same_authorities(&common, &bundle(json!([two, jwt_key()]))));
        assert!(!widens(&common, &old) && !widens(&common, &new));
        assert_eq!(common.sequence, 4);
        let common = intersection(&old, &bundle(json!([jwt_key()]))).unwrap();
        assert!(common.x509_authorities.is_empty(), "one kind of authority is enough");
        assert!(intersection(&bundle(json!([one, jwt_key()])), &bundle(json!([three]))).is_none());
        let mut others = new;
        others.trust_domain = TrustDomain::new("example.org").unwrap();
        assert!(intersection(&old, &others).is_none(), "of another trust domain");
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
            ("a number that is none", json!({ "keys": [jwt_key()], "spiffe_sequence": "7" })),
            ("a negative number", json!({ "keys": [jwt_key()], "spiffe_sequence": -1 })),
            ("too many keys", json!({ "keys": vec![jwt_key(); 101] })),
        ] {
            assert!(read(&document).is_err(), "{what}");
        }
    }
}
