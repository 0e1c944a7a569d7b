//! H-20 to H-22: proofs of possession that prove nothing, and nonces that are nobody's.

use crate::cases;
use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{self, Key, encode, now, unique},
    wire::Response,
    world::{LEDGER, World, token_of},
};
use serde_json::{Value, json};

cases![proofs:
    no_proof, two_proofs, two_proofs_in_one_header, wrong_typ, alg_none, alg_hmac, private_key_inside, symmetric_key,
    weak_rsa_key, key_off_its_curve, no_key_inside, signed_by_another_key, method_wrong, url_of_another_host,
    url_of_another_port, url_of_another_path, url_in_other_case, url_with_dots, url_with_encoded_slash,
    host_header_spoofed,
    issued_a_minute_ago, issued_a_minute_ahead, jti_missing, jti_of_10_kib, replayed, thousand_racers,
    replayed_after_restart, assertion_replayed_after_restart, jti_of_another_key_is_free,
    nonce_missing, nonce_made_up, nonce_of_another_process, nonce_from_before_the_restart, nonce_not_text,
    bearer_scheme_at_introspection,
];

/// An honest exchange with this value for `DPoP`.
async fn proof(lab: &Lab, proof: &str) -> Vec<Response> {
    changed(lab, |exchange| exchange.prove(vec![proof.to_owned()])).await
}

async fn changed(lab: &Lab, change: impl FnOnce(&mut Exchange) -> &mut Exchange) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    change(&mut exchange);
    vec![lab.send(&exchange).await]
}

/// A good proof but for these claims; null takes one out.
async fn with_claims(lab: &Lab, members: Value) -> Vec<Response> {
    let claims = claims(lab, members).await;
    proof(lab, &Key::es256().proof(&claims)).await
}

async fn claims(lab: &Lab, members: Value) -> Value {
    let mut claims = lab.proof_claims(&lab.nonce().await);
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A good proof but for these members of its header.
async fn with_header(lab: &Lab, members: Value) -> Vec<Response> {
    let key = Key::es256();
    let mut header = json!({ "alg": "ES256", "jwk": key.bare_jwk(), "typ": "dpop+jwt" });
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => header.as_object_mut().unwrap().remove(name),
            value => header.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    let token = key.token_with(&header, &claims(lab, json!({})).await);
    proof(lab, &token).await
}

async fn no_proof(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.prove(vec![])).await
}

async fn two_proofs(lab: &Lab) -> Vec<Response> {
    let second = Key::es256().proof(&claims(lab, json!({})).await);
    changed(lab, |exchange| {
        exchange.proofs.push(second);
        exchange
    })
    .await
}

async fn two_proofs_in_one_header(lab: &Lab) -> Vec<Response> {
    let second = Key::es256().proof(&claims(lab, json!({})).await);
    changed(lab, |exchange| exchange.prove(vec![format!("{}, {second}", exchange.proofs[0])])).await
}

async fn wrong_typ(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for typ in [json!("JWT"), json!("at+jwt"), json!(null), json!(7)] {
        answers.extend(with_header(lab, json!({ "typ": typ })).await);
    }
    answers
}

async fn alg_none(lab: &Lab) -> Vec<Response> {
    let header = json!({ "alg": "none", "jwk": Key::es256().bare_jwk(), "typ": "dpop+jwt" });
    let unsigned = forge::token_with_signature(&header, &claims(lab, json!({})).await, b"");
    let mut answers = proof(lab, &unsigned).await;
    answers.extend(with_header(lab, json!({ "alg": "none" })).await);
    answers
}

async fn alg_hmac(lab: &Lab) -> Vec<Response> {
    let key = Key::es256();
    let header = json!({ "alg": "HS256", "jwk": key.bare_jwk(), "typ": "dpop+jwt" });
    proof(lab, &forge::hmac_token(&header, &claims(lab, json!({})).await, &key.public_der())).await
}

async fn private_key_inside(lab: &Lab) -> Vec<Response> {
    let key = Key::es256();
    let mut jwk = key.bare_jwk();
    jwk["d"] = key.private_jwk()["d"].clone();
    let header = json!({ "alg": "ES256", "jwk": jwk, "typ": "dpop+jwt" });
    proof(lab, &key.token_with(&header, &claims(lab, json!({})).await)).await
}

async fn symmetric_key(lab: &Lab) -> Vec<Response> {
    let header =
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": encode(b"secret") }, "typ": "dpop+jwt" });
    let mut answers = proof(lab, &forge::hmac_token(&header, &claims(lab, json!({})).await, b"secret")).await;
    answers.extend(with_header(lab, json!({ "jwk": { "kty": "oct", "k": encode(b"secret") } })).await);
    answers
}

