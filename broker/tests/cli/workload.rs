//! The Workload API of a running `serve`: entries, SVIDs, and what every command says of them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

use crate::broker::{Broker, SPIFFE, own_uid};

#[test]
fn an_entry_that_is_made_reaches_an_open_stream_and_one_that_is_deleted_ends_it() {
    let broker = Broker::start(SPIFFE);
    let nothing = broker.run(&["svid", "fetch"]).expect(3);
    assert!(nothing.stderr.contains("--explain"), "{nothing:?}");

    let made = broker.create("first", "spiffe://example.org/first", &own_uid());
    assert!(made.stdout.contains("spiffe://example.org/first"), "{made:?}");
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/first"]);
    broker.create("second", "spiffe://example.org/second", &own_uid());
    assert_eq!(watch.ids(), ["spiffe://example.org/first", "spiffe://example.org/second"]);
    // One that is for others changes nothing here: the next message is that of the deletion.
    broker.create("others", "spiffe://example.org/others", "unix:uid:4294967290");
    broker.run(&["entry", "delete", "first"]).expect(0);
    assert_eq!(watch.ids(), ["spiffe://example.org/second"]);
    broker.run(&["entry", "delete", "second"]).expect(0);
    let said = watch.end();
    assert_eq!(said.0, 3, "{said:?}");
    assert!(said.1.contains("PermissionDenied"), "{said:?}");
    broker.run(&["svid", "fetch"]).expect(3);

    let kinds = broker.run(&["audit", "query", "--kind", "registration", "-o", "json"]).expect(0).lines();
    let kinds: Vec<_> = kinds
        .iter()
        .map(|record| {
            let entry = &record["entry"];
            (entry["result"].as_str().unwrap(), entry["registration"]["id"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("created", "first"),
        ("created", "second"),
        ("created", "others"),
        ("deleted", "first"),
        ("deleted", "second"),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn an_svid_is_fetched_written_explained_and_on_record() {
    let broker = Broker::start(SPIFFE);
    broker.create("agent", "spiffe://example.org/agent", &own_uid());
    let files = broker.folder.path().join("written");
    let written =
        broker.run(&["svid", "fetch", "--write", files.to_str().unwrap(), "-o", "json"]).expect(0).json();
    assert_eq!(written["svids"][0]["spiffe_id"], "spiffe://example.org/agent");
    let mode = |name: &str| std::fs::metadata(files.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("svid.pem"), mode("key.pem"), mode("bundle.pem")), (0o644, 0o600, 0o644));
    let text = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
    assert!(text("svid.pem").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(text("key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let key = text("key.pem").lines().nth(1).unwrap().to_owned();
    assert!(
        !broker.run(&["svid", "fetch", "-o", "json"]).expect(0).stdout.contains(&key),
        "keys are not printed"
    );

    let jwt = ["svid", "fetch", "--audience", "https://crm.example", "-o", "json"];
    let jwt = broker.run(&jwt).expect(0).json();
    let token = jwt[0]["token"].as_str().unwrap();
    let part = |at: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "ES256");
    assert_eq!(part(1)["sub"], "spiffe://example.org/agent");
    assert_eq!(part(1)["iss"], "https://broker.example/spiffe");
    broker.run(&["svid", "fetch", "--audience", "sts.amazonaws.com"]).expect(2);
    broker.run(&["svid", "fetch", "--spiffe-id", "spiffe://example.org/other"]).expect(3);

    let keys = broker.get("/spiffe/jwks");
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == part(0)["kid"]), "{keys}");
    assert_eq!(
        broker.get("/spiffe/.well-known/openid-configuration")["issuer"],
        "https://broker.example/spiffe"
    );
    let bundle = broker.get("/spiffe/bundle");
    let uses: Vec<_> =
        bundle["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);

    let records = broker.run(&["audit", "query", "--kind", "intent", "-o", "json"]).expect(0).lines();
    let of_jwt = records.iter().find(|record| record["entry"]["spiffe"]["svid"] == "jwt").unwrap();
    assert_eq!(of_jwt["entry"]["spiffe"]["audiences"][0], "https://crm.example");
    let decision = of_jwt["entry"]["decision"].as_str().unwrap();
    let story = broker.run(&["explain", decision]).expect(0).stdout;
    for part in ["✔ granted", "JWT-SVID", "spiffe://example.org/agent", "https://crm.example", "by entry"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    let lines = broker.run(&["audit", "query", "--kind", "intent"]).expect(0).stdout;
    assert!(lines.contains("svid=X.509-SVID entry=agent spiffe_id=spiffe://example.org/agent"), "{lines}");
}

#[test]
fn it_is_explained_what_an_entry_lacks_of_a_process() {
    let broker = Broker::start(SPIFFE);
    broker.create("elsewhere", "spiffe://example.org/elsewhere", "unix:path:/nowhere");
    let pid = std::process::id().to_string();
    let explained = ["svid", "fetch", "--explain", "--pid", &pid];
    let why = broker.run(&explained).expect(3).stdout;
    assert!(why.contains("✖ elsewhere") && why.contains("the process is not unix:path:/nowhere"), "{why}");
    assert!(why.contains(&format!("is {}", own_uid())), "{why}");
    // Whoever is refused is told what an operator can ask about.
    let refused = broker.run(&["svid", "fetch"]).expect(3).stderr;
    let (_, rest) = refused.split_once("`deputize explain ").unwrap();
    let (id, _) = rest.split_once('`').unwrap();
    let story = broker.run(&["explain", id]).expect(0).stdout;
    for part in ["✖ denied", "no_entry", "asked by", &own_uid()] {
        assert!(story.contains(part), "{part}: {story}");
    }
    broker.run(&["doctor", "--workload-api", "--pid", &pid]).expect(1);
    broker.create("here", "spiffe://example.org/here", &own_uid());
    assert!(broker.run(&explained).expect(0).stdout.contains("✔ here"));
    let well = broker.run(&["doctor", "--workload-api"]).expect(0).stdout;
    assert!(well.contains("spiffe://example.org/here"), "{well}");
    broker.run(&["svid", "fetch", "--explain", "--pid", "2000000000"]).expect(1);
}

#[test]
fn administration_lets_nobody_exchange_and_says_where_that_is_said() {
    let mut broker = Broker::start(SPIFFE);
    let exchange = "{ tenant: acme, subject_audiences: [desk-app], may_call: [{ resource: '*' }] }";
    let entry = format!(
        "id: desk\nspiffe_id: spiffe://example.org/desk\nselectors: ['{}']\nexchange: {exchange}\n",
        own_uid()
    );
    broker.write("desk.yaml", &entry);
    let file = broker.config().with_file_name("desk.yaml");
    let refused = broker.run(&["entry", "create", "--file", file.to_str().unwrap()]).expect(1).stderr;
    assert!(refused.contains("write the entry into a file of spiffe.entries"), "{refused}");
    broker.run(&["svid", "fetch"]).expect(3);
    broker.write("entries/desk.yaml", &entry);
    broker.restart();
    broker.run(&["svid", "fetch"]).expect(0);
}

#[test]
fn entries_of_files_and_of_administration_live_side_by_side_and_outlive_a_restart() {
    let mut broker = Broker::start(SPIFFE);
    let of_file =
        |id: &str| format!("id: {id}\nspiffe_id: spiffe://example.org/{id}\nselectors: ['{}']\n", own_uid());
    broker.write("entries/a.yaml", &of_file("of-file"));
    broker.create("made", "spiffe://example.org/made", &own_uid());
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/made"]);
    broker.signal(Signal::HUP);
    assert_eq!(watch.ids(), ["spiffe://example.org/made", "spiffe://example.org/of-file"]);

    let listed = broker.run(&["entry", "ls"]).expect(0).stdout;
    assert!(listed.contains("administration") && listed.contains("a.yaml"), "{listed}");
    let refused = broker.run(&["entry", "delete", "of-file"]).expect(3);
    assert!(refused.stderr.contains("a.yaml"), "{refused:?}");
    let taken = broker.run(&[
        "entry",
        "create",
        "--id",
        "of-file",
        "--spiffe-id",
        "spiffe://example.org/x",
        "--selector",
        "unix:uid:1",
    ]);
    assert!(taken.expect(1).stderr.contains("a.yaml has an entry of this id already"));
    broker.run(&["entry", "show", "of-file"]).expect(0);
    broker.run(&["entry", "show", "nothing"]).expect(1);
    broker.run(&["entry", "delete", "nothing"]).expect(1);

    broker.restart();
    drop(watch);
    let ids: Vec<Value> =
        broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().clone();
    let ids: Vec<_> = ids.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["made", "of-file"]);
    broker.run(&["entry", "delete", "made"]).expect(0);
    broker.restart();
    assert_eq!(broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn an_entry_that_was_deleted_under_a_files_does_not_come_back_with_a_reload() {
    let broker = Broker::start(SPIFFE);
    let text = format!("id: both\nspiffe_id: spiffe://example.org/file\nselectors: ['{}']\n", own_uid());
    broker.create("both", "spiffe://example.org/made", &own_uid());
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/made"]);
    broker.write("entries/a.yaml", &text);
    broker.signal(Signal::HUP);
    assert_eq!(watch.ids(), ["spiffe://example.org/file"]);

    let listed = broker.run(&["entry", "ls"]).expect(0).stdout;
    let hidden = listed.lines().find(|line| line.contains("spiffe://example.org/made")).unwrap();
    assert!(hidden.contains("does not hold") && hidden.contains("a.yaml"), "{listed}");
    let listed = broker.run(&["entry", "ls", "-o", "json"]).expect(0).json();
    assert_eq!(listed[0]["shadows"]["spiffe_id"], "spiffe://example.org/made");
    assert!(broker.run(&["entry", "show", "both"]).expect(0).stdout.contains("spiffe://example.org/made"));

    let deleted = broker.run(&["entry", "delete", "both"]).expect(0).stdout;
    assert!(deleted.contains("a.yaml still holds"), "{deleted}");
    let records = broker.run(&["audit", "query", "--kind", "registration", "-o", "json"]).expect(0).lines();
    let last = &records.last().unwrap()["entry"];
    assert_eq!(
        (&last["result"], &last["registration"]["spiffe_id"]),
        (&"deleted".into(), &"spiffe://example.org/made".into())
    );
    broker.run(&["entry", "delete", "both"]).expect(3);
    broker.run(&["svid", "fetch"]).expect(0);

    std::fs::remove_file(broker.folder.path().join("entries/a.yaml")).unwrap();
    broker.signal(Signal::HUP);
    assert_eq!(watch.end().0, 3, "nothing is left");
    broker.run(&["entry", "delete", "both"]).expect(1);
}

#[test]
fn what_cannot_be_an_entry_is_refused_and_says_why() {
    let broker = Broker::start(SPIFFE);
    for (id, selector, said) in [
        ("spiffe://elsewhere.example/a", "unix:uid:1", "not in our trust domain"),
        ("spiffe://example.org", "unix:uid:1", "it has a path"),
        ("spiffe://example.org/deputize/node/a", "unix:uid:1", "those of the broker"),
        ("spiffe://example.org/%2e", "unix:uid:1", "spiffe_id"),
        ("spiffe://example.org/a", "uid", "selector"),
        ("spiffe://example.org/u/{unix:user}", "k8s:ns:a", "no template"),
    ] {
        let refused = broker.run(&["entry", "create", "--spiffe-id", id, "--selector", selector]).expect(1);
        assert!(refused.stderr.contains(said), "{id}: {refused:?}");
    }
    broker.run(&["entry", "create", "--spiffe-id", "spiffe://example.org/a"]).expect(2);
    assert_eq!(broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().len(), 0);
}

#[test]
fn without_spiffe_there_is_none_of_it() {
    let broker = Broker::start("");
    broker.run(&["entry", "ls"]).expect(5);
    broker.run(&["svid", "fetch"]).expect(5);
    assert_eq!(broker.get("/spiffe/bundle")["error"], "not_found");
    let gone = broker.folder.path().join("nothing.sock");
    broker.run(&["svid", "fetch", "--socket", gone.to_str().unwrap()]).expect(6);
    broker.run(&["svid", "fetch", "--socket", "tcp://127.0.0.1:1"]).expect(2);
}

#[test]
fn as_many_files_as_the_system_allows_may_be_open() {
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -S -n 128 && exec \"$0\" serve \"$@\"", env!("CARGO_BIN_EXE_deputize")]);
    limited.current_dir(std::env::temp_dir()).env_remove("DEPUTIZE_CONFIG");
    let broker = Broker::start_as(SPIFFE, limited);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, _] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard);
    let raised: Vec<_> =
        broker.said.iter().filter(|line| line.contains("limit of open files raised")).collect();
    assert!(matches!(raised[..], [line] if line.contains("\"INFO\"") && line.contains("128")), "{raised:?}");
    // Once it is as high as it can be there is nothing to tell.
    let plenty = "ulimit -S -n \"$(ulimit -H -n)\" && exec \"$0\" serve \"$@\"";
    let mut unlimited = std::process::Command::new("sh");
    unlimited.args(["-c", plenty, env!("CARGO_BIN_EXE_deputize")]).env_remove("DEPUTIZE_CONFIG");
    let broker = Broker::start_as(SPIFFE, unlimited);
    assert!(!broker.said.iter().any(|line| line.contains("limit of open files raised")), "{:?}", broker.said);
}
