//! H-15 and H-16: clients that are not who they say, and requests that are not what they should be.

use crate::cases;
use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{Key, now},
    wire::Response,
    world::token_of,
};
use serde_json::{Value, json};

cases![clients:
    audience_of_another, audience_array, audience_is_the_endpoint, issuer_unlike_subject, replayed, expired,
    ten_years_long, without_iat, without_jti, signed_by_another_client, of_an_unknown_client, of_a_disabled_client,
    client_id_unlike_assertion, assertion_type_wrong, two_methods, authorization_header, foreign_svid,
    forged_client_certificate, no_authentication,
    get_token, json_body, body_over_64_kib, parameters_in_the_query, odd_charset, two_content_types,
    five_thousand_parameters, nul_in_a_parameter, broken_percent_encoding, grant_type_unknown, grant_type_missing,
];

/// An honest exchange with these members of the assertion changed; null takes one out.
async fn assertion(lab: &Lab, members: Value) -> Vec<Response> {
    let mut claims = lab.assertion_claims("desk");
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    let token = lab.world.client_keys["desk"].token("JWT", &claims);
    changed(lab, |exchange| exchange.set("client_assertion", &token)).await
}

async fn changed(lab: &Lab, change: impl FnOnce(&mut Exchange) -> &mut Exchange) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    change(&mut exchange);
    vec![lab.send(&exchange).await]
}

async fn audience_of_another(lab: &Lab) -> Vec<Response> {
    assertion(lab, json!({ "aud": "https://another.example" })).await
}

async fn audience_array(lab: &Lab) -> Vec<Response> {
    let mut answers = assertion(lab, json!({ "aud": [lab.world.base, "https://another.example"] })).await;
    answers.extend(assertion(lab, json!({ "aud": [lab.world.base] })).await);
    answers
}

async fn audience_is_the_endpoint(lab: &Lab) -> Vec<Response> {
    let mut answers = assertion(lab, json!({ "aud": format!("{}/token", lab.world.base) })).await;
    answers.extend(assertion(lab, json!({ "aud": format!("{}/", lab.world.base) })).await);
    answers
}

async fn issuer_unlike_subject(lab: &Lab) -> Vec<Response> {
    let mut answers = assertion(lab, json!({ "iss": "other" })).await;
    answers.extend(assertion(lab, json!({ "sub": "other" })).await);
    answers
}

async fn replayed(lab: &Lab) -> Vec<Response> {
    let token = lab.assertion("desk");
    let mut first = lab.honest(&Key::es256()).await;
    first.set("client_assertion", &token);
    token_of(&lab.send(&first).await);
    changed(lab, |exchange| exchange.set("client_assertion", &token)).await
}

async fn expired(lab: &Lab) -> Vec<Response> {
    assertion(lab, json!({ "iat": now() - 120, "exp": now() - 61 })).await
}

async fn ten_years_long(lab: &Lab) -> Vec<Response> {
    let mut answers = assertion(lab, json!({ "exp": now() + 10 * 365 * 86_400 })).await;
    answers.extend(assertion(lab, json!({ "exp": now() + 301 })).await);
    answers
}

async fn without_iat(lab: &Lab) -> Vec<Response> {
    assertion(lab, json!({ "iat": null })).await
}

async fn without_jti(lab: &Lab) -> Vec<Response> {
    let mut answers = assertion(lab, json!({ "jti": null })).await;
    answers.extend(assertion(lab, json!({ "jti": "" })).await);
    answers
}

async fn signed_by_another_client(lab: &Lab) -> Vec<Response> {
    let token = lab.world.client_keys["other"].token("JWT", &lab.assertion_claims("desk"));
    changed(lab, |exchange| exchange.set("client_assertion", &token)).await
}

async fn of_an_unknown_client(lab: &Lab) -> Vec<Response> {
    let token = Key::es256().token("JWT", &lab.assertion_claims("nobody"));
    changed(lab, |exchange| exchange.set("client_assertion", &token).set("client_id", "nobody")).await
}

async fn of_a_disabled_client(lab: &Lab) -> Vec<Response> {
    let token = lab.assertion("retired");
    changed(lab, |exchange| exchange.set("client_assertion", &token).set("client_id", "retired")).await
}

async fn client_id_unlike_assertion(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("client_id", "other")).await
}