async fn weak_rsa_key(lab: &Lab) -> Vec<Response> {
    // The key is refused for its size, before the signature could be looked at.
    let mut answers = Vec::new();
    for bytes in [64, 128, 255] {
        let mut modulus = vec![0xc3; bytes];
        modulus[bytes - 1] = 1;
        let jwk = json!({ "kty": "RSA", "n": encode(&modulus), "e": "AQAB" });
        let header = json!({ "alg": "RS256", "jwk": jwk, "typ": "dpop+jwt" });
        let token = forge::token_with_signature(&header, &claims(lab, json!({})).await, &vec![1; bytes]);
        answers.extend(proof(lab, &token).await);
    }
    answers
}

async fn key_off_its_curve(lab: &Lab) -> Vec<Response> {
    with_header(
        lab,
        json!({ "jwk": { "kty": "EC", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32]) } }),
    )
    .await
}

async fn no_key_inside(lab: &Lab) -> Vec<Response> {
    let mut answers = with_header(lab, json!({ "jwk": null })).await;
    answers.extend(with_header(lab, json!({ "jwk": null, "kid": Key::es256().kid })).await);
    answers
}

async fn signed_by_another_key(lab: &Lab) -> Vec<Response> {
    with_header(lab, json!({ "jwk": Key::es256().bare_jwk() })).await
}

async fn method_wrong(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for method in [json!("GET"), json!("post"), json!(null)] {
        answers.extend(with_claims(lab, json!({ "htm": method })).await);
    }
    answers
}

async fn url_of_another_host(lab: &Lab) -> Vec<Response> {
    let port = lab.world.base.rsplit(':').next().unwrap().to_owned();
    let mut answers = with_claims(lab, json!({ "htu": format!("https://evil.example:{port}/token") })).await;
    answers.extend(
        with_claims(lab, json!({ "htu": format!("https://localhost.evil.example:{port}/token") })).await,
    );
    answers.extend(with_claims(lab, json!({ "htu": format!("http://localhost:{port}/token") })).await);
    answers
}

async fn url_of_another_port(lab: &Lab) -> Vec<Response> {
    let mut answers = with_claims(lab, json!({ "htu": "https://localhost:1/token" })).await;
    answers.extend(with_claims(lab, json!({ "htu": "https://localhost/token" })).await);
    answers
}

async fn url(lab: &Lab, path: &str) -> Vec<Response> {
    with_claims(lab, json!({ "htu": format!("{}{path}", lab.world.base) })).await
}

async fn url_of_another_path(lab: &Lab) -> Vec<Response> {
    let mut answers = url(lab, "/introspect").await;
    answers.extend(url(lab, "/token/").await);
    answers.extend(url(lab, "").await);
    answers
}

async fn url_in_other_case(lab: &Lab) -> Vec<Response> {
    url(lab, "/Token").await
}

async fn url_with_dots(lab: &Lab) -> Vec<Response> {
    url(lab, "/x/../token").await
}

async fn url_with_encoded_slash(lab: &Lab) -> Vec<Response> {
    let mut answers = url(lab, "/%2Ftoken").await;
    answers.extend(url(lab, "%2Ftoken").await);
    answers.extend(url(lab, "/%74oken").await);
    answers
}

async fn host_header_spoofed(lab: &Lab) -> Vec<Response> {
    let spoofed = claims(lab, json!({ "htu": "https://evil.example/token" })).await;
    changed(lab, |exchange| {
        exchange.proofs = vec![Key::es256().proof(&spoofed)];
        exchange
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "host=evil.example;proto=https");
        exchange
    })
    .await
}

async fn issued_a_minute_ago(lab: &Lab) -> Vec<Response> {
    // Where exactly the window ends is the unit tests' matter: here each side is a little inside and well outside.
    let mut within = lab.honest(&Key::es256()).await;
    within.proofs = vec![Key::es256().proof(&claims(lab, json!({ "iat": now() - 2 })).await)];
    token_of(&lab.send(&within).await);
    let mut answers = with_claims(lab, json!({ "iat": now() - 61 })).await;
    answers.extend(with_claims(lab, json!({ "iat": 1 })).await);
    answers.extend(with_claims(lab, json!({ "iat": null })).await);
    answers
}

async fn issued_a_minute_ahead(lab: &Lab) -> Vec<Response> {
    with_claims(lab, json!({ "iat": now() + 61 })).await
}

async fn jti_missing(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for jti in [json!(null), json!(""), json!(7)] {
        answers.extend(with_claims(lab, json!({ "jti": jti })).await);
    }
    answers
}

async fn jti_of_10_kib(lab: &Lab) -> Vec<Response> {
    with_claims(lab, json!({ "jti": "j".repeat(10 * 1024) })).await
}

async fn replayed(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    token_of(&lab.send(&exchange).await);
    exchange.set("client_assertion", &lab.assertion("desk"));
    vec![lab.send(&exchange).await]
}

