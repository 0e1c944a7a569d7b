//! H-15: clients that show a certificate or an SVID that is not theirs, not good, or not alone. Each case begins with
//! what is good and differs in one thing.

use crate::cases;
use deputize_conformance::{
    certified::{Certified, SVID, VOUCHED},
    exchange::{Exchange, Lab},
    forge::{Key, now},
    trust::{Authority, Certificate},
    wire::Response,
    workload_server::{authority_of, leaf, self_signed},
    world::token_of,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use serde_json::{Value, json};

cases![certificates:
    two_uri_sans, for_servers_alone, out_of_its_time, of_another_trust_domain, of_an_authority, of_nobody,
    another_clients_id, vouched_for_wrongly, another_of_its_own, certificate_and_assertion, certificate_and_secret,
    forwarded_beside_another, jwt_svid_audience, jwt_svid_times, jwt_svid_of_another, kinds_confused,
    bound_to_another_certificate,
];

const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

fn certified(lab: &Lab) -> &Certified {
    lab.world.certified.as_ref().unwrap()
}

/// What an honest client that shows a certificate asks: without an assertion, without a proof.
fn asked_by(lab: &Lab, client: &str) -> Exchange {
    let mut exchange = lab.template("desk", &lab.world.user_token("alice"));
    exchange.set("client_id", client).remove("client_assertion").remove("client_assertion_type");
    exchange
}

async fn shows(lab: &Lab, certificate: &Certificate, exchange: &Exchange) -> Response {
    lab.send_showing(certificate, exchange).await
}

/// The answers to X.509-SVIDs with something changed; one that is as it should be is taken.
async fn svids(lab: &Lab, changed: Vec<Certificate>) -> Vec<Response> {
    let asked = asked_by(lab, "svid");
    token_of(&shows(lab, &certified(lab).svid(|_| ()), &asked).await);
    let mut answers = Vec::new();
    for certificate in changed {
        answers.push(shows(lab, &certificate, &asked).await);
        let mut nameless = asked_by(lab, "svid");
        nameless.remove("client_id");
        answers.push(shows(lab, &certificate, &nameless).await);
    }
    answers
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn at(params: &mut CertificateParams, begin: i64, end: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |moment: i64| std::time::Duration::from_secs(moment.try_into().unwrap());
    params.not_before = epoch + seconds(now() + begin);
    params.not_after = epoch + seconds(now() + end);
}

async fn two_uri_sans(lab: &Lab) -> Vec<Response> {
    let with = |name: &str| certified(lab).svid(|svid| svid.subject_alt_names.push(uri(name)));
    svids(lab, vec![with("spiffe://partner.test/other"), with(SVID), with("https://partner.test/")]).await
}

async fn for_servers_alone(lab: &Lab) -> Vec<Response> {
    let usage = |usage| certified(lab).svid(|svid| svid.extended_key_usages = vec![usage]);
    svids(lab, vec![usage(ExtendedKeyUsagePurpose::ServerAuth), usage(ExtendedKeyUsagePurpose::CodeSigning)])
        .await
}

async fn out_of_its_time(lab: &Lab) -> Vec<Response> {
    let expired = certified(lab).svid(|svid| at(svid, -3600, -2));
    svids(lab, vec![expired, certified(lab).svid(|svid| at(svid, 3600, 7200))]).await
}

async fn of_another_trust_domain(lab: &Lab) -> Vec<Response> {
    let stranger = self_signed(authority_of("elsewhere.test"));
    let pretender = self_signed(authority_of("partner.test"));
    svids(
        lab,
        vec![
            Certificate::signed(&leaf("spiffe://elsewhere.test/agent"), &stranger),
            Certificate::signed(&leaf(SVID), &stranger),
            Certificate::signed(&leaf(SVID), &pretender),
            // The partner's authority vouches for nobody of ours.
            Certificate::signed(&leaf("spiffe://example.org/agent"), &certified(lab).partner),
        ],
    )
    .await
}

async fn of_an_authority(lab: &Lab) -> Vec<Response> {
    let ca = certified(lab).svid(|svid| svid.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let signs = certified(lab).svid(|svid| svid.key_usages.push(KeyUsagePurpose::KeyCertSign));
    svids(lab, vec![ca, signs]).await
}

async fn of_nobody(lab: &Lab) -> Vec<Response> {
    let id = |id: &str| certified(lab).svid(|svid| svid.subject_alt_names = vec![uri(id)]);
    svids(
        lab,
        vec![
            id("spiffe://partner.test/other"),
            id("spiffe://partner.test"),
            id("spiffe://partner.test/agent/"),
        ],
    )
    .await
}

async fn another_clients_id(lab: &Lab) -> Vec<Response> {
    let certified = certified(lab);
    let svid = certified.svid(|_| ());
    let mut answers = Vec::new();
    for client in ["desk", "vouched", "own", "nobody", "retired"] {
        answers.push(shows(lab, &svid, &asked_by(lab, client)).await);
    }
    for (certificate, client) in [
        (&certified.vouched, "svid"),
        (&certified.vouched, "own"),
        (&certified.own, "vouched"),
        (&certified.own, "desk"),
    ] {
        answers.push(shows(lab, certificate, &asked_by(lab, client)).await);
    }
    answers
}

async fn vouched_for_wrongly(lab: &Lab) -> Vec<Response> {
    let (certified, asked) = (certified(lab), asked_by(lab, "vouched"));
    token_of(&shows(lab, &certified.vouched, &asked).await);
    let mut answers = Vec::new();
    for wrong in [
        Authority::new().certify_client(VOUCHED),
        certified.vouching.certify_client("another.partner.test"),
        certified.vouching.certify(),
        Certificate::self_signed(VOUCHED),
    ] {
        answers.push(shows(lab, &wrong, &asked).await);
    }
    let mut nameless = asked;
    nameless.remove("client_id");
    answers.push(shows(lab, &certified.vouched, &nameless).await);
    answers
}

async fn another_of_its_own(lab: &Lab) -> Vec<Response> {
    let (certified, asked) = (certified(lab), asked_by(lab, "own"));
    token_of(&shows(lab, &certified.own, &asked).await);
    vec![
        shows(lab, &Certificate::self_signed("own"), &asked).await,
        lab.send(&proven(lab, asked).await).await,
    ]
}

/// The same with a proof.
async fn proven(lab: &Lab, mut exchange: Exchange) -> Exchange {
    exchange.prove(vec![Key::es256().proof(&lab.proof_claims(&lab.nonce().await))]);
    exchange
}

async fn certificate_and_assertion(lab: &Lab) -> Vec<Response> {
    let certified = certified(lab);
    let mut asked = asked_by(lab, "svid");
    let svid = certified.jwt_svid(&lab.world.base, &json!({}));
    asked.set("client_assertion", &svid).set("client_assertion_type", JWT_SPIFFE);
    token_of(&lab.send(&proven(lab, asked.clone()).await).await);
    vec![shows(lab, &certified.svid(|_| ()), &asked).await, shows(lab, &certified.own, &asked).await]
}

async fn certificate_and_secret(lab: &Lab) -> Vec<Response> {
    let mut asked = asked_by(lab, "own");
    asked.set("client_secret", "hunter2");
    vec![shows(lab, &certified(lab).own, &asked).await]
}

async fn forwarded_beside_another(lab: &Lab) -> Vec<Response> {
    let mut asked = asked_by(lab, "svid");
    asked.header("x-forwarded-client-cert", &format!("By=spiffe://example.org/broker;URI={SVID}"));
    let stranger = Certificate::self_signed("stranger");
    vec![shows(lab, &stranger, &asked).await, lab.send(&proven(lab, asked).await).await]
}

/// An exchange that this is the assertion of.
async fn asserted(lab: &Lab, assertion: &str, kind: &str) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.remove("client_id").set("client_assertion", assertion).set("client_assertion_type", kind);
    lab.send(&exchange).await
}

/// The answers to JWT-SVIDs with these claims changed; one that is as it should be is taken.
async fn jwt_svids(lab: &Lab, changes: &[Value]) -> Vec<Response> {
    let svid = |changes: &Value| certified(lab).jwt_svid(&lab.world.base, changes);
    for good in [json!({}), json!({ "aud": [lab.world.base] })] {
        token_of(&asserted(lab, &svid(&good), JWT_SPIFFE).await);
    }
    let mut answers = Vec::new();
    for change in changes {
        answers.push(asserted(lab, &svid(change), JWT_SPIFFE).await);
    }
    answers
}

async fn jwt_svid_audience(lab: &Lab) -> Vec<Response> {
    let base = &lab.world.base;
    let two = json!({ "aud": [base, "https://another.example"] });
    let (token, slash) = (json!({ "aud": format!("{base}/token") }), json!({ "aud": format!("{base}/") }));
    jwt_svids(lab, &[json!({ "aud": "https://another.example" }), two, token, slash, json!({ "aud": [] })])
        .await
}

async fn jwt_svid_times(lab: &Lab) -> Vec<Response> {
    let year = 365 * 86_400;
    let late = json!({ "exp": now() - 10, "iat": now() - 300 });
    let early = json!({ "nbf": now() + 60 });
    jwt_svids(lab, &[late, early, json!({ "exp": now() + 320 }), json!({ "exp": now() + 10 * year })]).await
}

async fn jwt_svid_of_another(lab: &Lab) -> Vec<Response> {
    let claims = json!({ "sub": SVID, "aud": lab.world.base, "iat": now(), "exp": now() + 60 });
    let mut answers = jwt_svids(
        lab,
        &[
            json!({ "sub": "spiffe://partner.test/other" }),
            json!({ "sub": "spiffe://elsewhere.test/agent" }),
            json!({ "sub": "spiffe://example.org/agent" }),
            json!({ "sub": "svid" }),
        ],
    )
    .await;
    answers.push(asserted(lab, &Key::es256().token("JWT", &claims), JWT_SPIFFE).await);
    let mut of_another = lab.honest(&Key::es256()).await;
    let svid = certified(lab).jwt_svid(&lab.world.base, &json!({}));
    of_another.set("client_assertion", &svid).set("client_assertion_type", JWT_SPIFFE);
    answers.push(lab.send(&of_another).await);
    answers
}

async fn kinds_confused(lab: &Lab) -> Vec<Response> {
    const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let (certified, base) = (certified(lab), &lab.world.base);
    let token = lab.token(&Key::es256()).await;
    let access = certified.jwt_key.token(
        "at+jwt",
        &json!({ "sub": SVID, "client_id": "svid", "aud": base, "iat": now(), "exp": now() + 60 }),
    );
    let dressed = certified.jwt_svid(base, &json!({ "iss": SVID, "jti": "j" }));
    let mut answers = Vec::new();
    for (assertion, kind) in [
        (&token, JWT_SPIFFE),
        (&lab.assertion("desk"), JWT_SPIFFE),
        (&access, JWT_SPIFFE),
        (&token, JWT_BEARER),
        (&certified.jwt_svid(base, &json!({})), JWT_BEARER),
        (&dressed, JWT_BEARER),
    ] {
        answers.push(asserted(lab, assertion, kind).await);
    }
    answers
}

async fn bound_to_another_certificate(lab: &Lab) -> Vec<Response> {
    let certified = certified(lab);
    let mut first = asked_by(lab, "svid");
    first.tool(deputize_conformance::world::CRM, "find_customer");
    let (holder, other) = (certified.svid(|_| ()), certified.svid(|_| ()));
    let token = token_of(&shows(lab, &holder, &first).await);
    let mut again = first;
    again.set("subject_token", &token);
    // RFC 8705 §3: the same client with another certificate; with a proof instead; and the one that it is bound to.
    let answers = vec![shows(lab, &other, &again).await, asserted_again(lab, &again).await];
    token_of(&shows(lab, &holder, &again).await);
    answers
}

async fn asserted_again(lab: &Lab, exchange: &Exchange) -> Response {
    let svid = certified(lab).jwt_svid(&lab.world.base, &json!({}));
    let mut exchange = exchange.clone();
    exchange.set("client_assertion", &svid).set("client_assertion_type", JWT_SPIFFE);
    lab.send(&proven(lab, exchange).await).await
}
