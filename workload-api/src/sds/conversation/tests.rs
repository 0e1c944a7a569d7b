use bytes::Bytes;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};

use super::*;
use crate::proto::{
    X509svid,
    secrets::{BuildVersion, Node, Problem, Secret, SemanticVersion, SpiffeCertValidatorConfig},
};

const ONE: &str = "spiffe://example.org/one";
const TWO: &str = "spiffe://example.org/two";
const OWN: &str = "spiffe://example.org";
const PARTNER: &str = "spiffe://partner.test";

/// Something with the outer form of DER.
fn der(content: u8) -> Bytes {
    vec![0x30, 3, content, content, content].into()
}

/// The middle of that in PEM.
fn base64(content: u8) -> &'static str {
    match content {
        1 => "MAMBAQE=",
        2 => "MAMCAgI=",
        3 => "MAMDAwM=",
        7 => "MAMHBwc=",
        8 => "MAMICAg=",
        9 => "MAMJCQk=",
        _ => panic!(),
    }
}

fn svid(id: &str, chain: u8, key: u8) -> X509svid {
    X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: der(chain),
        x509_svid_key: der(key),
        bundle: der(8),
        hint: String::new(),
    }
}

fn state() -> X509svidResponse {
    X509svidResponse {
        svids: vec![svid(ONE, 1, 7), svid(TWO, 2, 7)],
        crl: Vec::new(),
        federated_bundles: [(PARTNER.to_owned(), der(9))].into(),
    }
}

fn asks(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn acknowledges(said: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: said.version_info.clone(),
        response_nonce: said.nonce.clone(),
        ..asks(names)
    }
}

fn envoy(minor_number: u32, metadata: Option<Struct>) -> Node {
    let version = SemanticVersion { major_number: 1, minor_number };
    let build = BuildVersion { version: Some(version) };
    Node { metadata, user_agent_build_version: Some(build) }
}

fn secrets(said: &DiscoveryResponse) -> Vec<Secret> {
    assert!(said.resources.iter().all(|packed| packed.type_url == SECRET_TYPE));
    said.resources.iter().map(|packed| Secret::decode(packed.value.clone()).unwrap()).collect()
}

/// The first answer to these names, in words: name, certificates, key, authorities.
fn told(names: &[&str], node: Option<Node>) -> Result<Vec<String>, Refused> {
    let mut conversation = Conversation::default();
    conversation.hear(&DiscoveryRequest { node, ..asks(names) })?;
    let said = conversation.say(&state())?.unwrap();
    Ok(secrets(&said).iter().map(in_words).collect())
}

fn in_words(secret: &Secret) -> String {
    let lines = |source: &crate::proto::secrets::DataSource| {
        let text = String::from_utf8(source.inline_bytes.to_vec()).unwrap();
        text.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("+")
    };
    let mut words = secret.name.clone();
    if let Some(certificate) = &secret.tls_certificate {
        let (chain, key) = (certificate.certificate_chain.as_ref(), certificate.private_key.as_ref());
        words += &format!(" certificate {} key {}", lines(chain.unwrap()), lines(key.unwrap()));
    }
    if let Some(context) = &secret.validation_context {
        if let Some(authorities) = &context.trusted_ca {
            words += &format!(" trusts {}", lines(authorities));
        }
        if let Some(config) = &context.custom_validator_config {
            assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
            let packed = config.typed_config.as_ref().unwrap();
            assert!(packed.type_url.ends_with(".SPIFFECertValidatorConfig"));
            for domain in SpiffeCertValidatorConfig::decode(packed.value.clone()).unwrap().trust_domains {
                words += &format!(" {}: {}", domain.name, lines(domain.trust_bundle.as_ref().unwrap()));
            }
        }
    }
    words
}

#[test]
fn each_name_is_what_it_should_be_and_no_key_but_the_callers_own_is_given() {
    let key = base64(7);
    let certificate = |name: &str, chain| format!("{name} certificate {} key {key}", base64(chain));
    let trusts = |name: &str, authority| format!("{name} trusts {}", base64(authority));
    assert_eq!(told(&["default"], None).unwrap(), [certificate("default", 1)]);
    assert_eq!(told(&[TWO, "ROOTCA"], None).unwrap(), [certificate(TWO, 2), trusts("ROOTCA", 8)]);
    assert_eq!(told(&[OWN, PARTNER, OWN], None).unwrap(), [trusts(OWN, 8), trusts(PARTNER, 9)]);
    let all = [certificate(ONE, 1), certificate(TWO, 2), trusts(OWN, 8), trusts(PARTNER, 9)];
    assert_eq!(told(&[], None).unwrap(), all);
    for (unknown, refused) in [
        ("spiffe://example.org/three", Refused::NotThatIdentity),
        ("spiffe://elsewhere.test", Refused::NotThatIdentity),
        ("spiffe://example.org/", Refused::NotThatIdentity),
    ] {
        assert_eq!(told(&["default", unknown], None), Err(refused), "{unknown}");
    }
    for malformed in ["", "Default", "rootca", "example.org", "ALL"] {
        assert!(matches!(told(&[malformed], None), Err(Refused::Invalid(_))), "{malformed}");
    }
}