async fn thousand_racers(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    let mut connections = Vec::new();
    for _ in 0..RACING_CONNECTIONS {
        connections.push(lab.world.door.connect().await.unwrap());
    }
    let mut requests: Vec<_> =
        std::iter::repeat_with(|| exchange.set("client_assertion", &lab.assertion("desk")).clone())
            .take(RACERS)
            .collect();
    let races = connections.iter_mut().map(|connection| {
        let mine = requests.split_off(requests.len() - RACERS / RACING_CONNECTIONS);
        async move {
            let mut answers = Vec::new();
            for request in mine {
                answers.push(lab.send_on(connection, &request).await.unwrap());
            }
            answers
        }
    });
    let answers: Vec<_> = join(races).await.into_iter().flatten().collect();
    let (winners, losers): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(winners.len(), 1, "one of {RACERS} racers wins");
    losers
}

const RACERS: usize = 1000;
const RACING_CONNECTIONS: usize = 50;

/// Polls all futures together until all are done.
async fn join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

/// A second broker, its honest exchange, and the same broker after `kill -9` and a new start.
async fn restarted() -> (Lab, Exchange) {
    let mut lab = Lab::start(World::new().await).await;
    let exchange = lab.honest(&Key::es256()).await;
    token_of(&lab.send(&exchange).await);
    lab.started.process.kill();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    (lab, exchange)
}

async fn replayed_after_restart(_: &Lab) -> Vec<Response> {
    let (lab, mut exchange) = restarted().await;
    exchange.set("client_assertion", &lab.assertion("desk"));
    vec![lab.send(&exchange).await]
}

async fn assertion_replayed_after_restart(_: &Lab) -> Vec<Response> {
    let (lab, mut exchange) = restarted().await;
    exchange.proofs = vec![Key::es256().proof(&lab.proof_claims(&lab.nonce().await))];
    vec![lab.send(&exchange).await]
}

async fn jti_of_another_key_is_free(lab: &Lab) -> Vec<Response> {
    let jti = unique();
    let mut exchange = lab.honest(&Key::es256()).await;
    for _ in 0..2 {
        exchange.set("client_assertion", &lab.assertion("desk"));
        exchange.proofs = vec![Key::es256().proof(&claims(lab, json!({ "jti": jti })).await)];
        token_of(&lab.send(&exchange).await);
    }
    exchange.set("client_assertion", &lab.assertion("desk"));
    vec![lab.send(&exchange).await]
}

async fn nonce_missing(lab: &Lab) -> Vec<Response> {
    let answers = with_claims(lab, json!({ "nonce": null })).await;
    assert!(answers[0].header("dpop-nonce").is_some(), "a challenge brings a nonce");
    // A challenge consumes nothing: the same assertion is good with the nonce.
    let mut exchange = lab.honest(&Key::es256()).await;
    let mut claims = lab.proof_claims("");
    claims.as_object_mut().unwrap().remove("nonce");
    let key = Key::es256();
    exchange.proofs = vec![key.proof(&claims)];
    let challenge = lab.send(&exchange).await;
    exchange.proofs = vec![key.proof(&lab.proof_claims(challenge.header("dpop-nonce").unwrap()))];
    let granted = lab.send(&exchange).await;
    assert!(granted.header("dpop-nonce").is_some(), "every 200 carries the next nonce");
    token_of(&granted);
    answers
}

async fn nonce(lab: &Lab, nonce: &str) -> Vec<Response> {
    with_claims(lab, json!({ "nonce": nonce })).await
}

async fn nonce_made_up(lab: &Lab) -> Vec<Response> {
    let genuine = lab.nonce().await;
    let mut changed = genuine.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    let mut answers = Vec::new();
    for made_up in ["0", &unique(), &changed, &genuine[1..]] {
        answers.extend(nonce(lab, made_up).await);
    }
    answers
}

async fn nonce_of_another_process(lab: &Lab) -> Vec<Response> {
    let other = Lab::start(World::new().await).await;
    nonce(lab, &other.nonce().await).await
}

async fn nonce_from_before_the_restart(_: &Lab) -> Vec<Response> {
    let mut lab = Lab::start(World::new().await).await;
    let before = lab.nonce().await;
    lab.started.process.kill();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    nonce(&lab, &before).await
}

async fn nonce_not_text(lab: &Lab) -> Vec<Response> {
    let mut answers = with_claims(lab, json!({ "nonce": 7 })).await;
    answers.extend(with_claims(lab, json!({ "nonce": ["a"] })).await);
    answers.extend(nonce(lab, "").await);
    answers.extend(nonce(lab, &"n".repeat(4096)).await);
    answers
}

async fn bearer_scheme_at_introspection(lab: &Lab) -> Vec<Response> {
    // A bound token is no way to authenticate here, whatever its scheme.
    let token = lab.token(&Key::es256()).await;
    let mut answers = Vec::new();
    for scheme in ["Bearer", "DPoP"] {
        let mut exchange = lab.for_client("ledger", &Key::es256()).await;
        exchange.remove("client_assertion").remove("client_assertion_type");
        exchange.set("subject_token", &token).tool(LEDGER, "list_entries");
        exchange.header("authorization", &format!("{scheme} {token}"));
        answers.push(lab.send(&exchange).await);
    }
    answers
}
