//! The user's token, and where it comes from.

use super::world::*;
use crate::{
    Clock as _, SystemClock, TokenType,
    connect::user_tokens::{TokenCommand, TokenFile, UserToken, UserTokens as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn a_file_that_changes_is_seen_at_the_next_exchange() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    local.ask(&call(1, "lookup", json!({}))).await;
    std::fs::write(world.user_file(), " other.jwt \n").unwrap();
    local.ask(&call(2, "lookup", json!({}))).await;
    local.ask(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list" })).await;
    let users: Vec<_> = world.asked().iter().map(|form| form["subject_token"].clone()).collect();
    assert_eq!(users, [USER, USER, "other.jwt", "other.jwt"], "another user's listing is another");
}

#[tokio::test]
async fn no_file_and_no_token_are_told_apart_and_neither_shows_a_token() {
    let world = World::start().await;
    let mut local = world.local();
    for (content, said) in
        [(None, "No such file"), (Some(""), "it is empty"), (Some("two canary.tokens"), "it is no token")]
    {
        match content {
            None => std::fs::remove_file(world.user_file()).unwrap(),
            Some(content) => std::fs::write(world.user_file(), content).unwrap(),
        }
        let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
        assert!(answer["error"]["message"].as_str().unwrap().contains(said), "{said}: {answer}");
    }
    assert!(!local.heard.contains("canary"));
    assert_eq!(world.asked().len(), 0);
}

#[tokio::test]
async fn a_transaction_that_is_over_is_followed_by_another() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    world.broker(|form| {
        form.get("transaction_id").filter(|id| *id == "txn-1").map(|_| Reply::denial("invalid_request"))
    });
    let answer = local.ask(&call(1, "lookup", json!({}))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    local.ask(&call(2, "lookup", json!({}))).await;
    let transactions: Vec<_> = world.asked().iter().map(|form| form.get("transaction_id").cloned()).collect();
    let [first, third] = ["txn-1", "txn-3"].map(|id| Some(id.to_owned()));
    assert_eq!(transactions, [None, first, None, third]);
}

#[tokio::test]
async fn a_user_token_that_is_refused_is_not_brought_again_and_again() {
    let world = World::start().await;
    world.broker(|_| Some(Reply::denial("invalid_request")));
    let mut local = world.local();
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("sign in again"), "{answer}");
    assert_eq!(world.asked().len(), 1);
}

/// A command that counts in a file how often it ran, and prints a token that expires in so many seconds.
fn counting(folder: &std::path::Path, expires_in: Option<u64>) -> (TokenCommand, impl Fn() -> usize) {
    let now = SystemClock::new().now_seconds();
    let claims = expires_in.map_or(json!({}), |seconds| json!({ "exp": now + seconds }));
    let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let count = folder.join("count");
    let command = format!("printf x >> '{}'; printf '%s\\n' '{token}'", count.display());
    let runs = move || std::fs::read(&count).map_or(0, |bytes| bytes.len());
    (TokenCommand::new(&command, TokenType::Jwt, Arc::new(SystemClock::new())), runs)
}

#[tokio::test]
async fn a_command_runs_again_before_its_token_expires_or_once_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (command, runs) = counting(folder.path(), Some(3600));
    let token = command.current().await.unwrap();
    command.current().await.unwrap();
    assert_eq!(runs(), 1);
    command.refused(&UserToken::new("another", TokenType::Jwt).unwrap()).await;
    command.current().await.unwrap();
    assert_eq!(runs(), 1, "another's refusal changes nothing");
    command.refused(&token).await;
    command.current().await.unwrap();
    assert_eq!(runs(), 2);

    let folder = tempfile::tempdir().unwrap();
    let (command, runs) = counting(folder.path(), Some(30));
    command.current().await.unwrap();
    command.current().await.unwrap();
    assert_eq!(runs(), 2, "it would expire within the minute");
}

#[tokio::test]
async fn a_command_that_fails_is_said_so_without_what_it_printed() {
    for (command, said) in [
        ("echo canary; exit 3", "exit status: 3"),
        ("true", "it is empty"),
        ("echo canary canary", "it is no token"),
        ("kill -9 $$", "signal"),
        ("yes canary", "exit status: 141"),
    ] {
        let source = TokenCommand::new(command, TokenType::Jwt, Arc::new(SystemClock::new()));
        let error = source.current().await.unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("canary"), "{command}: {error}");
    }
}

#[test]
fn a_token_is_not_printed() {
    let token = UserToken::new("canary", TokenType::Jwt).unwrap();
    let file = TokenFile::new(std::path::Path::new("x"), TokenType::Jwt);
    assert!(!format!("{token:?} {file:?}").contains("canary"));
    for text in ["", " ", "a b", "a\nb", "é"] {
        assert!(UserToken::new(text, TokenType::Jwt).is_err(), "{text:?}");
    }
}
