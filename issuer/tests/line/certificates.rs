//! Clients that prove themselves by an SVID or by the certificate of their TLS connection, and tokens bound to one.

use deputize_call::{
    claims::Confirmation,
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::{
    authenticate::{Caller, Possession, Presented, authenticate},
    authority::Kind,
    certificate::{ExpectedCertificate, ExpectedName, OwnCertificate, PresentedCertificate},
    client::{Client, ClientCertificates},
    error::IssueError,
    record::Kind as Recorded,
    svid::Bundle,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use spiffe::{SpiffeId, TrustDomain};
use std::{sync::Arc, time::Duration};

use crate::{
    spiffe::{SpiffeWorld, WEB, process, process_on},
    world::*,
};

const PARTNER: &str = "spiffe://partner.test/agent";

/// The world with clients of every way, and a trust domain whose keys are here.
struct Bench {
    world: SpiffeWorld,
    partner: SigningKey,
    /// Of `vouched`, of `own`, the next of `own`, and of nobody.
    vouched: PresentedCertificate,
    own: PresentedCertificate,
    next: PresentedCertificate,
    strange: PresentedCertificate,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (authority_der, issuer) = authority();
        let vouched = leaf("bot.example.org", Some(&issuer));
        let [own, next, strange] = ["own", "own", "strange"].map(|name| leaf(name, None));
        let expected = ExpectedCertificate::new(
            &[authority_der.into()],
            ExpectedName::Dns("bot.example.org".to_owned()),
        );
        let expected = ClientCertificates::Vouched(Arc::new(expected.unwrap()));
        let own_certificates = [&own, &next].map(|own| OwnCertificate::read(own.leaf()).unwrap());
        let own_certificates = ClientCertificates::Own(own_certificates.to_vec());
        let world = SpiffeWorld::with(|setup| {
            let by_svid = |id: &'static str| {
                move |client: &mut Client| {
                    client.keys = KeySet::default();
                    (client.spiffe_id, client.actor) =
                        (Some(SpiffeId::new(id).unwrap()), Some(id.to_owned()));
                }
            };
            setup.client("web", by_svid(WEB));
            setup.client("partner", by_svid(PARTNER));
            setup.client("vouched", |client| client.certificates = Some(expected));
            setup.client("own", |client| {
                client.certificates = Some(own_certificates);
                client.subject_audiences = vec![PLATFORM_AUDIENCE.to_owned(), "platform".to_owned()];
                client.may_call = vec![reach("*")];
            });
            change(setup);
        });
        let partner = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        world.door.foreign.replace(vec![Arc::new(Bundle {
            trust_domain: TrustDomain::new("partner.test").unwrap(),
            x509_authorities: Vec::new(),
            jwt_authorities: KeySet::new(vec![partner.public().clone()]),
            sequence: 1,
            refresh_hint_seconds: 300,
        })]);
        Self { world, partner, vouched, own, next, strange }
    }

    async fn authenticate(
        &self,
        presented: Presented<'_>,
        certificate: Option<&PresentedCertificate>,
    ) -> Result<Caller, IssueError> {
        let world = &self.world.world;
        authenticate(&world.desk, world.decision(), presented, Possession { proof: None, certificate }).await
    }

    /// The client `own`, by one of its certificates.
    async fn own(&self, certificate: &PresentedCertificate) -> Caller {
        let presented = Presented::Certificate { client_id: Some("own"), certificate };
        self.authenticate(presented, Some(certificate)).await.unwrap()
    }

    async fn by_svid(
        &self,
        assertion: &str,
        client_id: Option<&str>,
    ) -> Result<(String, &'static str), IssueError> {
        let presented = Presented::Svid { assertion, client_id };
        self.authenticate(presented, None).await.map(|caller| (caller.client().id.clone(), caller.method()))
    }

    async fn by_certificate(
        &self,
        certificate: &PresentedCertificate,
        client_id: Option<&str>,
    ) -> Result<(String, &'static str), IssueError> {
        let presented = Presented::Certificate { client_id, certificate };
        let caller = self.authenticate(presented, Some(certificate)).await?;
        let bound = Confirmation::X5tS256(certificate.thumbprint().to_owned());
        assert_eq!(caller.confirmation(), Some(&bound));
        Ok((caller.client().id.clone(), caller.method()))
    }

    /// A JWT-SVID of the partner's, with `changes`.
    fn of_partner(&self, changes: Value) -> String {
        let now = self.world.world.now();
        let mut claims = json!({ "sub": PARTNER, "aud": ISSUER, "iat": now, "exp": now + 300 });
        merge(&mut claims, changes);
        self.partner.sign("JWT", &claims).unwrap()
    }

    /// A JWT-SVID of ours, of a second later.
    async fn another_jwt(&self) -> String {
        self.world.world.clock.advance(Duration::from_secs(1));
        self.world.jwt(&process(), &[ISSUER]).await.unwrap().token.expose().clone()
    }

    /// An X.509-SVID of ours.
    async fn x509(&self) -> PresentedCertificate {
        let svid = self.world.x509(&process(), "web").await.unwrap();
        let chain: Vec<_> = svid.chain.into_iter().map(Into::into).collect();
        PresentedCertificate::proved(&chain).unwrap()
    }
}

fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let der = parameters.self_signed(&key).unwrap().der().to_vec();
    (der, Issuer::new(parameters, key))
}

fn leaf(name: &str, issuer: Option<&Issuer<'static, KeyPair>>) -> PresentedCertificate {
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => parameters.signed_by(&key, issuer),
        None => parameters.self_signed(&key),
    };
    PresentedCertificate::proved(&[certificate.unwrap().der().clone()]).unwrap()
}

fn subject(token: &str) -> deputize_issuer::verify_subject::PresentedSubject<'_> {
    deputize_issuer::verify_subject::PresentedSubject {
        token,
        kind: deputize_issuer::provider::SubjectTokenType::AccessToken,
        actor: None,
    }
}

fn refused(answer: Result<(String, &'static str), IssueError>) -> &'static str {
    match answer.expect_err("must be refused") {
        IssueError::ClientAuthentication(reason) => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_jwt_svid_proves_the_client_of_its_id_once_or_with_a_proof_for_as_long_as_it_is_good() {
    let bench = Bench::new();
    let world = &bench.world;
    let svid = world.jwt(&process(), &[ISSUER]).await.unwrap().token;
    for client_id in [None, Some("web"), None] {
        let proof = world.world.proof("web");
        let shown = Possession {
            proof: Some(deputize_issuer::authenticate::PresentedProof {
                header: &proof,
                htu: TOKEN_ENDPOINT,
            }),
            certificate: None,
        };
        let presented = Presented::Svid { assertion: svid.expose(), client_id };
        let caller = authenticate(&world.world.desk, world.world.decision(), presented, shown).await.unwrap();
        assert_eq!((caller.client().id.as_str(), caller.method()), ("web", "spiffe_jwt"));
        assert_eq!(caller.spent(), None);
    }
    // Without one nothing binds what is given: it is used up.
    assert_eq!(bench.by_svid(svid.expose(), None).await.unwrap(), ("web".to_owned(), "spiffe_jwt"));
    assert_eq!(refused(bench.by_svid(svid.expose(), None).await), "assertion_replayed");
    assert_eq!(bench.by_svid(&bench.of_partner(json!({})), None).await.unwrap().0, "partner");
    let listed = bench.of_partner(json!({ "aud": [ISSUER] }));
    assert_eq!(bench.by_svid(&listed, Some("partner")).await.unwrap().0, "partner");
    assert_eq!(refused(bench.by_svid(svid.expose(), Some("partner")).await), "svid_of_another_client");
    world.world.clock.advance(Duration::from_secs(306));
    assert_eq!(refused(bench.by_svid(svid.expose(), None).await), "svid_expired");
}

#[tokio::test]
async fn a_jwt_svid_that_is_not_for_us_alone_or_of_nobody_is_refused() {
    let bench = Bench::new();
    for (reason, changes) in [
        ("svid_audience", json!({ "aud": "https://elsewhere.example" })),
        ("svid_audience", json!({ "aud": TOKEN_ENDPOINT })),
        ("svid_audience", json!({ "aud": [ISSUER, "https://elsewhere.example"] })),
        ("svid_audience", json!({ "aud": [ISSUER, ISSUER] })),
        ("svid_too_long", json!({ "exp": NOW + 306 })),
        ("svid_expired", json!({ "exp": NOW - 5 })),
        ("svid_malformed", json!({ "exp": null })),
        ("svid_of_no_client", json!({ "sub": "spiffe://partner.test/other" })),
        ("svid_trust_domain", json!({ "sub": "spiffe://elsewhere.test/agent" })),
        ("svid_signature", json!({ "sub": WEB })),
        ("svid_identity", json!({ "sub": "partner" })),
    ] {
        let given = refused(bench.by_svid(&bench.of_partner(changes.clone()), None).await);
        assert_eq!(given, reason, "{changes}");
    }
    bench.by_svid(&bench.of_partner(json!({ "exp": NOW + 305 })), None).await.unwrap();
    let svid = bench.world.jwt(&process_on(crate::spiffe::NODE, &["unix:uid:1000"]), &["db"]).await.unwrap();
    assert_eq!(refused(bench.by_svid(svid.token.expose(), None).await), "svid_audience");
}

#[tokio::test]
async fn one_kind_of_assertion_is_never_taken_for_another() {
    let bench = Bench::new();
    let world = &bench.world.world;
    let plain = world.assertion("platform", json!({}));
    assert_eq!(refused(bench.by_svid(&plain, None).await), "svid_identity");
    let token = world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(refused(bench.by_svid(token.access_token.expose(), None).await), "svid_kind");
    let access =
        bench.partner.sign("at+jwt", &json!({ "sub": PARTNER, "aud": ISSUER, "exp": NOW + 60 })).unwrap();
    assert_eq!(refused(bench.by_svid(&access, None).await), "svid_kind");
    // As a plain assertion, with all that one of those needs.
    let dressed = json!({ "iss": PARTNER, "jti": "j" });
    for svid in [bench.of_partner(json!({})), bench.of_partner(dressed), token.access_token.expose().clone()]
    {
        let presented = Presented::Assertion { assertion: &svid, client_id: None };
        let refusal = bench.authenticate(presented, None).await.unwrap_err();
        assert!(matches!(refusal, IssueError::ClientAuthentication(_)), "{refusal}");
    }
}

#[tokio::test]
async fn an_x509_svid_proves_the_client_of_its_id() {
    let bench = Bench::new();
    let shown = bench.x509().await;
    for client_id in [None, Some("web"), None] {
        let known = bench.by_certificate(&shown, client_id).await.unwrap();
        assert_eq!(known, ("web".to_owned(), "spiffe_x509"));
    }
    assert_eq!(refused(bench.by_certificate(&shown, Some("partner")).await), "svid_of_another_client");
    assert_eq!(refused(bench.by_certificate(&shown, Some("platform")).await), "svid_of_another_client");
    assert_eq!(refused(bench.by_certificate(&shown, Some("nobody")).await), "svid_of_another_client");
    assert_eq!(refused(bench.by_certificate(&bench.strange, None).await), "svid_kind");
    let batch = process_on(crate::spiffe::NODE, &["unix:uid:1001", "unix:gid:1001"]);
    let batch = bench.world.x509(&batch, "batch").await.unwrap();
    let batch = PresentedCertificate::proved(&[batch.chain[0].clone().into()]).unwrap();
    assert_eq!(refused(bench.by_certificate(&batch, None).await), "svid_of_no_client");
    assert_eq!(refused(bench.by_certificate(&batch, Some("web")).await), "svid_of_no_client");
    bench.world.world.clock.advance(Duration::from_secs(3601));
    assert_eq!(
        refused(bench.by_certificate(&shown, None).await),
        "svid_expired",
        "on the same connection too"
    );
}

#[tokio::test]
async fn an_x509_svid_goes_with_the_authority_that_signed_it() {
    let mut bench = Bench::new();
    let shown = bench.x509().await;
    bench.by_certificate(&shown, None).await.unwrap();
    let old = bench.world.active(Kind::X509);
    bench.world.prepare(Kind::X509);
    bench.world.activate(Kind::X509);
    bench.by_certificate(&shown, None).await.expect("it is in the bundle still");
    bench.world.taint(&old);
    assert!(bench.world.door.authorities.ring().bundle.x509_authorities.len() > 1, "it is there still");
    assert_eq!(refused(bench.by_certificate(&shown, None).await), "svid_withdrawn");
    bench.world.revoke(&old);
    assert_eq!(refused(bench.by_certificate(&shown, None).await), "svid_signature");
    bench.by_certificate(&bench.x509().await, None).await.unwrap();
}

#[tokio::test]
async fn an_x509_svid_goes_with_its_authority_though_the_root_above_both_stays() {
    let mut bench = Bench::new();
    bench.world.put_under_a_root();
    let shown = bench.x509().await;
    bench.by_certificate(&shown, None).await.unwrap();
    let old = bench.world.active(Kind::X509);
    bench.world.prepare(Kind::X509);
    bench.world.activate(Kind::X509);
    let next = bench.x509().await;
    bench.by_certificate(&shown, None).await.unwrap();
    bench.world.taint(&old);
    assert_eq!(refused(bench.by_certificate(&shown, None).await), "svid_withdrawn");
    bench.world.revoke(&old);
    assert_eq!(
        refused(bench.by_certificate(&shown, None).await),
        "svid_withdrawn",
        "its root is trusted still"
    );
    bench.by_certificate(&next, None).await.unwrap();
}

#[tokio::test]
async fn a_jwt_svid_goes_with_the_key_that_signed_it() {
    let mut bench = Bench::new();
    let of_old = [bench.another_jwt().await, bench.another_jwt().await];
    let old = bench.world.active(Kind::Jwt);
    bench.world.prepare(Kind::Jwt);
    bench.world.activate(Kind::Jwt);
    bench.by_svid(&of_old[0], None).await.expect("its key is in the bundle still");
    bench.world.taint(&old);
    assert_eq!(refused(bench.by_svid(&of_old[1], None).await), "svid_withdrawn");
    bench.by_svid(&bench.another_jwt().await, None).await.unwrap();
}

#[tokio::test]
async fn a_certificate_proves_the_client_that_is_configured_for_it() {
    let bench = Bench::new();
    let (vouched, own) = (&bench.vouched, &bench.own);
    let known = bench.by_certificate(vouched, Some("vouched")).await.unwrap();
    assert_eq!(known, ("vouched".to_owned(), "tls_client_auth"));
    let known = bench.by_certificate(own, Some("own")).await.unwrap();
    assert_eq!(known, ("own".to_owned(), "self_signed_tls_client_auth"));
    for (certificate, client_id) in [
        (own, Some("vouched")),
        (vouched, Some("own")),
        (&bench.strange, Some("vouched")),
        (&bench.strange, Some("own")),
        (vouched, Some("web")),
        (vouched, Some("platform")),
        (vouched, Some("nobody")),
        // RFC 8705 §2: the id comes along.
        (vouched, None),
        (own, None),
    ] {
        refused(bench.by_certificate(certificate, client_id).await);
    }
}

#[tokio::test]
async fn two_methods_at_once_are_refused_and_a_certificate_of_others_only_binds() {
    let bench = Bench::new();
    let world = &bench.world.world;
    for client in ["own", "vouched"] {
        let assertion = world.assertion(client, json!({}));
        let presented = Presented::Assertion { assertion: &assertion, client_id: None };
        let refusal = bench.authenticate(presented, Some(&bench.own)).await.unwrap_err();
        assert_eq!(refusal, IssueError::ClientAuthentication("two_authentication_methods"), "{client}");
    }
    let svid = bench.world.jwt(&process(), &[ISSUER]).await.unwrap().token;
    let presented = Presented::Svid { assertion: svid.expose(), client_id: None };
    let refusal = bench.authenticate(presented, Some(&bench.x509().await)).await.unwrap_err();
    assert_eq!(refusal, IssueError::ClientAuthentication("two_authentication_methods"));
    let assertion = world.assertion("platform", json!({}));
    let presented = Presented::Assertion { assertion: &assertion, client_id: None };
    let caller = bench.authenticate(presented, Some(&bench.strange)).await.unwrap();
    assert_eq!(caller.method(), "private_key_jwt");
    assert_eq!(caller.confirmation(), None);
}

#[tokio::test]
async fn a_certificate_beside_an_assertion_stands_in_for_no_proof() {
    let bench = Bench::new();
    let world = &bench.world.world;
    let assertion = world.assertion("platform", json!({}));
    let presented = Presented::Assertion { assertion: &assertion, client_id: None };
    let caller = bench.authenticate(presented, Some(&bench.strange)).await.unwrap();
    let alice = world.alice(json!({}));
    let refusal = world.exchange_as(&caller, subject(&alice), &read_contact()).await.unwrap_err();
    assert_eq!(refusal, IssueError::Proof("proof_missing"));
}

#[tokio::test]
async fn policy_and_the_log_know_what_a_token_is_bound_to_and_how_its_client_proved_itself() {
    let bench = Bench::with(|setup| {
        setup.policies += r#"
            @id("no-certificates") forbid (principal, action == Action::"tools/call", resource)
            when { context.binding == "mtls" && resource.tier_rank >= 1 };"#;
    });
    let world = &bench.world.world;
    let alice = world.alice(json!({}));
    let caller = bench.own(&bench.own).await;
    world.exchange_as(&caller, subject(&alice), &read_one_contact()).await.unwrap();
    let caller = bench.own(&bench.own).await;
    let refusal = world.exchange_as(&caller, subject(&alice), &update_contact()).await.unwrap_err();
    assert!(matches!(refusal, IssueError::Denied(_)), "{refusal}");
    world.for_alice(&update_contact()).await.unwrap();
    let told = world.audit.entries().into_iter().filter(|entry| entry.method.is_some());
    let told: Vec<_> = told.map(|entry| (entry.kind, entry.method.unwrap(), entry.bound_by)).collect();
    let own = "self_signed_tls_client_auth".to_owned();
    assert_eq!(
        told,
        [
            (Recorded::Intent, own.clone(), Some("x5t#S256".to_owned())),
            (Recorded::Denial, own, None),
            (Recorded::Intent, "private_key_jwt".to_owned(), Some("jkt".to_owned())),
        ]
    );
}

#[tokio::test]
async fn a_token_is_bound_to_the_certificate_and_its_holder_has_to_show_that_one() {
    let bench = Bench::new();
    let world = &bench.world.world;
    let asked = read_contact();
    let alice = world.alice(json!({}));
    let token = world.exchange_as(&bench.own(&bench.own).await, subject(&alice), &asked).await.unwrap();
    let bound = Confirmation::X5tS256(bench.own.thumbprint().to_owned());
    assert_eq!(token.claims.cnf, bound);
    let token = token.access_token.expose().clone();
    let refusal =
        world.exchange_as(&bench.own(&bench.next).await, subject(&token), &asked).await.unwrap_err();
    assert_eq!(refusal.reason(), "subject_token_of_another_party", "RFC 8705 §3: another certificate");
    let refusal = world.exchange("platform", &token, &asked).await.unwrap_err();
    assert_eq!(refusal.reason(), "subject_token_of_another_party", "a proof alone");
    let narrowed = world.exchange_as(&bench.own(&bench.own).await, subject(&token), &asked).await.unwrap();
    assert_eq!(narrowed.claims.cnf, bound);
    // A proof beside it: that is what the next token is bound to.
    let proof = world.proof("platform");
    let shown = Possession {
        proof: Some(deputize_issuer::authenticate::PresentedProof { header: &proof, htu: TOKEN_ENDPOINT }),
        certificate: Some(&bench.own),
    };
    let presented = Presented::Certificate { client_id: Some("own"), certificate: &bench.own };
    let caller = authenticate(&world.desk, world.decision(), presented, shown).await.unwrap();
    let narrowed = world.exchange_as(&caller, subject(&token), &asked).await.unwrap();
    let jkt = Confirmation::Jkt(world.key("platform").public().thumbprint().to_owned());
    assert_eq!(narrowed.claims.cnf, jkt);
}

#[tokio::test]
async fn a_users_token_that_is_bound_to_a_certificate_is_good_with_that_alone() {
    let bench = Bench::new();
    let world = &bench.world.world;
    let alice = world.alice(json!({ "cnf": { "x5t#S256": bench.own.thumbprint() } }));
    for (certificate, is_good) in [(Some(&bench.own), true), (Some(&bench.strange), false), (None, false)] {
        let assertion = world.assertion("platform", json!({}));
        let presented = Presented::Assertion { assertion: &assertion, client_id: None };
        let caller = bench.authenticate(presented, certificate).await.unwrap();
        assert_eq!(world.subject(&caller, &alice).await.is_ok(), is_good, "{certificate:?}");
    }
}
