use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use spiffe::{TrustDomain, cert::spiffe_id_from_der};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use super::{certificate::parse, *};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

#[test]
fn a_self_signed_authority_says_what_it_must_and_nothing_else() {
    let (authority, _) = Authority::self_signed(&domain(), NOW, DAY).unwrap();
    let certificate = authority.certificate();
    let own = parse(certificate.anchor()).unwrap();
    check_authority(&own, 0);
    assert_eq!(own.issuer(), own.subject());
    assert_eq!(certificate.chain(), [certificate.anchor().to_vec()]);
    assert!(certificate.intermediates().is_empty(), "nothing between an SVID and its anchor");
    assert_eq!(certificate.authorities(), [certificate.public_key_sha256()]);
    assert_eq!((certificate.not_before_seconds(), certificate.not_after_seconds()), (NOW - 10, NOW + DAY));
    assert_eq!(spiffe_id_from_der(certificate.anchor()).unwrap().to_string(), "spiffe://example.org");
    let bundle = spiffe::X509Bundle::parse_from_der(domain(), certificate.anchor()).unwrap();
    assert_eq!(bundle.authorities().len(), 1);
}

#[test]
fn no_two_authorities_have_one_name_or_serial() {
    let made = [(); 2].map(|()| Authority::self_signed(&domain(), NOW, DAY).unwrap().0);
    let [one, other] = made.each_ref().map(|made| parse(made.certificate().anchor()).unwrap());
    assert_ne!(one.subject(), other.subject());
    assert_ne!(one.raw_serial(), other.raw_serial());
}

#[test]
fn an_authority_under_another_brings_the_way_up_and_ends_with_it() {
    let root = Above::root("root", Some(3));
    let middle = root.signs("middle", Some(1), NOW + 2 * DAY);
    let upstream = Upstream::new(vec![middle.der.clone(), root.der.clone()], &middle.key()).unwrap();
    let (authority, _) = Authority::under(&upstream, &domain(), NOW, DAY).unwrap();
    let certificate = authority.certificate();
    let own = parse(&certificate.chain()[0]).unwrap();
    check_authority(&own, 0);
    own.verify_signature(Some(parse(&middle.der).unwrap().public_key())).unwrap();
    assert_eq!(certificate.chain()[1..], *std::slice::from_ref(&middle.der));
    assert_eq!(certificate.intermediates(), certificate.chain());
    assert_eq!(certificate.anchor(), root.der);
    assert_eq!(certificate.authorities().len(), 3, "it, the one above, and the root");
    assert_eq!(certificate.not_after_seconds(), NOW + DAY);
    let (longer, _) = Authority::under(&upstream, &domain(), NOW, 30 * DAY).unwrap();
    assert_eq!(longer.certificate().not_after_seconds(), NOW + 2 * DAY, "no later than what vouches for it");
    assert!(Authority::under(&upstream, &domain(), NOW + 2 * DAY - 30, DAY).is_err(), "it would end at once");
    assert!(own.iter_extensions().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(id) if id.key_identifier.is_some())
    }));
}

#[test]
fn what_cannot_vouch_for_an_authority_is_refused() {
    let root = Above::root("root", None);
    let middle = root.signs("middle", None, NOW + DAY);
    let key = middle.key();
    let chain = |ders: &[&Above]| ders.iter().map(|above| above.der.clone()).collect::<Vec<_>>();
    assert!(Upstream::new(chain(&[&middle, &root]), &key).is_ok());

    let stranger = Above::root("root", None);
    let cramped = root.signs("cramped", Some(0), NOW + DAY);
    let cramped_root = Above::root("cramped root", Some(1));
    let below_cramped = cramped_root.signs("below", None, NOW + DAY);
    let leaf = root.signs_leaf("leaf");
    for (name, chain, key) in [
        ("nothing", vec![], key.clone()),
        ("another's key", chain(&[&middle, &root]), root.key()),
        ("no key", chain(&[&middle, &root]), b"key".to_vec()),
        ("no root", chain(&[&middle]), key.clone()),
        ("another root of the same name", chain(&[&middle, &stranger]), key.clone()),
        ("the wrong way round", chain(&[&root, &middle]), root.key()),
        ("no room for another below it", chain(&[&cramped, &root]), cramped.key()),
        ("no room for two below it", chain(&[&below_cramped, &cramped_root]), below_cramped.key()),
        ("a leaf", chain(&[&leaf, &root]), leaf.key()),
        ("no certificate", vec![b"certificate".to_vec(), root.der.clone()], key.clone()),
        ("trailing bytes", vec![[middle.der.clone(), vec![0]].concat(), root.der.clone()], key.clone()),
        ("a long way up", vec![root.der.clone(); 8], root.key()),
    ] {
        assert!(Upstream::new(chain, &key).is_err(), "{name}");
    }
}

