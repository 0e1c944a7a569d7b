use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use std::sync::Arc;

use super::*;
use crate::authority::{Authority, set_validity, uri};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

/// Signs certificates: an authority of a trust domain, or one below it.
struct Signs {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Signs {
    fn anchor(name: &str) -> Self {
        let (parameters, key) = (Self::parameters(name, None), KeyPair::generate().unwrap());
        let der = parameters.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(parameters, key) }
    }

    /// One below it, which may say for which trust domain it signs.
    fn below(&self, name: &str, id: Option<&str>) -> Self {
        let (parameters, key) = (Self::parameters(name, id), KeyPair::generate().unwrap());
        let der = parameters.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, issuer: Issuer::new(parameters, key) }
    }

    fn parameters(name: &str, id: Option<&str>) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        set_validity(&mut parameters, (NOW - 24 * HOUR, NOW + 24 * HOUR)).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.subject_alt_names = id.map(|id| uri(id).unwrap()).into_iter().collect();
        parameters
    }

    fn leaf(&self, parameters: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        parameters.signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

/// As the mint has it: what a test changes is what it is about.
fn svid(ids: &[&str]) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters, (NOW - 10, NOW + HOUR)).unwrap();
    parameters.subject_alt_names = ids.iter().map(|id| uri(id).unwrap()).collect();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

fn bundle(trust_domain: &str, anchors: &[&Signs], keys: &[&SigningKey]) -> Arc<Bundle> {
    Arc::new(Bundle {
        trust_domain: TrustDomain::new(trust_domain).unwrap(),
        x509_authorities: anchors.iter().map(|anchor| anchor.der.to_vec()).collect(),
        jwt_authorities: KeySet::new(keys.iter().map(|key| key.public().clone()).collect()),
        sequence: 1,
        refresh_hint_seconds: 300,
    })
}

/// Ours, and those of one that we federate with.
struct World {
    ours: Signs,
    theirs: Signs,
    bundles: Bundles,
}

