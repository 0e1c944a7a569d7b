use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::*;
use crate::authority::{set_validity, uri};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

#[test]
fn a_chain_is_bounded_and_known_by_its_leaf() {
    let of = |bytes: usize| CertificateDer::from(vec![7_u8; bytes]);
    let shown = PresentedCertificate::proved(&[CertificateDer::from(b"abc".to_vec()), of(9)]).unwrap();
    assert_eq!((shown.leaf(), shown.chain().len()), (b"abc".as_slice(), 2));
    // FIPS 180-2, appendix B.1, in base64url.
    assert_eq!(shown.thumbprint(), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    assert!(!format!("{shown:?}").contains("97, 98, 99"), "{shown:?}");
    assert!(PresentedCertificate::proved(&[]).is_err());
    assert!(PresentedCertificate::proved(&vec![of(1); MAX_CERTIFICATES]).is_ok());
    assert!(PresentedCertificate::proved(&vec![of(1); MAX_CERTIFICATES + 1]).is_err());
    assert!(PresentedCertificate::proved(&[of(MAX_CHAIN_BYTES)]).is_ok());
    assert!(PresentedCertificate::proved(&[of(MAX_CHAIN_BYTES), of(1)]).is_err());
}

struct Signs {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Signs {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        set_validity(&mut parameters, (NOW - HOUR, NOW + 24 * HOUR)).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(parameters, key) }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> PresentedCertificate {
        let mut parameters = bot();
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let der = parameters.signed_by(&key, &self.issuer).unwrap().der().clone();
        PresentedCertificate::proved(&[der]).unwrap()
    }

    fn expects(&self, name: ExpectedName) -> Arc<ExpectedCertificate> {
        Arc::new(ExpectedCertificate::new(std::slice::from_ref(&self.der), name).unwrap())
    }
}

fn bot() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters, (NOW - 10, NOW + HOUR)).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
    parameters.distinguished_name.push(DnType::CommonName, "support-bot");
    parameters.subject_alt_names = vec![
        SanType::DnsName("bot.example.org".try_into().unwrap()),
        SanType::DnsName("second.example.org".try_into().unwrap()),
        SanType::Rfc822Name("bot@example.org".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
        uri("urn:example:bot").unwrap(),
    ];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

fn dns(name: &str) -> ExpectedName {
    ExpectedName::Dns(name.to_owned())
}

#[test]
fn a_name_is_the_one_that_is_expected_and_of_its_kind() {
    let authority = Signs::new("authority");
    let shown = authority.leaf(|_| ());
    let (uri, email) =
        (|uri: &str| ExpectedName::Uri(uri.to_owned()), |it: &str| ExpectedName::Email(it.to_owned()));
    let ip = |ip: &str| ExpectedName::Ip(ip.parse().unwrap());
    let subject = |name: &str| ExpectedName::Subject(name.parse().unwrap());
    for good in [
        dns("bot.example.org"),
        dns("Second.EXAMPLE.org"),
        uri("urn:example:bot"),
        email("bot@example.org"),
        ip("192.0.2.7"),
        ip("2001:db8::7"),
        subject(r"CN=support-bot,O=Example\, Inc."),
    ] {
        assert_eq!(shown.vouched_by(&authority.expects(good.clone()), NOW), Ok(()), "{good:?}");
    }
    for other in [
        dns("example.org"),
        dns("*.example.org"),
        dns("support-bot"),
        dns("urn:example:bot"),
        uri("urn:example:BOT"),
        uri("bot.example.org"),
        email("Bot@example.org"),
        ip("192.0.2.8"),
        ip("::ffff:192.0.2.7"),
        subject("CN=support-bot"),
        subject(r"O=Example\, Inc.,CN=support-bot"),
        subject(r"CN=Support-bot,O=Example\, Inc."),
    ] {
        let refused = shown.vouched_by(&authority.expects(other.clone()), NOW);
        assert_eq!(refused, Err(NotVouched::Name), "{other:?}");
    }
}

#[test]
fn whose_svid_it_is_is_found_out_once_and_so_is_that_it_is_nobodys() {
    let (authority, other) = (Signs::new("authority"), Signs::new("authority"));
    let shown = authority.leaf(|leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://example.org/bot").unwrap()];
    });
    let bundles = |of: &Signs| {
        Arc::new(Bundles {
            own: Arc::new(Bundle {
                trust_domain: "example.org".try_into().unwrap(),
                x509_authorities: vec![of.der.to_vec()],
                jwt_authorities: deputize_call::keys::KeySet::default(),
                sequence: 1,
                refresh_hint_seconds: 300,
            }),
            federated: Vec::new(),
        })
    };
    let since = || shown.found.lock().unwrap().as_ref().map(|found| found.since_seconds);
    let (good, bad) = (bundles(&authority), bundles(&other));
    assert!(matches!(shown.workload(&bad, NOW), Err(NotAnSvid::Signature(_))));
    // Nobody looks again as long as it is the same question, and not for ever.
    assert!(matches!(shown.workload(&bad, NOW + 59), Err(NotAnSvid::Signature(_))));
    assert_eq!(since(), Some(NOW));
    assert!(shown.workload(&bad, NOW + 60).is_err());
    assert_eq!(since(), Some(NOW + 60));
    // The same authorities anew are another question: somebody changed something.
    assert!(shown.workload(&bundles(&other), NOW + 61).is_err());
    assert_eq!(since(), Some(NOW + 61));
    for later in [62, 70] {
        assert_eq!(shown.workload(&good, NOW + later).unwrap().to_string(), "spiffe://example.org/bot");
        assert_eq!(since(), Some(NOW + 62));
    }
    assert_eq!(shown.workload(&good, NOW + HOUR + 1), Err(NotAnSvid::Expired));
    assert_eq!(shown.workload(&good, NOW - 11), Err(NotAnSvid::NotYetValid));
    assert!(shown.workload(&good, NOW - 10).is_ok(), "a second later it is");
}

