//! What must hold after each case.

use deputize_conformance::{
    exchange::{Lab, Tally},
    wire::Response,
};
use serde_json::Value;

/// The books before a case.
pub(crate) struct Account {
    tally: Tally,
    counted: f64,
    log_size: u64,
}

impl Account {
    pub(crate) async fn take(lab: &Lab) -> Self {
        Self {
            tally: lab.tally(),
            counted: lab.world.metric(REFUSALS).await,
            log_size: lab.world.log_size().await,
        }
    }
}

/// Each answer is a refusal with this status and code, says nothing it should not, and can be referred to.
pub(crate) fn check_answers(answers: &[Response], expected: &str) -> Result<(), String> {
    if answers.is_empty() {
        return Err("the case made no request".to_owned());
    }
    for answer in answers {
        check_refusal(answer, expected)?;
        // A guard in this process answers in a structure, which has no headers.
        if answer.header("refused-by") == Some("guard") {
            continue;
        }
        let body = answer.json();
        let id = body["decision_id"].as_str();
        if id.is_none_or(|id| id.len() != 36) || answer.header("deputize-decision-id") != id {
            return Err(format!("nothing to refer to: {body}, {:?}", answer.headers));
        }
        if !body["error_uri"].as_str().is_some_and(|uri| uri.contains("/docs/errors/")) {
            return Err(format!("no error_uri: {body}"));
        }
        check_headers(answer)?;
    }
    Ok(())
}

/// The same of a guard's answers; decisions are the broker's.
pub(crate) fn check_guard_answers(answers: &[Response], expected: &str) -> Result<(), String> {
    if answers.is_empty() {
        return Err("the case made no request".to_owned());
    }
    answers.iter().try_for_each(|answer| check_refusal(answer, expected).and_then(|()| check_headers(answer)))
}

fn check_refusal(answer: &Response, expected: &str) -> Result<(), String> {
    let body = answer.json();
    let got = format!("{} {}", answer.status, body["error"].as_str().unwrap_or("-"));
    if got != expected {
        return Err(format!("expected {expected}, got {got}: {}", String::from_utf8_lossy(&answer.body)));
    }
    if body.get("access_token").is_some() || !body["error_description"].is_string() {
        return Err(format!("not the shape of a refusal: {body}"));
    }
    Ok(())
}

fn check_headers(answer: &Response) -> Result<(), String> {
    if answer.header("x-request-id").is_none() || answer.header("cache-control") != Some("no-store") {
        return Err(format!("headers of a refusal are missing: {:?}", answer.headers));
    }
    Ok(())
}

/// As many credentials were minted as honest requests got one, each with its outcome; and each refusal is in the
/// log or in the count.
pub(crate) async fn check_account(lab: &Lab, before: &Account) -> Result<(), String> {
    // Outcomes are written behind the answer.
    lab.world.recorded().await;
    let tally = lab.tally();
    let (granted, refused) = (tally.granted - before.tally.granted, tally.refused - before.tally.refused);
    let (entries, _) = lab.world.log(before.log_size).await;
    let of_kind = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<&Value>>();
    let intents = of_kind("intent").len();
    let minted = of_kind("outcome").iter().filter(|entry| entry["result"] == "minted").count();
    let denials = of_kind("denial");
    let counted = (lab.world.metric(REFUSALS).await - before.counted) as usize;
    if (intents, minted, denials.len() + counted) != (granted, granted, refused) {
        return Err(format!(
            "{granted} tokens and {refused} refusals were answered, but {intents} intents, {minted} minted, {} \
             denials recorded and {counted} counted",
            denials.len()
        ));
    }
    match denials.iter().find(|denial| !denial["decision"].is_string()) {
        Some(nameless) => Err(format!("a denial without the id of its decision: {nameless}")),
        None => Ok(()),
    }
}

const REFUSALS: &str = "deputize_refusals_total";
