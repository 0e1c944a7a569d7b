//! `deputize token inspect`, `keys ls`, `completions` and the help.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

use crate::program::{Data, intent, run, run_with_input};

fn key() -> SigningKey {
    SigningKey::generate(SigningAlgorithm::ES256).unwrap()
}

#[test]
fn a_token_is_shown_but_never_called_valid_without_keys() {
    let token =
        key().sign("JWT", &json!({ "iss": "https://idp.example", "sub": "a\u{1b}[31m", "exp": 1 })).unwrap();
    let ran = run_with_input(&["token", "inspect"], &token).expect(0);
    assert!(ran.stdout.starts_with("not verified"), "{ran:?}");
    assert!(!ran.stdout.contains("✔") && !ran.stdout.contains('\u{1b}'), "{ran:?}");
    let shown = run(&["token", "inspect", &token, "-o", "json"]).expect(0).json();
    assert_eq!(shown["verified"], "not_checked");
    assert_eq!(shown["expired"], true);
}

#[test]
fn with_keys_a_token_is_valid_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let (good, other) = (key(), key());
    let jwks = |key: &SigningKey, name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, KeySet::new(vec![key.public().clone()]).to_jwks().to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good_keys, other_keys) = (jwks(&good, "good"), jwks(&other, "other"));
    let claims = json!({ "iss": "https://idp.example", "sub": "alice", "exp": 4_102_444_800_u64 });
    let token = good.sign("JWT", &claims).unwrap();
    let inspect =
        |token: &str, more: &[&str]| run_with_input(&[&["token", "inspect", "-"][..], more].concat(), token);
    inspect(&token, &["--jwks", &good_keys]).expect(0);
    inspect(&token, &["--jwks", &good_keys, "--issuer", "https://idp.example"]).expect(0);
    // The neighbours: another key, another issuer, expired, changed, unsigned.
    inspect(&token, &["--jwks", &other_keys]).expect(1);
    inspect(&token, &["--jwks", &good_keys, "--issuer", "https://other.example"]).expect(1);
    inspect(&good.sign("JWT", &json!({ "sub": "alice", "exp": 1 })).unwrap(), &["--jwks", &good_keys])
        .expect(1);
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let payload = URL_SAFE_NO_PAD.encode(json!({ "sub": "mallory", "exp": 4_102_444_800_u64 }).to_string());
    inspect(&format!("{header}.{payload}.{signature}"), &["--jwks", &good_keys]).expect(1);
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
    inspect(&format!("{none}.{payload}."), &["--jwks", &good_keys]).expect(1);
    // Keys that cannot be had are not a verdict.
    inspect(&token, &["--jwks", "/nowhere"]).expect(1);
    inspect(&token, &["--issuer", "http://127.0.0.1:1"]).expect(6);
}

#[test]
fn what_is_no_token_is_refused() {
    for text in ["", "x", "a.b.c", "a.b.c.d", &"a".repeat(40_000)] {
        let ran = run_with_input(&["token", "inspect"], text);
        assert!(ran.code == 1 || ran.code == 2, "{text:.20}: {ran:?}");
        assert!(ran.stderr.contains("next:"), "{ran:?}");
    }
}

#[test]
fn keys_are_listed_without_their_private_halves_or_making_any() {
    let data = Data::with(&[intent(1)]);
    let shown = run(&["keys", "ls", "--data", data.path(), "-o", "json"]).expect(0).json();
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["kid"], data.verifier_key);
    assert_eq!(std::fs::read_dir(data.folder.path().join("keys")).unwrap().count(), 1);
    // A key that others can read is no secret any more.
    let file = data.folder.path().join("keys/checkpoint.p8");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    run(&["keys", "ls", "--data", data.path()]).expect(1);
    let empty = tempfile::tempdir().unwrap();
    run(&["keys", "ls", "--data", empty.path().to_str().unwrap()]).expect(1);
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn shells_can_complete_it() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("can-i") && script.contains("inspect"), "{shell}");
    }
    run(&["completions", "tcsh"]).expect(2);
}

#[test]
fn every_command_has_help_that_says_what_it_is_for() {
    for command in [
        "serve",
        "dev",
        "demo",
        "lint",
        "doctor",
        "can-i",
        "explain",
        "audit tail",
        "audit query",
        "audit prove",
        "audit verify",
        "exchange",
        "token inspect",
        "client add",
        "keys ls",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(&arguments).expect(0).stdout;
        assert!(help.contains("Usage: deputize"), "{command}: {help}");
        assert!(help.lines().next().unwrap().len() > 12, "{command}: {help}");
    }
    run(&["no-such-command"]).expect(2);
    run(&["audit", "tail", "-o", "xml"]).expect(2);
}
