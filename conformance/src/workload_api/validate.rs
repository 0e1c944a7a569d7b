//! ValidateJWTSVID (SPIFFE Workload API §6.2.3): what is valid, and what must not be.

use super::{
    client::{Connection, Ended},
    findings::Findings,
    jwt::AUDIENCE,
    messages::{ValidateJwtSvidRequest, ValidateJwtSvidResponse},
};
use aws_lc_rs::{rand::SystemRandom, signature};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Has a good token validated, for its audience and another, and forgeries of it.
pub(super) async fn examine(findings: &mut Findings, connection: &Connection, token: &str, id: &str) {
    match validate(connection, AUDIENCE, token).await {
        Err(ended) => findings.check("WLAPI-6.2.3-1", Err(ended.to_string())),
        Ok(answer) => {
            findings.check("WLAPI-6.2.3-1", Ok(()));
            let same = answer.spiffe_id == id;
            findings.holds("WLAPI-6.2.3-4", same, format!("it says {:?}", answer.spiffe_id));
            let claims = answer.claims.unwrap_or_default().fields;
            let missing: Vec<_> =
                ["sub", "aud", "exp"].into_iter().filter(|claim| !claims.contains_key(*claim)).collect();
            findings.holds("WLAPI-6.2.3-4", missing.is_empty(), format!("without {missing:?}"));
        }
    }
    let elsewhere = validate(connection, "spiffe-conformance-elsewhere", token).await;
    findings.holds("WLAPI-6.2.3-2", is_no(&elsewhere), "it was valid");
    for (what, forged) in forgeries(token) {
        let answer = validate(connection, AUDIENCE, &forged).await;
        findings.holds("WLAPI-6.2.3-3", is_no(&answer), format!("{what}: it was valid"));
    }
}

async fn validate(
    connection: &Connection,
    audience: &str,
    token: &str,
) -> Result<ValidateJwtSvidResponse, Ended> {
    let question = ValidateJwtSvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
    connection.ask_once("ValidateJWTSVID", Some("true"), &question).await
}

/// A refusal, and not a server that fell over: the next request shows that it did not.
fn is_no<A>(answer: &Result<A, Ended>) -> bool {
    matches!(answer, Err(Ended::With(_)))
}

/// Tokens that must not be valid, made of one that is.
fn forgeries(token: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return Vec::new() };
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut other_claims: serde_json::Value = serde_json::from_slice(&decoded(claims)).unwrap_or_default();
    if let Some(sub) = other_claims.get("sub").and_then(|sub| sub.as_str()).map(|sub| format!("{sub}/other"))
    {
        other_claims["sub"] = sub.into();
    }
    let other_claims = encoded(other_claims.to_string().as_bytes());
    let mut flipped = decoded(signature);
    if let Some(byte) = flipped.first_mut() {
        *byte ^= 1;
    }
    let none = encoded(br#"{"alg":"none"}"#);
    vec![
        ("another subject under the same signature", format!("{header}.{other_claims}.{signature}")),
        ("a flipped bit in the signature", format!("{header}.{claims}.{}", encoded(&flipped))),
        ("no signature", format!("{header}.{claims}.")),
        ("alg none", format!("{none}.{claims}.")),
        ("another's key", signed_by_another(header, claims)),
        ("not a token", "not a token".to_owned()),
    ]
}

/// The same header and claims under a key that is nobody's.
fn signed_by_another(header: &str, claims: &str) -> String {
    let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let message = format!("{header}.{claims}");
    let signature = signature::EcdsaKeyPair::generate(algorithm)
        .and_then(|key| key.sign(&SystemRandom::new(), message.as_bytes()))
        .map(|signature| URL_SAFE_NO_PAD.encode(signature));
    format!("{message}.{}", signature.unwrap_or_default())
}