#[test]
fn whoever_vouches_is_known_and_the_certificate_is_for_a_client_and_for_now() {
    let (authority, other) = (Signs::new("authority"), Signs::new("authority"));
    let expected = authority.expects(dns("bot.example.org"));
    let refused = |shown: &PresentedCertificate| shown.vouched_by(&expected, NOW).unwrap_err();
    assert_eq!(refused(&other.leaf(|_| ())), NotVouched::Authority);
    let usages =
        |usages: Vec<ExtendedKeyUsagePurpose>| authority.leaf(|leaf| leaf.extended_key_usages = usages);
    assert_eq!(refused(&usages(vec![ExtendedKeyUsagePurpose::ServerAuth])), NotVouched::Usage);
    assert_eq!(usages(Vec::new()).vouched_by(&expected, NOW), Ok(()), "where none is listed, all are");
    let agrees = authority.leaf(|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert_eq!(refused(&agrees), NotVouched::Usage);
    let ca = authority.leaf(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(refused(&ca), NotVouched::Malformed);
    let until = |begin, end| authority.leaf(|leaf| set_validity(leaf, (begin, end)).unwrap());
    assert_eq!(refused(&until(NOW - HOUR, NOW - 1)), NotVouched::Expired);
    assert_eq!(refused(&until(NOW + 1, NOW + HOUR)), NotVouched::NotYetValid);
    // Under a root that SVIDs have too.
    let svid = authority.leaf(|leaf| leaf.subject_alt_names.push(uri("SPIFFE://example.org/web").unwrap()));
    assert_eq!(refused(&svid), NotVouched::Svid);
    let named = ExpectedName::Uri("spiffe://example.org/web".to_owned());
    assert!(ExpectedCertificate::new(std::slice::from_ref(&authority.der), named).is_err());
    assert!(ExpectedCertificate::new(&[], dns("a")).is_err());
    let leaf = authority.leaf(|_| ());
    assert!(ExpectedCertificate::new(leaf.chain(), dns("a")).is_err(), "a leaf vouches for nobody");
}

#[test]
fn an_authority_vouches_for_nobody_after_its_end() {
    let authority = Signs::new("authority");
    let longer = authority.leaf(|leaf| set_validity(leaf, (NOW - 10, NOW + 99 * HOUR)).unwrap());
    let expected = authority.expects(dns("bot.example.org"));
    assert_eq!(longer.vouched_by(&expected, NOW + 24 * HOUR), Ok(()));
    assert_eq!(longer.vouched_by(&expected, NOW + 24 * HOUR + 1), Err(NotVouched::Authority));
}

#[test]
fn two_share_what_they_expect_where_authority_and_name_are_the_same() {
    let (authority, other) = (Signs::new("authority"), Signs::new("authority"));
    let expected = authority.expects(dns("bot.example.org"));
    assert!(expected.is_shared_with(&authority.expects(dns("Bot.example.org"))));
    assert!(!expected.is_shared_with(&authority.expects(dns("second.example.org"))));
    assert!(!expected.is_shared_with(&other.expects(dns("bot.example.org"))));
}

#[test]
fn what_was_found_once_holds_for_what_it_was_found_and_as_long_as_the_certificate_does() {
    let authority = Signs::new("authority");
    let (expected, same) =
        (authority.expects(dns("bot.example.org")), authority.expects(dns("bot.example.org")));
    let other = authority.expects(dns("other.example.org"));
    let shown = authority.leaf(|_| ());
    for _ in 0..2 {
        assert_eq!(shown.vouched_by(&expected, NOW), Ok(()));
        assert_eq!(shown.vouched_by(&other, NOW), Err(NotVouched::Name));
        assert_eq!(shown.vouched_by(&same, NOW), Ok(()));
    }
    assert_eq!(shown.vouched_by(&same, NOW + HOUR), Ok(()));
    assert_eq!(shown.vouched_by(&same, NOW + HOUR + 1), Err(NotVouched::Expired));
    assert_eq!(
        shown.vouched_by(&same, NOW - 11),
        Err(NotVouched::NotYetValid),
        "set back, the clock revives nothing"
    );
}

#[test]
fn a_certificate_of_its_own_is_that_one_and_not_another_with_its_key() {
    let key = KeyPair::generate().unwrap();
    let [one, again] = [(); 2].map(|()| {
        let certificate = bot().self_signed(&key).unwrap();
        PresentedCertificate::proved(&[certificate.der().clone()]).unwrap()
    });
    let own = OwnCertificate::read(one.leaf()).unwrap();
    assert!(own.is(&one, NOW) && own.is(&one, NOW + HOUR));
    assert!(!own.is(&again, NOW), "another certificate of one key");
    assert!(!own.is(&one, NOW + HOUR + 1) && !own.is(&one, NOW - 11), "out of its time");
    assert!(OwnCertificate::read(b"abc").is_err());
}