impl World {
    fn new() -> Self {
        let (ours, theirs) = (Signs::anchor("ours"), Signs::anchor("theirs"));
        let federated = vec![bundle("partner.test", &[&theirs], &[])];
        Self { bundles: Bundles { own: bundle("example.org", &[&ours], &[]), federated }, ours, theirs }
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<String, NotAnSvid> {
        verify_x509_svid(chain, &self.bundles, NOW).map(|id| id.to_string())
    }
}

const AGENT: &str = "spiffe://example.org/agent/a";

#[test]
fn an_svid_is_known_by_the_authorities_of_its_own_trust_domain() {
    let world = World::new();
    assert_eq!(world.verify(&[world.ours.leaf(&svid(&[AGENT]))]).unwrap(), AGENT);
    let theirs = "spiffe://partner.test/agent/b";
    assert_eq!(world.verify(&[world.theirs.leaf(&svid(&[theirs]))]).unwrap(), theirs);
    let middle = world.ours.below("middle", Some("spiffe://example.org"));
    let nameless = middle.below("lower", None);
    let chain = [nameless.leaf(&svid(&[AGENT])), nameless.der.clone(), middle.der.clone()];
    assert_eq!(world.verify(&chain).unwrap(), AGENT);
    // Names of hosts beside the one URI are nobody's SPIFFE ID; a list of usages may be missing.
    let mut other = svid(&[AGENT]);
    other.subject_alt_names.push(SanType::DnsName("a.example.org".try_into().unwrap()));
    other.extended_key_usages.clear();
    assert_eq!(world.verify(&[world.ours.leaf(&other)]).unwrap(), AGENT);

    for foreign in [
        world.theirs.leaf(&svid(&[AGENT])),
        world.ours.leaf(&svid(&[theirs])),
        Signs::anchor("ours").leaf(&svid(&[AGENT])),
    ] {
        let refused = world.verify(&[foreign]).unwrap_err();
        assert_eq!(refused.reason(), "svid_signature", "{refused}");
    }
    let unknown = world.ours.leaf(&svid(&["spiffe://elsewhere.test/agent"]));
    assert_eq!(world.verify(&[unknown]), Err(NotAnSvid::TrustDomain));
}

#[test]
fn what_our_mint_makes_holds_here() {
    let domain = TrustDomain::new("example.org").unwrap();
    let (authority, _) = Authority::self_signed(&domain, NOW, HOUR).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut parameters = svid(&[AGENT]);
    set_validity(&mut parameters, (NOW - 10, NOW + 60)).unwrap();
    let leaf = CertificateDer::from(authority.sign(&parameters, &key).unwrap());
    let own = Bundle {
        x509_authorities: vec![authority.certificate().anchor().to_vec()],
        ..bundle("example.org", &[], &[]).as_ref().clone()
    };
    let bundles = Bundles { own: Arc::new(own), federated: Vec::new() };
    assert_eq!(verify_x509_svid(&[leaf], &bundles, NOW).unwrap().to_string(), AGENT);
}

#[test]
fn the_form_of_an_svid_is_strict() {
    let world = World::new();
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut parameters = svid(&[AGENT]);
        change(&mut parameters);
        world.verify(&[world.ours.leaf(&parameters)])
    };
    assert!(with(&|_| {}).is_ok());
    let names = |names: &'static [&'static str]| {
        move |svid: &mut CertificateParams| {
            svid.subject_alt_names = names.iter().map(|name| uri(name).unwrap()).collect();
        }
    };
    let usages = |usages: &'static [KeyUsagePurpose]| {
        move |svid: &mut CertificateParams| svid.key_usages = usages.to_vec()
    };
    for (what, reason, refused) in [
        ("two IDs", "svid_identity", with(&names(&[AGENT, "spiffe://example.org/agent/b"]))),
        ("an ID twice", "svid_identity", with(&names(&[AGENT, AGENT]))),
        ("another URI beside it", "svid_identity", with(&names(&[AGENT, "https://example.org/"]))),
        ("no name", "svid_identity", with(&names(&[]))),
        ("another scheme", "svid_identity", with(&names(&["https://example.org/agent/a"]))),
        ("no path", "svid_identity", with(&names(&["spiffe://example.org"]))),
        ("dots in the path", "svid_identity", with(&names(&["spiffe://example.org/agent/../a"]))),
        ("capitals", "svid_identity", with(&names(&["spiffe://Example.org/agent/a"]))),
        (
            "signs certificates",
            "svid_kind",
            with(&usages(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign])),
        ),
        (
            "signs lists",
            "svid_kind",
            with(&usages(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign])),
        ),
        ("does not sign", "svid_kind", with(&usages(&[KeyUsagePurpose::KeyAgreement]))),
        ("says nothing of its key", "svid_kind", with(&usages(&[]))),
        (
            "for servers alone",
            "svid_kind",
            with(&|svid| svid.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "for code",
            "svid_kind",
            with(&|svid| svid.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        ),
        ("a CA", "svid_kind", with(&|svid| svid.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("expired", "svid_expired", with(&|svid| set_validity(svid, (NOW - HOUR, NOW - 1)).unwrap())),
        (
            "not yet valid",
            "svid_not_yet_valid",
            with(&|svid| set_validity(svid, (NOW + 1, NOW + HOUR)).unwrap()),
        ),
    ] {
        let refused = refused.expect_err(what);
        assert_eq!(refused.reason(), reason, "{what}: {refused}");
    }
}

#[test]
fn the_way_to_the_anchor_is_of_one_trust_domain_and_bounded() {
    let world = World::new();
    let refused = |chain: &[CertificateDer<'_>]| world.verify(chain).unwrap_err();
    // Cross-signed: our authority vouches for that of another trust domain, which vouches for an agent of ours.
    for foreign in ["spiffe://partner.test", "SPIFFE://partner.test", "spiffe://example.org/agent/a"] {
        let middle = world.ours.below("middle", Some(foreign));
        let chain = [middle.leaf(&svid(&[AGENT])), middle.der.clone()];
        assert_eq!(refused(&chain).reason(), "svid_signature", "{foreign}");
    }
    let middle = world.ours.below("middle", None);
    let leaf = middle.leaf(&svid(&[AGENT]));
    assert_eq!(refused(std::slice::from_ref(&leaf)).reason(), "svid_signature", "the one between is missing");
    assert_eq!(refused(&[]).reason(), "svid_malformed");
    let padded = |others: usize| {
        let mut chain = vec![leaf.clone(), middle.der.clone()];
        chain.extend(vec![world.theirs.der.clone(); others]);
        chain
    };
    assert_eq!(world.verify(&padded(6)).unwrap(), AGENT, "others beside it are no harm");
    assert_eq!(refused(&padded(7)).reason(), "svid_malformed", "nine certificates");
    // A leaf is no authority, whatever it signs.
    let agent = svid(&[AGENT]);
    let key = KeyPair::generate().unwrap();
    let der = agent.signed_by(&key, &world.ours.issuer).unwrap().der().clone();
    let signs = Signs { der: der.clone(), issuer: Issuer::new(agent, key) };
    let forged = signs.leaf(&svid(&["spiffe://example.org/agent/admin"]));
    assert_eq!(refused(&[forged, der]).reason(), "svid_signature");
    let mut damaged = world.ours.leaf(&svid(&[AGENT])).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(world.verify(&[CertificateDer::from(damaged.clone())]).is_err());
    damaged.push(0);
    assert_eq!(refused(&[CertificateDer::from(damaged)]).reason(), "svid_malformed", "something behind it");
}

#[test]
fn a_token_is_known_by_the_keys_of_its_own_trust_domain_and_for_its_audience() {
    let [ours, theirs] = [(); 2].map(|()| SigningKey::generate(SigningAlgorithm::ES256).unwrap());
    let bundles = Bundles {
        own: bundle("example.org", &[], &[&ours]),
        federated: vec![bundle("partner.test", &[], &[&theirs])],
    };
    let good = json!({ "sub": AGENT, "aud": ["https://broker.test", "db"], "exp": NOW + 60, "iat": NOW });
    let verify = |key: &SigningKey, typ: &str, change: Value| {
        let mut claims = good.clone();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let token = key.sign(typ, &claims).unwrap();
        verify_jwt_svid(&token, &bundles, NOW, "https://broker.test").map(|svid| svid.spiffe_id.to_string())
    };
    assert_eq!(verify(&ours, "JWT", json!({})).unwrap(), AGENT);
    assert_eq!(verify(&ours, "JOSE", json!({ "aud": "https://broker.test" })).unwrap(), AGENT);
    let partner = json!({ "sub": "spiffe://partner.test/b" });
    assert_eq!(verify(&theirs, "JWT", partner.clone()).unwrap(), "spiffe://partner.test/b");
    let ed = SigningKey::generate(SigningAlgorithm::EdDSA).unwrap();
    for (what, reason, refused) in [
        ("their key for us", "svid_signature", verify(&theirs, "JWT", json!({}))),
        ("our key for them", "svid_signature", verify(&ours, "JWT", partner)),
        (
            "another domain",
            "svid_trust_domain",
            verify(&ours, "JWT", json!({ "sub": "spiffe://elsewhere.test/a" })),
        ),
        ("no ID", "svid_identity", verify(&ours, "JWT", json!({ "sub": "agent" }))),
        ("no subject", "svid_malformed", verify(&ours, "JWT", json!({ "sub": null }))),
        ("another audience", "svid_audience", verify(&ours, "JWT", json!({ "aud": "db" }))),
        ("no audience", "svid_malformed", verify(&ours, "JWT", json!({ "aud": null }))),
        ("expired", "svid_expired", verify(&ours, "JWT", json!({ "exp": NOW - 5 }))),
        ("no end", "svid_malformed", verify(&ours, "JWT", json!({ "exp": null }))),
        ("not yet", "svid_not_yet_valid", verify(&ours, "JWT", json!({ "nbf": NOW + 6 }))),
        ("issued later", "svid_not_yet_valid", verify(&ours, "JWT", json!({ "iat": NOW + 6 }))),
        ("an access token", "svid_kind", verify(&ours, "at+jwt", json!({}))),
        ("EdDSA", "svid_kind", verify(&ed, "JWT", json!({}))),
    ] {
        let refused = refused.expect_err(what);
        assert_eq!(refused.reason(), reason, "{what}: {refused}");
    }
}