#[test]
fn an_authority_is_restored_with_its_own_key_alone() {
    let (authority, pkcs8) = Authority::self_signed(&domain(), NOW, DAY).unwrap();
    let (_, other) = Authority::self_signed(&domain(), NOW, DAY).unwrap();
    let certificate = authority.certificate();
    let read = |domain: &str, chain: Vec<Vec<u8>>| {
        let domain = TrustDomain::new(domain).unwrap();
        AuthorityCertificate::read(chain, certificate.anchor().to_vec(), &domain)
    };
    let again = read("example.org", certificate.chain().to_vec()).unwrap();
    assert_eq!(&again, certificate);
    assert!(Authority::restore(again.clone(), pkcs8.expose()).is_ok());
    assert!(Authority::restore(again, other.expose()).is_err());
    assert!(read("example.com", certificate.chain().to_vec()).is_err(), "another trust domain's");
    assert!(read("example.org", vec![]).is_err());
    let above = Above::root("no SPIFFE ID", None).der;
    assert!(AuthorityCertificate::read(vec![above.clone()], above, &domain()).is_err());
    assert!(!format!("{authority:?}").contains("pkcs8"));
}

#[test]
fn a_certificate_with_a_path_is_no_authoritys() {
    let key = KeyPair::generate().unwrap();
    let mut parameters = above_parameters("path", None, NOW + DAY);
    parameters.subject_alt_names = vec![uri("spiffe://example.org/workload").unwrap()];
    let der = parameters.self_signed(&key).unwrap().der().to_vec();
    let refused = AuthorityCertificate::read(vec![der.clone()], der, &domain()).unwrap_err();
    assert_eq!(refused.to_string(), "its SPIFFE ID has a path: it is no authority's");
}

/// X509-SVID §4, field by field.
fn check_authority(own: &X509Certificate<'_>, path_length: u32) {
    assert_eq!(own.version().0, 2, "v3");
    assert!(own.raw_serial().len() >= 16 && own.raw_serial()[0] < 0x80, "positive and random");
    let constraints = own.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(path_length));
    let usage = own.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert_eq!(usage.value.flags.count_ones(), 2);
    assert!(own.extended_key_usage().unwrap().is_none());
    assert_eq!(own.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    assert_eq!(own.subject().iter_organization().count(), 1);
    assert_eq!(own.subject().iter_common_name().count(), 0);
    assert!(own.iter_extensions().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_))
    }));
}

/// A certification authority of somebody else.
struct Above {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Above {
    fn root(name: &str, path_length: Option<u8>) -> Self {
        let (key, parameters) =
            (KeyPair::generate().unwrap(), above_parameters(name, path_length, NOW + 9 * DAY));
        let der = parameters.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(parameters, key) }
    }

    fn signs(&self, name: &str, path_length: Option<u8>, not_after: u64) -> Self {
        self.signs_with(above_parameters(name, path_length, not_after))
    }

    fn signs_leaf(&self, name: &str) -> Self {
        let mut parameters = above_parameters(name, None, NOW + DAY);
        parameters.is_ca = IsCa::ExplicitNoCa;
        self.signs_with(parameters)
    }

    fn signs_with(&self, parameters: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = parameters.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(parameters, key) }
    }

    fn key(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }
}

fn above_parameters(name: &str, path_length: Option<u8>, not_after: u64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters, (NOW - DAY, not_after)).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca =
        IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

mod lives {
    use proptest::prelude::*;

    use super::*;

    /// Time goes by in steps of any length, and commands come in any order. What holds all the time: one authority of
    /// each kind signs; what was signed and has not expired, is trusted, unless its authority was tainted and then
    /// revoked; the number of the bundle grows with each change.
    fn live_through(ttl: u64, steps: &[(u64, u8)]) -> Result<(), TestCaseError> {
        let mut now = NOW;
        let mut register = Register::empty(domain());
        let mut signed: Vec<(Kind, String, u64)> = Vec::new();
        let mut revoked = std::collections::HashSet::new();
        for &(step, command) in steps {
            let before = register.clone();
            register.follow_time(now, |kind| make(kind, now, ttl)).unwrap();
            let _ = match command {
                0 => register.prepare(Kind::X509, (now, Some(now)), || {
                    make(Kind::X509, now, ttl).map_err(|_| NotNow::Unknown)
                }),
                1 => register.activate(Kind::X509, now, false),
                2 => match register.members().iter().find(|member| member.life.stage == Stage::Old) {
                    Some(old) => register.taint(&old.id.clone(), now),
                    None => Ok(()),
                },
                3 => match register.members().iter().find(|member| member.life.stage == Stage::Tainted) {
                    Some(tainted) => {
                        let id = tainted.id.clone();
                        revoked.insert(id.clone());
                        register.revoke(&id, now)
                    }
                    None => Ok(()),
                },
                _ => Ok(()),
            };
            let ids = |register: &Register| {
                register.members().iter().map(|member| (member.id.clone(), member.life)).collect::<Vec<_>>()
            };
            prop_assert_eq!(ids(&before) != ids(&register), register.sequence() > before.sequence());
            prop_assert!(!register.is_due(now), "everything due was done");
            for kind in [Kind::X509, Kind::Jwt] {
                let active = register.active(kind).expect("one signs");
                prop_assert!(active.life.not_after_seconds > now, "and what it signs is worth something");
                signed.push((kind, active.id.clone(), (now + 3600).min(active.life.not_after_seconds)));
            }
            for (_, id, until) in signed.iter().filter(|(_, id, until)| *until > now && !revoked.contains(id))
            {
                prop_assert!(
                    register.members().iter().any(|member| member.id == *id),
                    "{id} is in use until {until}, and gone at {now}"
                );
            }
            now += step;
        }
        Ok(())
    }

