//! `deputize doctor`: a token that is accepted, and its neighbours that are not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    environment::Environment,
    program::{Ran, run_with_input},
};

fn doctor(config: &str, token: &str) -> Ran {
    run_with_input(&["doctor", "--token", "-", "--config", config], token)
}

/// A token that nobody signed.
fn forged(issuer: &str, exp: u64) -> String {
    let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = encode(serde_json::json!({ "alg": "ES256", "typ": "JWT", "kid": "no-such-key" }));
    let claims =
        encode(serde_json::json!({ "iss": issuer, "sub": "alice", "aud": "support-platform", "exp": exp }));
    format!("{header}.{claims}.{}", "A".repeat(86))
}

#[test]
fn each_fault_is_found_and_named() {
    let environment = Environment::start();
    let (config, token) = (environment.config_str(), environment.user_token("alice").to_owned());
    let issuer = environment.ready["idp"].as_str().unwrap();
    let far = 4_102_444_800;

    let ran = doctor(&config, &token).expect(0);
    assert!(
        ran.stdout.contains("roles support") && ran.stdout.contains("support-platform: may bring"),
        "{ran:?}"
    );

    let fails = |ran: Ran, code: i32, parts: &[&str]| {
        let ran = ran.expect(code);
        for part in parts {
            assert!(ran.stdout.contains(part), "{part}: {ran:?}");
        }
    };
    fails(doctor(&config, &forged(issuer, far)), 1, &["✔ issuer", "✖ signature", "no-such-key", "✔ times"]);
    fails(doctor(&config, &forged(issuer, 1)), 1, &["✖ times", "expired", "get a fresh token"]);
    fails(
        doctor(&config, &forged("https://login.elsewhere.example", far)),
        1,
        &["✖ issuer", "identity_providers"],
    );
    fails(doctor(&config, &forged(&format!("{issuer}/"), far)), 1, &["✖ issuer", "spell issuer", issuer]);
    fails(doctor(&config, "opaque-access-token"), 1, &["✖ form", "opaque"]);

    let other = environment
        .config_with("subject_audiences:\n  - support-platform", "subject_audiences:\n  - other-app");
    fails(doctor(&other, &token), 1, &["✖ client support-platform", "subject_audiences", "other-app"]);
    let other = environment.config_with("  claims:\n", "  claims:\n    stable: employee_number\n");
    fails(doctor(&other, &token), 1, &["✖ person", "claims.stable", "employee_number"]);

    let server = environment.ready["servers"][0]["resource"].as_str().unwrap();
    let guard = environment.ready["servers"][0]["client"]["client_id"].as_str().unwrap();
    let accepts =
        format!("server: {server}\n  accepts_bearer:\n  - issuer: {issuer}\n    clients: [desk-app]");
    let accepting = environment.config_with(&format!("server: {server}"), &accepts);
    let line = ["doctor", "--token", "-", "--config", &accepting, "--client", guard];
    // Signed in for another client, and no access token either: the guard brings nothing of the kind.
    fails(run_with_input(&line, &token), 1, &[&format!("✖ client {guard}"), "not an access token"]);

    let unreachable = environment.config_with(&format!("issuer: {issuer}"), "issuer: http://127.0.0.1:1");
    fails(doctor(&unreachable, &forged("http://127.0.0.1:1", far)), 6, &["? keys", "openid-configuration"]);
}

#[test]
fn without_a_token_or_a_configuration_there_is_no_diagnosis() {
    run_with_input(&["doctor", "--token", "-", "--config", "/nowhere.yaml"], "x").expect(5);
    run_with_input(&["doctor"], "").expect(2);
}
