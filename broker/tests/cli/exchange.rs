//! `deputize exchange`, against a running broker, and what other commands say of it.

use crate::{
    environment::Environment,
    program::{run, run_with_input},
};

#[test]
fn an_exchange_gives_a_token_that_can_be_inspected_and_explained() {
    let environment = Environment::start();
    let (ready, config) = (environment.ready_file(), environment.config_str());
    let exchange = |more: &[&str]| run(&[&["exchange", "--ready-file", &ready][..], more].concat());

    let granted = exchange(&["--tool", "refund_payment", "-o", "json"]).expect(0).json();
    assert_eq!(granted["token_type"], "DPoP");
    assert_eq!(granted["authorization_details"][0]["max_uses"], 1);
    let (token, decision) =
        (granted["access_token"].as_str().unwrap(), granted["decision_id"].as_str().unwrap());

    let issuer = environment.ready["issuer"].as_str().unwrap();
    let ran = run_with_input(&["token", "inspect", "--issuer", issuer], token).expect(0);
    assert!(ran.stdout.contains("✔ valid") && ran.stdout.contains("one call of refund_payment"), "{ran:?}");
    let (body, _) = token.rsplit_once('.').unwrap();
    let ran =
        run_with_input(&["token", "inspect", "--issuer", issuer], &format!("{body}.{}", "A".repeat(86)));
    assert!(ran.code == 1 && ran.stdout.contains("✖ not valid"), "{ran:?}");

    let story = run(&["explain", decision, "--config", &config]).expect(0).stdout;
    for part in [
        "✔ granted",
        "support-platform",
        "refund_payment",
        "policy support-refund-small",
        "Refunds up to",
        "minted",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    // Beside the running broker, whose last group may be under way.
    run(&["audit", "verify", "--config", &config]).expect(0);

    // Listing, for people: the token alone, so that it can be piped.
    let plain = exchange(&[]).expect(0).stdout;
    assert_eq!(plain.trim().split('.').count(), 3);
}

#[test]
fn refusals_have_their_exit_codes() {
    let environment = Environment::start();
    let (ready, config) = (environment.ready_file(), environment.config_str());
    let exchange = |more: &[&str]| run(&[&["exchange", "--ready-file", &ready][..], more].concat());

    // Policy says no: an analyst writes nothing.
    let denied = exchange(&["--tool", "refund_payment", "--user", "bob"]).expect(3);
    let decision = denied.stderr.split("`deputize explain ").nth(1).unwrap().split('`').next().unwrap();
    let story = run(&["explain", decision, "--config", &config]).expect(0).stdout;
    assert!(story.contains("✖ denied") && story.contains("next:"), "{story}");
    // The level is too low, the arguments are wrong, nobody can approve.
    exchange(&["--tool", "refund_payment", "--constraints", "{}"]).expect(3);
    exchange(&["--tool", "refund_payment", "--arguments", r#"{"payment_id": "../etc"}"#]).expect(3);
    exchange(&["--tool", "export_customers", "--user", "carol"]).expect(3);
    // Nonsense.
    exchange(&["--tool", "no_such_tool"]).expect(2);
    exchange(&["--user", "mallory"]).expect(2);
    exchange(&["--tool", "refund_payment", "--arguments", r#"{"a": 1, "a": 2}"#]).expect(2);
    run(&["exchange", "--issuer", "https://x.example"]).expect(2);
    // Nobody there.
    exchange(&["--issuer", "http://127.0.0.1:1"]).expect(6);
}