async fn assertion_type_wrong(lab: &Lab) -> Vec<Response> {
    let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    let mut answers = changed(lab, |exchange| exchange.set("client_assertion_type", saml)).await;
    answers.extend(changed(lab, |exchange| exchange.remove("client_assertion_type")).await);
    answers
}

async fn two_methods(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("client_secret", "hunter2")).await
}

async fn authorization_header(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.header("authorization", "Basic ZGVzazpodW50ZXIy")).await
}

async fn foreign_svid(lab: &Lab) -> Vec<Response> {
    let claims = json!({
        "sub": "spiffe://elsewhere.test/agent/desk", "aud": lab.world.base, "iat": now(), "exp": now() + 60,
    });
    let svid = Key::es256().token("JWT", &claims);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    let mut answers = changed(lab, |exchange| exchange.set("client_assertion", &svid)).await;
    answers.extend(
        changed(lab, |exchange| exchange.set("client_assertion", &svid).set("client_assertion_type", kind))
            .await,
    );
    answers
}

async fn forged_client_certificate(lab: &Lab) -> Vec<Response> {
    let forged = "By=spiffe://acme.test/broker;URI=spiffe://acme.test/agent/desk";
    changed(lab, |exchange| {
        exchange
            .header("x-forwarded-client-cert", forged)
            .remove("client_assertion")
            .remove("client_assertion_type");
        exchange
    })
    .await
}

async fn no_authentication(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.remove("client_assertion").remove("client_assertion_type")).await
}

async fn get_token(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for method in ["GET", "PUT", "DELETE"] {
        answers.extend(changed(lab, |exchange| exchange.at(method, "/token")).await);
    }
    answers
}

async fn json_body(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| {
        let object: serde_json::Map<_, _> =
            exchange.form.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        exchange.header("content-type", "application/json").body =
            Some(Value::Object(object).to_string().into_bytes());
        exchange
    })
    .await
}

async fn body_over_64_kib(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| exchange.set("workflow", &"w".repeat(64 * 1024))).await;
    answers.extend(changed(lab, |exchange| exchange.set("workflow", &"w".repeat(1024 * 1024))).await);
    answers
}

async fn parameters_in_the_query(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| {
        let query = exchange.form.iter().map(|(name, value)| (name, value));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        exchange.target = format!("/token?{query}");
        exchange.body = Some(Vec::new());
        exchange
    })
    .await;
    answers.extend(changed(lab, |exchange| exchange.at("POST", "/token?scope=x")).await);
    answers
}

async fn content_type(lab: &Lab, value: &str) -> Vec<Response> {
    changed(lab, |exchange| exchange.header("content-type", value)).await
}

async fn odd_charset(lab: &Lab) -> Vec<Response> {
    let mut answers = content_type(lab, "application/x-www-form-urlencoded; charset=utf-7").await;
    answers.extend(content_type(lab, "application/x-www-form-urlencoded; charset=utf-16").await);
    answers.extend(content_type(lab, "multipart/form-data; boundary=x").await);
    answers
}

async fn two_content_types(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| {
        let form = "application/x-www-form-urlencoded";
        exchange.header("content-type", form).header("content-type", "application/json");
        exchange
    })
    .await
}

async fn five_thousand_parameters(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| {
        for n in 0..5000 {
            exchange.add(&format!("p{n}"), "1");
        }
        exchange
    })
    .await
}

/// An honest form with these bytes behind it.
async fn with_bytes(lab: &Lab, bytes: &[u8]) -> Vec<Response> {
    changed(lab, |exchange| {
        exchange.body = Some([&exchange.request().body[..], bytes].concat());
        exchange
    })
    .await
}

async fn nul_in_a_parameter(lab: &Lab) -> Vec<Response> {
    let mut answers = with_bytes(lab, b"&workflow=a%00b").await;
    answers.extend(with_bytes(lab, b"&workflow=a\0b").await);
    answers
}

async fn broken_percent_encoding(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for bytes in [&b"&workflow=%"[..], b"&workflow=%4", b"&workflow=%zz", b"&workflow=%ff", b"&workflow=%+1"]
    {
        answers.extend(with_bytes(lab, bytes).await);
    }
    answers
}

async fn grant_type_unknown(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| exchange.set("grant_type", "password")).await;
    answers.extend(changed(lab, |exchange| exchange.set("grant_type", "refresh_token")).await);
    answers
}

async fn grant_type_missing(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.remove("grant_type")).await
}