#[test]
fn whom_to_trust_is_told_in_the_form_that_the_client_understands() {
    let domain = |name: &str, authority| format!(" {name}: {}", base64(authority));
    let (own, partner) = (domain("example.org", 8), domain("partner.test", 9));
    let new = || Some(envoy(18, None));
    assert_eq!(told(&["ROOTCA"], new()).unwrap(), [format!("ROOTCA{own}")]);
    assert_eq!(told(&[PARTNER], new()).unwrap(), [format!("{PARTNER}{partner}")]);
    assert_eq!(told(&["ALL"], new()).unwrap(), [format!("ALL{own}{partner}")]);
    let old = told(&["ROOTCA"], Some(envoy(17, None))).unwrap();
    assert_eq!(old, [format!("ROOTCA trusts {}", base64(8))]);
    let declines = |value| {
        let value = Value { kind: Some(Kind::BoolValue(value)) };
        let metadata = Struct { fields: [("disable_spiffe_cert_validation".to_owned(), value)].into() };
        told(&["ROOTCA"], Some(envoy(30, Some(metadata)))).unwrap()
    };
    assert_eq!((declines(true), declines(false)), (old, vec![format!("ROOTCA{own}")]));
}

#[test]
fn what_is_acknowledged_is_not_said_again_and_what_changes_is() {
    let mut conversation = Conversation::default();
    assert_eq!(conversation.say(&state()), Ok(None), "nothing was asked");
    conversation.hear(&asks(&[ONE])).unwrap();
    let first = conversation.say(&state()).unwrap().unwrap();
    assert_eq!((first.version_info.as_str(), first.nonce.as_str()), ("1", "1"));
    conversation.hear(&acknowledges(&first, &[ONE])).unwrap();
    assert_eq!(conversation.say(&state()), Ok(None));

    let mut others = state();
    others.svids[1] = svid(TWO, 3, 7);
    conversation.state_changed();
    assert_eq!(conversation.say(&others), Ok(None), "what changed was not asked for");
    let mut renewed = state();
    renewed.svids[0] = svid(ONE, 3, 7);
    conversation.state_changed();
    let second = conversation.say(&renewed).unwrap().unwrap();
    assert_eq!((in_words(&secrets(&second)[0]).contains(base64(3)), second.nonce.as_str()), (true, "2"));

    // What crossed it on the way is no answer to it, whatever it asks for.
    conversation.hear(&acknowledges(&first, &[TWO])).unwrap();
    assert_eq!(conversation.say(&renewed), Ok(None));
    conversation.hear(&acknowledges(&second, &[TWO, "ROOTCA"])).unwrap();
    let third = conversation.say(&renewed).unwrap().unwrap();
    assert_eq!(
        secrets(&third).iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(),
        [TWO, "ROOTCA"]
    );

    renewed.svids.remove(1);
    conversation.state_changed();
    assert_eq!(conversation.say(&renewed), Err(Refused::NotThatIdentity), "it is no longer entitled to it");
}

#[test]
fn what_is_refused_by_the_client_is_not_pressed_upon_it() {
    let mut conversation = Conversation::default();
    conversation.hear(&asks(&["default"])).unwrap();
    let first = conversation.say(&state()).unwrap().unwrap();
    let problem = Problem { code: 3, message: "no such key".to_owned() };
    let refusal = DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(problem),
        ..acknowledges(&first, &["default"])
    };
    conversation.hear(&refusal).unwrap();
    assert_eq!(conversation.say(&state()), Ok(None));
    let mut renewed = state();
    renewed.svids[0] = svid(ONE, 3, 7);
    conversation.state_changed();
    assert_eq!(conversation.say(&renewed).unwrap().unwrap().version_info, "2", "the next one may do");
}

#[test]
fn requests_are_bounded_and_for_secrets() {
    let hear = |request: DiscoveryRequest| Conversation::default().hear(&request);
    assert_eq!(hear(DiscoveryRequest { type_url: String::new(), ..asks(&[]) }), Ok(()));
    let clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    assert!(hear(DiscoveryRequest { type_url: clusters, ..asks(&[]) }).is_err());
    assert!(hear(asks(&vec!["default"; MAX_NAMES + 1])).is_err());
    assert!(hear(asks(&[&"x".repeat(MAX_NAME_BYTES + 1)])).is_err());
}

#[test]
fn keys_are_not_printed() {
    let mut conversation = Conversation::default();
    conversation.hear(&asks(&["default"])).unwrap();
    let said = conversation.say(&state()).unwrap().unwrap();
    let printed = format!("{said:?} {:?}", secrets(&said));
    assert!(!printed.contains("PRIVATE") && !printed.contains("80, 82"), "{printed}");
}
