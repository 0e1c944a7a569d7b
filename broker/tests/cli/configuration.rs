//! `deputize lint`, `can-i` and `client add`: on the example configuration, and on what is wrong with it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

use crate::program::{Ran, command, run};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn example() -> String {
    deploy().join("example/deputize.yaml").to_str().unwrap().to_owned()
}

/// The example with something else in it.
fn changed(from: &str, to: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let example = deploy().join("example").canonicalize().unwrap();
    let text = std::fs::read_to_string(example.join("deputize.yaml")).unwrap();
    assert!(text.contains(from), "{from}");
    let absolute = |text: String, name: &str| text.replace(name, &format!("{}/{name}", example.display()));
    let text = absolute(absolute(text.replace(from, to), "clients/support-platform"), "clients/crm-guard");
    let text = absolute(text, "approvers/platform");
    let text = text.replace("entries: entries", &format!("entries: {}/entries", example.display()));
    let text = text.replace("folder: registry", &format!("folder: {}/registry", example.display()));
    let text = text.replace("../../broker/policies", &format!("{}/../../broker/policies", example.display()));
    let path = folder.path().join("deputize.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn lint(config: &str) -> Ran {
    run(&["lint", "--config", config])
}

#[test]
fn the_example_configuration_is_clean() {
    let ran = run(&["lint", "--strict", "--config", &example()]).expect(0);
    assert!(ran.stdout.contains("✔ nothing is wrong") && ran.stdout.contains("tools 3"), "{ran:?}");
    let text = std::fs::read_to_string(example()).unwrap();
    assert!(text.starts_with("# yaml-language-server: $schema=../deputize.schema.json\n"));
}

#[test]
fn the_committed_schema_is_that_of_this_program() {
    let committed = std::fs::read_to_string(deploy().join("deputize.schema.json")).unwrap();
    let now = run(&["lint", "--schema"]).expect(0).stdout;
    assert!(committed == now, "renew it: deputize lint --schema > deploy/deputize.schema.json");
}

#[test]
fn the_committed_schema_of_entries_is_that_of_this_program() {
    let committed = std::fs::read_to_string(deploy().join("entry.schema.json")).unwrap();
    let now = run(&["entry", "schema"]).expect(0).stdout;
    assert!(committed == now, "renew it: deputize entry schema > deploy/entry.schema.json");
    let entries = std::fs::read_to_string(deploy().join("example/entries/agents.yaml")).unwrap();
    assert!(entries.starts_with("# yaml-language-server: $schema=../../entry.schema.json\n"));
}

#[test]
fn the_committed_schema_of_records_is_that_of_this_program() {
    let committed = std::fs::read_to_string(deploy().join("registry.schema.json")).unwrap();
    let now = run(&["registry", "schema"]).expect(0).stdout;
    assert!(committed == now, "renew it: deputize registry schema > deploy/registry.schema.json");
    let record = std::fs::read_to_string(deploy().join("example/registry/crm.yaml")).unwrap();
    assert!(record.starts_with("# yaml-language-server: $schema=../../registry.schema.json\n"));
}

#[test]
fn problems_are_all_named_with_what_to_do() {
    for (from, to, parts) in [
        (
            "issuer: https://deputize.example.com",
            "isuer: https://deputize.example.com",
            &["did you mean `issuer`?"][..],
        ),
        (
            "issuer: https://deputize.example.com",
            "issuer: http://deputize.example.com/",
            &["https://", "trailing slash"],
        ),
        ("behind_proxy: true", "behind_proxy: false", &["listen: give tls"]),
        ("anchor: anchor/checkpoint", "anchor: data/anchor", &["outside data_dir"]),
        ("anchor: anchor/checkpoint", "reserve_mib: 64", &["audit.anchor", "allow_no_anchor: true"]),
        ("trust_domain: acme.example", "trust_domain: Acme.example", &["spiffe.trust_domain"]),
        (
            "trust_domain: acme.example",
            "trust_domain: other.example",
            &["agents.yaml", "not in our trust domain"],
        ),
        (
            "trust_domain: acme.example",
            "trust_domain: acme.example\n  node: spiffe://acme.example/agent/a",
            &["spiffe.node", "/deputize/node/"],
        ),
        (
            "trust_domain: acme.example",
            "trust_domain: acme.example\n  x509_svid_ttl_seconds: 90000",
            &["spiffe.x509_svid_ttl_seconds: no longer than"],
        ),
        (
            "trust_domain: acme.example",
            "trust_domain: acme.example\n  jwt_svid_ttl_seconds: 4000",
            &["spiffe.jwt_svid_ttl_seconds: 10 to 3600"],
        ),
        ("trust_domain: acme.example", "trust_domains: acme.example", &["did you mean `trust_domain`?"]),
        ("id: crm-guard", "id: user:crm", &["does not begin with user:"]),
        ("clients/crm-guard.jwks.json", "gone.jwks.json", &["gone.jwks.json"]),
        ("folder: registry", "folder: elsewhere", &["elsewhere"]),
        ("approvers/platform.jwks.json", "gone.jwks.json", &["gone.jwks.json"]),
        (
            "approval_keys: [approvers/platform.jwks.json]",
            "approval_keys: []",
            &["registry.approval_keys", "key new"],
        ),
        ("approval_keys: [", "unsigned_approvals: allow\n  approval_keys: [", &["not both"]),
        (
            "approvers/platform.jwks.json",
            "clients/crm-guard.jwks.json",
            &["not among registry.approval_keys"],
        ),
    ] {
        let (_folder, config) = changed(from, to);
        let ran = lint(&config).expect(5);
        for part in parts {
            assert!(ran.stdout.contains(part), "{part}: {ran:?}");
        }
    }
    lint("/nowhere/deputize.yaml").expect(5);
    let unsigned = "unsigned_approvals: allow";
    let (_folder, accepted) = changed("approval_keys: [approvers/platform.jwks.json]", unsigned);
    assert!(lint(&accepted).stdout.contains("whoever can write"), "accepted, with a warning");
    let (_folder, accepted) = changed("anchor: anchor/checkpoint", "allow_no_anchor: true");
    assert!(lint(&accepted).stdout.contains("rollback"), "accepted, with a warning");
}

/// It would match nothing, and a `forbid` on it forbid nothing.
#[test]
fn a_policy_on_what_its_server_does_not_have_is_a_problem() {
    let (folder, config) = changed("policies: ../../broker/policies", "policies: policies");
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    for (named, parts) in [
        (r#"Tool::"crm#lookup_customer""#, None),
        (r#"Tool::"crm#lookup_customers""#, Some(["did you mean `lookup_customer`?", "own:1:46"])),
        (r#"Resource::"crm#crm://notes/*""#, Some(["crm://notes/*", "give it an entry"])),
        (r#"Resource::"not-yet#crm://notes/*""#, None),
    ] {
        let policy = format!("forbid (principal, action, resource == {named});");
        std::fs::write(policies.join("own.cedar"), policy).unwrap();
        match parts {
            None => drop(lint(&config).expect(0)),
            Some(parts) => {
                let ran = lint(&config).expect(5);
                assert!(parts.iter().all(|part| ran.stdout.contains(part)), "{ran:?}");
            }
        }
    }
}

#[test]
fn warnings_fail_only_where_they_are_told_to() {
    let (_folder, config) =
        changed("server: https://crm.example.com/mcp", "server: https://crm.example.com/other");
    let ran = lint(&config).expect(0);
    assert!(ran.stdout.contains("not in the registry"), "{ran:?}");
    run(&["lint", "--strict", "--config", &config]).expect(5);
}

#[test]
fn the_environment_overrides_a_member() {
    let ran = command(&["lint", "--config", &example()])
        .env("DEPUTIZE__ISSUER", "http://plain.example")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(5));
}

fn can_i(more: &[&str]) -> Ran {
    let config = example();
    run(&[
        &["can-i", "--config", &config, "--client", "support-platform", "--server", "crm", "-o", "json"][..],
        more,
    ]
    .concat())
}

#[test]
fn can_i_answers_yes_and_no_with_reasons() {
    let refund = |cents: u64| format!(r#"{{"payment_id": "pay_81", "amount_cents": {cents}}}"#);
    let support = ["--user", "alice", "--groups", "support"];
    let call = |arguments: &str| {
        can_i(&[&support[..], &["--tool", "refund_payment", "--arguments", arguments]].concat())
    };

    let yes = call(&refund(4200)).expect(0).json();
    assert_eq!(yes["answer"], "yes");
    assert_eq!(yes["policies"][0], "support-refund-small");
    assert_eq!(yes["level"], "L3");
    assert_eq!(yes["least_level"], "L2");
    assert_eq!(yes["roles"][0], "support");
    assert!(yes["risk"]["score"].as_u64().unwrap() > 0);

    let no = |ran: Ran, reason: &str| {
        assert_eq!(ran.code, 3, "{ran:?}");
        assert_eq!(ran.json()["reason"], reason, "{ran:?}");
    };
    no(call(&refund(900_000)), "policy");
    no(call(r#"{"payment_id": "pay_81"}"#), "arguments_miss_the_schema");
    no(can_i(&[&support[..], &["--tool", "refund_payment"]].concat()), "level_too_low");
    no(can_i(&[&support[..], &["--tool", "drop_tables"]].concat()), "tool_unknown");
    no(can_i(&["--tool", "lookup_customer"]), "client_credentials_beyond_listing");
    no(can_i(&["--user", "eve", "--tool", "lookup_customer"]), "policy");
    let critical = [
        "--user",
        "carol",
        "--groups",
        "admins",
        "--tool",
        "export_customers",
        "--arguments",
        r#"{"format": "json"}"#,
    ];
    no(can_i(&critical), "approval_required");
    let guard = [
        "can-i",
        "--config",
        &example(),
        "--client",
        "crm-guard",
        "--server",
        "crm",
        "--user",
        "alice",
        "-o",
        "json",
    ];
    no(run(&guard), "beyond_the_clients_reach");
    can_i(&[&support[..], &["--level", "L9"]].concat()).expect(2);
}

/// What a guard may bring of users' own tokens, in the example's words.
const ACCEPTS: &str = "server: https://crm.example.com/mcp\n    accepts_bearer:\n      \
    - { issuer: https://login.example.com/realms/acme, clients: [desk-app] }";

#[test]
fn can_i_knows_what_a_bearer_token_is_worth() {
    let (_folder, config) = changed("server: https://crm.example.com/mcp", ACCEPTS);
    let ask = |config: &str, more: &[&str]| {
        let line = ["can-i", "--config", config, "--client", "crm-guard", "--server", "crm", "-o", "json"];
        run(&[&line[..], &["--user", "alice", "--groups", "support"], more].concat())
    };
    let refund = r#"{"payment_id": "pay_81", "amount_cents": 4200}"#;
    let refund = ["--bearer", "desk-app", "--tool", "refund_payment", "--arguments", refund];
    let yes = ask(&config, &["--bearer", "desk-app", "--tool", "lookup_customer"]).expect(0).json();
    assert_eq!(yes["policies"][0], "support-read", "{yes}");
    let refuse = |ran: Ran| {
        assert_eq!(ran.code, 3, "{ran:?}");
        ran.json()
    };
    let no = refuse(ask(&config, &refund));
    assert_eq!(
        (&no["reason"], &no["policies"][0]),
        (&"policy".into(), &"baseline-bound-tokens".into()),
        "{no}"
    );
    for (config, more, reason) in [
        (config.as_str(), &["--bearer", "other-app"][..], "authorized_party"),
        (&config, &[], "beyond_the_clients_reach"),
        (&example(), &["--bearer", "desk-app"], "issuer_not_trusted"),
    ] {
        assert_eq!(refuse(ask(config, more))["reason"], reason);
    }
    let platform =
        ["can-i", "--config", &config, "--client", "support-platform", "--server", "crm", "-o", "json"];
    let bearer = ["--user", "alice", "--bearer", "desk-app"];
    let no = refuse(run(&[&platform[..], &bearer].concat()));
    assert_eq!(no["reason"], "bearer_token_of_another_server");
}

#[test]
fn who_may_bring_users_own_tokens_is_said_exactly_or_refused() {
    let (_folder, config) = changed("server: https://crm.example.com/mcp", ACCEPTS);
    assert!(!lint(&config).expect(0).stdout.contains("accepts_bearer"));
    let any = ACCEPTS.replace("[desk-app]", "['*']");
    let (_folder, config) = changed("server: https://crm.example.com/mcp", &any);
    assert!(lint(&config).expect(0).stdout.contains("admits every client"), "accepted, with a warning");
    for (to, part) in [
        (ACCEPTS.replace("server: https://crm.example.com/mcp\n    ", ""), "say which (server)"),
        (ACCEPTS.replace("/realms/acme", "/realms/other"), "no identity provider of its tenant"),
        (ACCEPTS.replace("[desk-app]", "[]"), "with the clients whose tokens it accepts"),
        (format!("{ACCEPTS}\n    subject_audiences: [desk-app]"), "brings no other users' tokens"),
        (
            "server: https://crm.example.com/mcp\n    subject_audiences: [https://crm.example.com/mcp]"
                .to_owned(),
            "say accepts_bearer",
        ),
    ] {
        let (_folder, config) = changed("server: https://crm.example.com/mcp", &to);
        let ran = lint(&config).expect(5);
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn nobody_brings_what_is_addressed_to_a_server_or_to_us() {
    let brings = |audience: &str| format!("subject_audiences: [support-platform, '{audience}']");
    for (audience, part) in [
        ("https://crm.example.com/mcp", "is a registered server"),
        ("https://CRM.example.com:443/mcp/", "is a registered server"),
        ("https://deputize.example.com", "this broker's own"),
        ("https://deputize.example.com/token", "this broker's own"),
    ] {
        let (_folder, config) = changed("subject_audiences: [support-platform]", &brings(audience));
        let ran = lint(&config).expect(5);
        assert!(ran.stdout.contains(part) && ran.stdout.contains("support-platform"), "{audience}: {ran:?}");
    }
    let (_folder, config) =
        changed("subject_audiences: [support-platform]", &brings("https://crm.example.com"));
    lint(&config).expect(0);
    // The same of an entry.
    let (folder, config) = changed("entries: entries", "entries: own");
    std::fs::create_dir(folder.path().join("own")).unwrap();
    let entry = |audience: &str| {
        let exchange = format!(
            "{{ tenant: acme, subject_audiences: ['{audience}'], may_call: [{{ resource: https://crm.example.com/mcp }}] }}"
        );
        let text = format!(
            "id: desk\nspiffe_id: spiffe://acme.example/desk\nselectors: ['unix:path:/usr/bin/desk']\nexchange: {exchange}\n"
        );
        std::fs::write(folder.path().join("own/desk.yaml"), text).unwrap();
    };
    entry("support-platform");
    lint(&config).expect(0);
    entry("https://crm.example.com/mcp");
    let ran = lint(&config).expect(5);
    assert!(ran.stdout.contains("entry \"desk\": exchange: subject_audiences names"), "{ran:?}");
}

#[test]
fn no_name_has_two_owners() {
    let bot = "actor: spiffe://acme.example/agent/support-bot";
    let presents = |issuer: &str, actor: &str| {
        format!("{bot}\n    presents_actors: [{{ issuer: '{issuer}', subject: s, actor: '{actor}' }}]")
    };
    let (_folder, config) = changed(bot, &presents("https://login.example.com/realms/acme", "helper"));
    lint(&config).expect(0);
    for (to, part) in [
        ("actor: crm-guard".to_owned(), "\"crm-guard\" is a name of client"),
        (presents("https://x.example", "crm-guard"), "\"crm-guard\" is a name of client"),
        (presents("https://x.example", "support-platform"), "\"support-platform\" is a name of client"),
        ("actor: SPIFFE://acme.example/agent".to_owned(), "is not a valid SPIFFE ID"),
        ("actor: spiffe://Acme.example/agent".to_owned(), "is not a valid SPIFFE ID"),
        (presents("https://x.example", "Spiffe://acme.example/x"), "is not a valid SPIFFE ID"),
    ] {
        let (_folder, config) = changed(bot, &to);
        let ran = lint(&config).expect(5);
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn a_client_with_a_secret_has_no_keys_beside_it() {
    let keys = "jwks_file: clients/support-platform.jwks.json";
    let both = format!("secret_sha256: 47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU\n    {keys}");
    let (_folder, config) = changed(keys, &both);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("allow_client_secrets: true\n{text}")).unwrap();
    let ran = lint(&config).expect(5);
    assert!(ran.stdout.contains("give one of jwks_file and secret_sha256"), "{ran:?}");
}

#[test]
fn can_i_refuses_questions_about_what_is_not_there() {
    let config = example();
    let ran =
        run(&["can-i", "--config", &config, "--client", "support-platfrom", "--server", "crm"]).expect(2);
    assert!(ran.stderr.contains("did you mean support-platform?"), "{ran:?}");
    run(&["can-i", "--config", &config, "--client", "support-platform", "--server", "nowhere"]).expect(2);
    run(&["can-i", "--config", "/nowhere.yaml", "--client", "a", "--server", "b"]).expect(5);
}

#[test]
fn a_client_that_was_added_can_be_configured() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let id = "spiffe://acme.example/agent/one";
    let added =
        run(&["client", "add", id, "--folder", place, "--tenant", "acme", "-o", "json"]).expect(0).json();
    let private = Path::new(added["private_key_file"].as_str().unwrap());
    assert_eq!(private.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let public = std::fs::read_to_string(added["jwks_file"].as_str().unwrap()).unwrap();
    assert!(!public.contains("\"d\"") && std::fs::read_to_string(private).unwrap().contains("\"d\""));

    // What it prints is what the configuration takes.
    let snippet = added["configuration"].as_str().unwrap().strip_prefix("clients:\n").unwrap();
    let (_folder, config) = changed("clients:\n", &format!("clients:\n{snippet}"));
    let ran = run(&["lint", "--config", &config, "-o", "json"]).expect(0).json();
    assert_eq!(ran["summary"]["clients"], 3);

    // Once more: nothing is overwritten, and nothing new is left behind.
    let before = std::fs::read(private).unwrap();
    run(&["client", "add", id, "--folder", place]).expect(1);
    assert_eq!(std::fs::read(private).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    run(&["client", "add", "user:alice", "--folder", place]).expect(2);
    run(&["client", "add", "", "--folder", place]).expect(2);
}

#[test]
fn a_second_key_is_made_for_what_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let added = run(&["client", "add", "ops", "--sealed", "--folder", place, "-o", "json"]).expect(0).json();
    let read = |member: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(added[member].as_str().unwrap()).unwrap()).unwrap()
    };
    let (jwks, sealing) = (read("jwks_file"), read("sealing_key_file"));
    assert_eq!((&jwks["keys"][0]["use"], &jwks["keys"][1]["use"]), (&"sig".into(), &"enc".into()));
    assert_eq!(jwks["keys"][1]["x"], sealing["x"]);
    assert_eq!((&sealing["use"], &sealing["alg"]), (&"enc".into(), &"ECDH-ES+A256KW".into()));
    assert!(sealing["d"].is_string() && jwks["keys"][1].get("d").is_none(), "{jwks}");
    let mode = std::fs::metadata(added["sealing_key_file"].as_str().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let snippet = added["configuration"].as_str().unwrap().strip_prefix("clients:\n").unwrap();
    let (_folder, config) = changed("clients:\n", &format!("clients:\n{snippet}"));
    lint(&config).expect(0);
    run(&["client", "add", "ops", "--sealed", "--secret", "--folder", place]).expect(2);
}

#[test]
fn a_bootstrap_secret_is_printed_once_and_its_digest_configured() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["client", "add", "quick", "--secret", "--folder", folder.path().to_str().unwrap(), "-o", "json"];
    let (one, two) = (run(&arguments).expect(0).json(), run(&arguments).expect(0).json());
    let secret = one["secret"].as_str().unwrap();
    assert!(secret.starts_with("dps_") && secret.len() == 47, "{secret}");
    assert_ne!(one["secret"], two["secret"]);
    assert!(!one["configuration"].as_str().unwrap().contains(secret));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let snippet = one["configuration"].as_str().unwrap().strip_prefix("clients:\n").unwrap();
    // Only where secrets are allowed at all.
    let (_one, config) = changed("clients:\n", &format!("clients:\n{snippet}"));
    lint(&config).expect(5);
    let (_two, config) = changed("clients:\n", &format!("allow_client_secrets: true\nclients:\n{snippet}"));
    lint(&config).expect(0);
}

#[test]
fn a_client_that_shows_an_svid_or_a_certificate_can_be_configured_in_one_way() {
    let folder = tempfile::tempdir().unwrap();
    let authority = certificate(&folder.path().join("ca.pem"), true);
    let own = certificate(&folder.path().join("own.pem"), false);
    let id = "spiffe://acme.example/agent/two";
    for arguments in [
        &["--spiffe-id", id][..],
        &["--certificate", &own],
        &["--authority", &authority, "--dns", "two.acme.example"],
    ] {
        let all = [&["client", "add", "two", "--tenant", "acme", "-o", "json"], arguments].concat();
        let added = run(&all).expect(0).json();
        assert!(added["private_key_file"].is_null() && added["secret"].is_null(), "{added}");
        let snippet = added["configuration"].as_str().unwrap().strip_prefix("clients:\n").unwrap();
        let (_folder, config) = with_tls(&format!("clients:\n{snippet}"));
        lint(&config).expect(0);
        let two_ways =
            snippet.replace("    subject_audiences", "    secret_sha256: AAAA\n    subject_audiences");
        let (_folder, config) = with_tls(&format!("allow_client_secrets: true\nclients:\n{two_ways}"));
        assert!(lint(&config).expect(5).stdout.contains("authenticates in no other way"));
    }
    run(&["client", "add", "two", "--spiffe-id", "spiffe://Acme.example/a"]).expect(2);
    run(&["client", "add", "two", "--authority", &authority]).expect(2);
    run(&["client", "add", "two", "--certificate", "/nowhere.pem"]).expect(1);
}

#[test]
fn what_a_client_cannot_show_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = certificate(&folder.path().join("ca.pem"), true);
    let own = certificate(&folder.path().join("own.pem"), false);
    let client = |proof: &str| format!("clients:\n  - id: two\n    tenant: acme\n{proof}");
    let tls =
        |names: &str| client(&format!("    tls_client_auth: {{ authority_file: {authority}, {names} }}\n"));
    for (clients, part) in [
        (client(""), "give jwks_file"),
        (client("    spiffe_id: spiffe://elsewhere.example/a\n"), "neither ours nor in spiffe.federation"),
        (client("    spiffe_id: spiffe://acme.example/deputize/x\n"), "the broker's own"),
        (client("    spiffe_id: spiffe://acme.example\n"), "give one like spiffe://"),
        (client("    spiffe_id: spiffe://acme.example/a\n    actor: b\n"), "leave actor out"),
        (client("    spiffe_id: spiffe://acme.example/agent/support-bot\n"), "is a name of client"),
        (
            client(&format!("    spiffe_id: spiffe://acme.example/a\n    certificate_file: {own}\n")),
            "give one of",
        ),
        (tls("dns: a, uri: b"), "exactly one of"),
        (tls("ip: a"), "no IP address"),
        (tls("subject_dn: a"), "CN=agent"),
        (client(&format!("    tls_client_auth: {{ authority_file: {own}, dns: a }}\n")), "authority"),
        (client("    certificate_file: /nowhere.pem\n"), "/nowhere.pem"),
        (tls("uri: spiffe://acme.example/a"), "say spiffe_id instead"),
        (
            format!(
                "{}  - id: three\n    tenant: acme\n    certificate_file: {own}\n",
                client(&format!("    certificate_file: {own}\n"))
            ),
            "its certificate would be that of client",
        ),
    ] {
        let (_folder, config) = with_tls(&clients);
        let ran = lint(&config).expect(5);
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    // Where no certificate arrives, nobody can show one.
    let (_folder, config) = changed("clients:\n", &client(&format!("    certificate_file: {own}\n")));
    assert!(lint(&config).expect(5).stdout.contains("client_certificates: ask"));
    // Nor behind a proxy, though this listener has TLS: the certificate that arrives is the proxy's.
    for (clients, more, part) in [
        (client(&format!("    certificate_file: {own}\n")), "", "without behind_proxy"),
        (tls("dns: a"), "", "without behind_proxy"),
        (String::from("clients:\n"), ", client_certificates: ask", "the proxy's own"),
    ] {
        let (_folder, config) = changed("clients:\n", &clients);
        let text = std::fs::read_to_string(&config).unwrap();
        let listen =
            format!("  behind_proxy: true\n  tls: {{ certificate_file: tls.crt, key_file: tls.key{more} }}");
        std::fs::write(&config, text.replacen("  behind_proxy: true", &listen, 1)).unwrap();
        let ran = lint(&config).expect(5);
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
}

/// The example with these clients besides, and with a listener that ends TLS itself.
fn with_tls(clients: &str) -> (TempDir, String) {
    let (folder, config) = changed("clients:\n", clients);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("  behind_proxy: true"), "{text}");
    let tls = "  tls: { certificate_file: tls.crt, key_file: tls.key }";
    std::fs::write(&config, text.replacen("  behind_proxy: true", tls, 1)).unwrap();
    (folder, config)
}

/// Writes a certificate, of an authority or of somebody else; where it is.
fn certificate(file: &Path, is_authority: bool) -> String {
    let mut parameters = rcgen::CertificateParams::default();
    if is_authority {
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let made = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(file, made.pem()).unwrap();
    file.to_str().unwrap().to_owned()
}