    fn make(kind: Kind, now: u64, ttl: u64) -> Result<Member, AuthorityError> {
        let made = match kind {
            Kind::X509 => Made::x509(&domain(), None, now, ttl),
            Kind::Jwt => Made::jwt(now, ttl),
        };
        made.map(|made| made.member)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_comes_what_is_in_use_is_trusted(
            ttl in 600_u64..200_000,
            steps in proptest::collection::vec((prop_oneof![0_u64..60, 0_u64..20_000, 0_u64..400_000], 0_u8..12), 1..60),
        ) {
            live_through(ttl, &steps)?;
        }
    }

    #[test]
    fn one_is_prepared_at_half_of_a_life_takes_over_at_five_sixths_and_the_old_one_goes_with_its_end() {
        let mut register = Register::empty(domain());
        let mut seen = Vec::new();
        for minute in 0..=24 * 60 {
            let now = NOW + minute * 60;
            register.follow_time(now, |kind| make(kind, now, DAY)).unwrap();
            let stages: Vec<Stage> = register
                .members()
                .iter()
                .filter(|member| member.kind() == Kind::X509)
                .map(|member| member.life.stage)
                .collect();
            if seen.last().is_none_or(|(_, last)| *last != stages) {
                seen.push((minute, stages));
            }
        }
        let expected = [
            (0, vec![Stage::Active]),
            (12 * 60, vec![Stage::Active, Stage::Prepared]),
            (20 * 60, vec![Stage::Old, Stage::Active]),
            (24 * 60, vec![Stage::Active, Stage::Prepared]),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_is_done_out_of_turn() {
        let mut register = Register::empty(domain());
        register.follow_time(NOW, |kind| make(kind, NOW, DAY)).unwrap();
        let first = register.active(Kind::X509).unwrap().id.clone();
        let prepare = |register: &mut Register, now| {
            register
                .prepare(Kind::X509, (now, None), || make(Kind::X509, now, DAY).map_err(|_| NotNow::Unknown))
        };
        assert_eq!(register.activate(Kind::X509, NOW, true), Err(NotNow::NonePrepared));
        assert_eq!(register.taint(&first, NOW), Err(NotNow::Signs));
        assert_eq!(register.revoke(&first, NOW), Err(NotNow::Signs));
        assert_eq!(register.taint("another", NOW), Err(NotNow::Unknown));
        prepare(&mut register, NOW).unwrap();
        assert_eq!(prepare(&mut register, NOW), Err(NotNow::AlreadyPrepared));
        let second = register.members().last().unwrap().id.clone();
        assert_eq!(register.taint(&second, NOW), Err(NotNow::SignedNothing));
        assert_eq!(register.activate(Kind::X509, NOW + 599, false), Err(NotNow::NotKnownYet(599)));
        register.activate(Kind::X509, NOW + 600, false).unwrap();
        assert_eq!(register.active(Kind::X509).unwrap().id, second);
        assert_eq!(register.revoke(&first, NOW + 600), Err(NotNow::InUse));
        register.taint(&first, NOW + 600).unwrap();
        assert_eq!(register.taint(&first, NOW + 600), Err(NotNow::AlreadyTainted));
        register.revoke(&first, NOW + 600).unwrap();
        assert_eq!(register.revoke(&first, NOW + 600), Err(NotNow::Unknown));
        assert!(register.members().iter().all(|member| member.id != first));
    }

    #[test]
    fn a_broker_that_was_away_for_days_signs_with_a_new_authority_at_once() {
        let mut register = Register::empty(domain());
        register.follow_time(NOW, |kind| make(kind, NOW, DAY)).unwrap();
        let first = register.active(Kind::X509).unwrap().id.clone();
        let later = NOW + 3 * DAY;
        register.follow_time(later, |kind| make(kind, later, DAY)).unwrap();
        let active = register.active(Kind::X509).unwrap();
        assert_ne!(active.id, first);
        assert_eq!(active.life.not_after_seconds, later + DAY);
    }

    #[test]
    fn a_register_with_two_that_sign_is_none() {
        let members = || {
            let mut member = make(Kind::X509, NOW, DAY).unwrap();
            member.life.stage = Stage::Active;
            member
        };
        let one = members();
        assert!(Register::restore(domain(), 1, vec![one.clone()]).is_ok());
        assert!(Register::restore(domain(), 1, vec![one.clone(), members()]).is_err());
        let mut twice = one.clone();
        twice.life.stage = Stage::Old;
        assert!(Register::restore(domain(), 1, vec![one, twice]).is_err());
    }
}
