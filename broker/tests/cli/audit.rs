//! `deputize audit`.

use deputize_issuer::{
    record::{AwsKey, Entry, Kind},
    revocation::Revoked,
};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};

use crate::program::{
    AT_MS, Data, Ran, command, decision, denial, intent, jwt_svid, outcome, redemption, registration,
    revocation, role_session, run, svid_denial, x509_svid,
};

fn data() -> Data {
    Data::with(&[
        intent(1),
        outcome(1, 0),
        redemption(1),
        denial(2, "policy"),
        revocation(Revoked::Transaction("txn-1".to_owned())),
    ])
}

#[test]
fn a_sound_log_verifies_with_its_anchor() {
    let data = data();
    let anchor = data.anchor();
    let ran =
        run(&["audit", "verify", "--data", data.path(), "--anchor", anchor.to_str().unwrap(), "-o", "json"])
            .expect(0);
    let verdict = ran.json();
    assert_eq!(verdict["verified"], true);
    assert_eq!(verdict["records"], 5);
    assert_eq!(verdict["signed_records"], 5);
    assert_eq!(verdict["anchored_records"], 5);
    assert_eq!(verdict["key"], data.verifier_key);
    let text = run(&["audit", "verify", "--data", data.path()]).expect(0).stdout;
    assert!(text.contains("✔ 5 records") && text.contains("configure audit.anchor"), "{text}");
}

#[test]
fn a_changed_byte_is_found_and_its_record_named() {
    let data = data();
    let segment = data.only_segment();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(14).position(|window| window == b"delete_account").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let ran = run(&["audit", "verify", "--data", data.path()]).expect(1);
    assert!(ran.stdout.contains("record 3:"), "{ran:?}");
    let verdict = run(&["audit", "verify", "--data", data.path(), "-o", "json"]);
    assert_eq!(verdict.code, 1);
    assert_eq!(verdict.json()["verified"], false);
    assert_eq!(verdict.json()["findings"][0]["record"], 3);
    // Nor does a reader that went away turn the verdict.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = command(&["audit", "verify", "--data", data.path()]).stdout(writer).status().unwrap();
    assert_eq!(unread.code(), Some(1));
    // A record that cannot be read is not skipped silently elsewhere either.
    run(&["audit", "query", "--data", data.path()]).expect(1);
}

#[test]
fn a_rolled_back_folder_is_found_by_the_anchor_alone() {
    let (old, new) = (data(), data());
    let anchor = new.anchor();
    // Another log's anchor is as wrong as one that is ahead.
    let ran = run(&["audit", "verify", "--data", old.path(), "--anchor", anchor.to_str().unwrap()]).expect(1);
    assert!(ran.stdout.contains("anchor-elsewhere"), "{ran:?}");
}

#[test]
fn without_the_key_nothing_is_called_signed() {
    let data = data();
    std::fs::remove_file(data.folder.path().join("keys/checkpoint.p8")).unwrap();
    run(&["audit", "verify", "--data", data.path()]).expect(1);
    run(&["audit", "verify", "--data", data.path(), "--key", &data.verifier_key]).expect(0);
    run(&["audit", "verify", "--data", data.path(), "--key", "nonsense"]).expect(2);
    let ran = run(&["audit", "verify", "--data", data.path(), "--without-signatures"]).expect(0);
    assert!(ran.stdout.contains("not checked"), "{ran:?}");
}

#[test]
fn a_proof_convinces_who_has_only_the_verifier_key() {
    let data = data();
    let proof = run(&["audit", "prove", "3", "--data", data.path()]).expect(0).stdout;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("proof.json");
    let verify = |text: &str, key: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["audit", "verify", "--proof", file.to_str().unwrap(), "--key", key])
    };
    let ran = verify(&proof, &data.verifier_key).expect(0);
    assert!(
        ran.stdout.contains("record 3 is in the log") && ran.stdout.contains("delete_account"),
        "{ran:?}"
    );
    // The neighbours: another index, another record, another key, no key at all.
    verify(&proof.replace("\"index\": 3", "\"index\": 2"), &data.verifier_key).expect(1);
    let other = run(&["audit", "prove", "2", "--data", data.path()]).json()["entry"].clone();
    let mut changed: serde_json::Value = serde_json::from_str(&proof).unwrap();
    changed["entry"] = other;
    verify(&changed.to_string(), &data.verifier_key).expect(1);
    verify(&proof, &Data::with(&[intent(1)]).verifier_key).expect(1);
    let ran = run(&["audit", "verify", "--proof", file.to_str().unwrap()]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains(&data.verifier_key), "{ran:?}");
    run(&["audit", "prove", "5", "--data", data.path()]).expect(2);
}

#[test]
fn queries_find_what_fits_and_nothing_else() {
    let data = data();
    let found = |conditions: &[&str]| -> Vec<u64> {
        let arguments = [&["audit", "query", "--data", data.path(), "-o", "json"], conditions].concat();
        run(&arguments).expect(0).lines().iter().map(|record| record["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(found(&[]), [0, 1, 2, 3, 4]);
    assert_eq!(found(&["--txn", "txn-1"]), [0, 2, 4]);
    assert_eq!(found(&["--decision", &decision(1).to_string()]), [0, 1]);
    assert_eq!(found(&["--kind", "denial"]), [3]);
    assert_eq!(found(&["--client", "support-bot", "--tool", "refund_payment"]), [0]);
    assert_eq!(found(&["--server", "https://crm.example/*"]), [0, 3]);
    assert_eq!(found(&["--sub", "user:acme:*"]), [0]);
    assert_eq!(found(&["--since", "2026-11-21T09:30:00.003Z"]), [2, 4]);
    assert_eq!(found(&["--until", "2026-11-21T09:30:00.002Z"]), [0, 1]);
    assert_eq!(found(&["--limit", "2"]), [0, 1]);
    run(&["audit", "query", "--data", data.path(), "--since", "yesterday"]).expect(2);
    run(&["audit", "query", "--data", data.path(), "--kind", "gossip"]).expect(2);
}

#[test]
fn svids_and_entries_are_found_by_identity_and_say_what_names_them() {
    let mut other = registration(5, "created");
    let draft = other.registration.as_mut().unwrap();
    (draft.id, draft.spiffe_id) = ("other".to_owned(), "spiffe://example.org/supporters".to_owned());
    let records = [
        registration(1, "created"),
        x509_svid(2),
        jwt_svid(3),
        svid_denial(4),
        other,
        registration(6, "deleted"),
    ];
    let data = Data::with(&records);
    let found = |conditions: &[&str]| -> Vec<u64> {
        let arguments = [&["audit", "query", "--data", data.path(), "-o", "json"], conditions].concat();
        run(&arguments).expect(0).lines().iter().map(|record| record["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(found(&["--spiffe-id", "spiffe://example.org/support"]), [0, 1, 2, 5]);
    assert_eq!(found(&["--spiffe-id", "spiffe://example.org/support*"]), [0, 1, 2, 4, 5]);
    assert!(found(&["--spiffe-id", "spiffe://example.org/sup"]).is_empty());
    assert_eq!(found(&["--spiffe-id", "spiffe://example.org/support", "--kind", "intent"]), [1, 2]);
    assert_eq!(found(&["--entry", "support"]), [0, 1, 2, 5]);
    assert_eq!(found(&["--entry", "other"]), [4]);

    let lines = run(&["audit", "query", "--data", data.path()]).expect(0).stdout;
    let lines: Vec<&str> = lines.lines().collect();
    for (index, parts) in [
        (
            0,
            &["result=created", "entry=support", "selector=unix:uid:1000 selector=unix:path:/usr/bin/agent"]
                [..],
        ),
        (
            1,
            &[
                "svid=X.509-SVID entry=support spiffe_id=spiffe://example.org/support serial=5e41a1 until=2026-",
            ],
        ),
        (2, &["jti=svid-jti-3", "svid=JWT-SVID", "aud=https://db.example"]),
        (
            3,
            &[
                "reason=no_entry",
                "asked_by=unix:uid:1001 asked_by=unix:path:/usr/bin/agent",
                "node=spiffe://",
            ],
        ),
    ] {
        for part in parts {
            assert!(lines[index].contains(part), "{part}: {}", lines[index]);
        }
    }
}

/// Sessions 2 and 4, which were made for calls 1 and 3.
fn two_sessions() -> Data {
    let other = [intent(3), role_session(4, 3), outcome(4, 4)];
    Data::with(&[&[intent(1), role_session(2, 1), outcome(2, 1)][..], &other].concat())
}

fn told(data: &Data, trail: &Value, form: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trail.json");
    std::fs::write(&file, trail.to_string()).unwrap();
    run(&["audit", "query", "--data", data.path(), "--cloudtrail", file.to_str().unwrap(), "-o", form])
}

/// How this session began, as CloudTrail has it.
fn taken(number: u128, id: &str) -> Value {
    json!({
        "eventTime": "2026-11-21T09:30:01Z", "eventSource": "sts.amazonaws.com",
        "eventName": "AssumeRoleWithWebIdentity", "eventID": id,
        "userIdentity": { "type": "WebIdentityUser", "userName": "template:acme:restart-instance" },
        "requestParameters": { "roleSessionName": decision(number).to_string() },
        "responseElements": { "assumedRoleUser": { "arn": arn(number) }, "sourceIdentity": "alice" }
    })
}

/// An event of CloudTrail of this session, allowed within its window.
fn event(number: u128) -> Value {
    json!({
        "eventTime": "2026-11-21T09:30:05Z", "eventSource": "ec2.amazonaws.com", "eventName": "RebootInstances",
        "eventID": "e-1", "requestParameters": { "instancesSet": { "items": [{ "instanceId": "i-1" }] } },
        "userIdentity": {
            "type": "AssumedRole", "arn": arn(number), "sessionContext": { "sourceIdentity": "alice" }
        }
    })
}

fn arn(number: u128) -> String {
    format!("arn:aws:sts::111122223333:assumed-role/restart-instance/{}", decision(number))
}

#[test]
fn an_aws_session_leads_back_to_its_call() {
    let others = [intent(3), role_session(4, 3), outcome(4, 4)];
    let data =
        Data::with(&[&[intent(1), redemption(1), role_session(2, 1), outcome(2, 2)][..], &others].concat());
    let (name, arn) = (decision(2).to_string(), arn(2));
    for given in [&name, &arn] {
        let told = run(&["audit", "query", "--data", data.path(), "--aws-session", given, "-o", "json"]);
        let story = told.expect(0).json();
        assert_eq!(story["session"], name);
        assert_eq!(
            (&story["user"], &story["taken_by"]),
            (&json!("user:acme:idp:alice"), &json!("ops-guard"))
        );
        assert_eq!((&story["intent"]["index"], &story["outcome"]["what"]), (&json!(2), &json!("minted")));
        assert_eq!((&story["call"]["index"], &story["call"]["tool"]), (&json!(0), &json!("refund_payment")));
        assert_eq!(story["call"]["decision"], decision(1).to_string());
        assert_eq!(story["call"]["actors"], json!(["spiffe://acme.example/agent/support"]));
        assert_eq!(story["call"]["policies"], json!(["support.refund"]));
        assert_eq!((&story["redeemed"]["index"], &story["doubts"]), (&json!(1), &json!([])));
    }
    let text = run(&["audit", "query", "--data", data.path(), "--aws-session", &arn]).expect(0).stdout;
    for part in
        ["✔ AWS session", "alice, vouched for by", "refund_payment on", "as alice, by template", "minted at"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ask = |given: &str| run(&["audit", "query", "--data", data.path(), "--aws-session", given]);
    // Of nobody; a decision that made no session; none of ours; no session at all.
    ask(&decision(9).to_string()).expect(1);
    ask(&decision(1).to_string()).expect(1);
    ask("arn:aws:sts::111122223333:assumed-role/restart-instance/botocore-session-17").expect(2);
    ask("restart-instance").expect(2);
    // Another role, and another account, than it was made for.
    for other in [arn.replace("/restart", "/stop"), arn.replace("1111", "9999")] {
        let told = ask(&other).expect(1).stdout;
        assert!(told.contains("‼ AWS session") && told.contains("doubt"), "{told}");
    }
    run(&["audit", "query", "--data", data.path(), "--aws-session", &arn, "--tool", "x"]).expect(2);
}

#[test]
fn cloudtrail_is_held_against_the_log() {
    let data = two_sessions();
    let told = |trail: &Value, code: i32| told(&data, trail, "json").expect(code);
    let story = told(&event(2), 0).json();
    assert_eq!(story["cloudtrail"][0]["action"], "ec2:RebootInstances");
    assert_eq!(story["call"]["decision"], decision(1).to_string());
    let root = json!({ "eventName": "ConsoleLogin", "userIdentity": { "type": "Root" } });
    let many = told(&json!({ "Records": [event(2), root, event(4), event(2)] }), 0).lines();
    assert_eq!(many.len(), 2);
    assert_eq!(
        (many[0]["cloudtrail"].as_array().unwrap().len(), &many[1]["session"]),
        (2, &json!(decision(4)))
    );

    let changed = |pointer: &str, value: Value| {
        let mut event = event(2);
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    for (event, doubt) in [
        (changed("/userIdentity/sessionContext/sourceIdentity", json!("mallory")), "another source identity"),
        (changed("/eventTime", json!("2026-11-21T09:35:01Z")), "after the window"),
        (changed("/userIdentity/arn", json!(arn(2).replace("/restart", "/stop"))), "not the role"),
        (changed("/userIdentity/sessionContext", json!({})), "without a source identity"),
        (changed("/eventTime", json!("2026-11-21T09:28:59Z")), "before the session was on record"),
    ] {
        let story = told(&event, 1).json();
        assert!(story["doubts"][0].as_str().unwrap().contains(doubt), "{story}");
    }
    let mut late = changed("/eventTime", json!("2026-11-21T09:35:01Z"));
    late["errorCode"] = json!("Client.UnauthorizedOperation");
    assert_eq!(told(&late, 0).json()["doubts"], json!([]), "refused, as it should be");
    let early = changed("/eventTime", json!("2026-11-21T09:29:00Z"));
    assert_eq!(told(&early, 0).json()["doubts"], json!([]), "clocks may be a minute apart");
    told(&event(9), 1);
    told(&root, 1);
    told(&json!({ "no": "event" }), 2);
}

#[test]
fn a_session_begins_once_and_for_whom_it_was_asked() {
    let data = two_sessions();
    let told = |events: &[Value], code: i32| {
        told(&data, &json!({ "Records": events }), "json").expect(code).json()["doubts"].clone()
    };
    let asked = {
        let mut taken = taken(2, "e-0");
        taken["responseElements"].as_object_mut().unwrap().remove("sourceIdentity");
        taken["requestParameters"]["sourceIdentity"] = json!("alice");
        taken
    };
    // CloudTrail may deliver an event twice.
    assert_eq!(told(&[taken(2, "e-0"), event(2), taken(2, "e-0")], 0), json!([]));
    assert_eq!(told(std::slice::from_ref(&asked), 0), json!([]), "as `AssumeRole` has it");
    let doubts = told(&[taken(2, "e-0"), event(2), taken(2, "e-2")], 1);
    assert!(doubts[0].as_str().unwrap().contains("taken 2 times"), "{doubts}");
    let mut nobodys = asked;
    nobodys["requestParameters"].as_object_mut().unwrap().remove("sourceIdentity");
    // That of whoever took the role is not that of the session.
    nobodys["userIdentity"]["sessionContext"] = json!({ "sourceIdentity": "alice" });
    let doubts = told(&[nobodys], 1);
    assert!(doubts[0].as_str().unwrap().contains("without a source identity"), "{doubts}");
}

#[test]
fn a_session_is_known_by_its_access_key() {
    let own = "ASIAOWNOWNOWNOWNOWN1";
    let made = |attempts: u32| {
        let key = AwsKey { access_key_id: own.to_owned(), attempts };
        Data::with(&[intent(1), role_session(2, 1), Entry { aws_key: Some(key), ..outcome(2, 1) }])
    };
    let with = |mut event: Value, pointer: &str, key: &str| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        if event.pointer(parent).is_none() {
            event["responseElements"]["credentials"] = json!({});
        }
        event.pointer_mut(parent).unwrap()[name] = json!(key);
        event
    };
    let acted = |key: &str| with(event(2), "/userIdentity/accessKeyId", key);
    let taken = |id: &str, key: &str| with(taken(2, id), "/responseElements/credentials/accessKeyId", key);
    let (other, late) = ("ASIAOTHEROTHEROTHER1", "ASIALATELATELATELATE");
    for (what, attempts, events, doubt) in [
        ("its own", 1, vec![taken("e-0", own), acted(own)], None),
        ("an event that says none", 1, vec![event(2)], None),
        ("another", 1, vec![taken("e-0", own), acted(other)], Some("another access key")),
        ("another from the beginning", 1, vec![taken("e-0", other)], Some("another access key")),
        ("a second one", 1, vec![taken("e-0", own), taken("e-2", late)], Some("taken 2 times")),
        ("one that was answered too late", 2, vec![taken("e-0", late), taken("e-2", own), acted(own)], None),
        (
            "that one, used",
            2,
            vec![taken("e-0", late), taken("e-2", own), acted(late)],
            Some("another access key"),
        ),
        (
            "one more than was asked for",
            2,
            vec![taken("e-0", late), taken("e-2", own), taken("e-4", other)],
            Some("taken 3 times"),
        ),
    ] {
        let ran = told(&made(attempts), &json!({ "Records": events }), "json");
        let story = ran.expect(i32::from(doubt.is_some())).json();
        let doubts = story["doubts"].to_string();
        assert!(doubt.map_or(doubts == "[]", |doubt| doubts.contains(doubt)), "{what}: {doubts}");
        assert_eq!(story["aws_key"], json!({ "access_key_id": own, "attempts": attempts }), "{what}");
    }
}

#[test]
fn what_sts_answered_too_late_is_no_doubt_until_it_is_used() {
    for (result, reason, is_good) in [
        ("failed", Some("sts_timeout"), true),
        ("failed", Some("sts_unreachable"), true),
        ("abandoned", None, true),
        ("failed", Some("sts_access_denied"), false),
    ] {
        let reason = reason.map(str::to_owned);
        let last = Entry { result: Some(result.to_owned()), reason, ..outcome(2, 1) };
        let data = Data::with(&[intent(1), role_session(2, 1), last]);
        let told = |events: &[Value]| told(&data, &json!({ "Records": events }), "json");
        told(&[taken(2, "e-0"), taken(2, "e-2")]).expect(i32::from(!is_good));
        told(&[taken(2, "e-0"), event(2)]).expect(1);
        told(&[taken(2, "e-0"), taken(2, "e-2"), taken(2, "e-4")]).expect(1);
    }
}

#[test]
fn who_got_a_session_again_is_told() {
    let again = |times: u64| Entry {
        decision: Some(decision(2)),
        client: Some("ops-guard".to_owned()),
        jti: Some("token-1".to_owned()),
        count: Some(times),
        ..Entry::new(Kind::HandedOut, AT_MS + 20 + times)
    };
    let data = Data::with(&[intent(1), role_session(2, 1), outcome(2, 1), again(1), again(16)]);
    let id = decision(2).to_string();
    for arguments in [&["audit", "query", "--aws-session", &id][..], &["explain", &id]] {
        let told = run(&[arguments, &["--data", data.path()]].concat()).expect(0).stdout;
        assert!(told.contains("to ops-guard, 1 times by then"), "{told}");
        assert!(told.contains("to ops-guard, 16 times by then"), "{told}");
    }
    let lines = run(&["audit", "query", "--kind", "handed_out", "--data", data.path()]).expect(0).stdout;
    assert!(
        lines.lines().count() == 2 && lines.contains("count=16") && lines.contains("jti=token-1"),
        "{lines}"
    );
}

#[test]
fn a_session_that_was_not_made_does_nothing() {
    let failed = |result: &str| Entry { result: Some(result.to_owned()), ..outcome(2, 1) };
    for (last, words) in [
        (Some(failed("failed")), "made: failed"),
        (Some(failed("abandoned")), "made: abandoned"),
        (None, "made: no outcome"),
    ] {
        let mut entries = vec![intent(1), role_session(2, 1)];
        entries.extend(last);
        let data = Data::with(&entries);
        let doubts = told(&data, &event(2), "json").expect(1).json()["doubts"].clone();
        assert!(doubts[0].as_str().unwrap().contains(words), "{doubts}");
        // Nothing that it did is known: no doubt of CloudTrail.
        let id = decision(2).to_string();
        run(&["audit", "query", "--data", data.path(), "--aws-session", &id]).expect(0);
    }
}

#[test]
fn what_is_not_shown_of_a_session_is_compared_all_the_same() {
    let data = two_sessions();
    let mut events = vec![event(2); 120];
    let good = told(&data, &json!({ "Records": &events }), "table").expect(0).stdout;
    assert!(good.contains("✔ AWS session") && good.contains("and 20 more events"), "{good}");
    events[110]["userIdentity"]["sessionContext"]["sourceIdentity"] = json!("mallory");
    let story = told(&data, &json!({ "Records": &events }), "json").expect(1).json();
    assert_eq!(story["cloudtrail"].as_array().unwrap().len(), 100);
    assert_eq!((&story["cloudtrail_more"], story["doubts"].as_array().unwrap().len()), (&json!(20), 1));
    // Nor do many doubts flood the reader.
    for event in &mut events {
        event["userIdentity"]["sessionContext"]["sourceIdentity"] = json!("mallory");
    }
    let story = told(&data, &json!({ "Records": events }), "json").expect(1).json();
    assert_eq!(story["doubts"][100], "and 20 more doubts");
}

#[test]
fn the_tail_shows_the_newest_and_follows() {
    let data = data();
    let ran = run(&["audit", "tail", "-n", "2", "--data", data.path()]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 2);
    assert!(ran.stdout.lines().next().unwrap().contains("denial"), "{ran:?}");
    let mut child = command(&["audit", "tail", "-n", "1", "--follow", "--data", data.path()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("revocation"));
    data.append_more(&[denial(7, "level_too_low")]);
    assert!(lines.next().unwrap().unwrap().contains("level_too_low"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_that_a_client_chose_steers_the_terminal() {
    let mut hostile = denial(1, "policy");
    hostile.tool = Some("x\u{1b}]0;owned\u{7}\u{202e}y\r\nrecord 9 forged".to_owned());
    let data = Data::with(&[hostile]);
    let id = decision(1).to_string();
    for arguments in [&["audit", "tail"][..], &["audit", "query"], &["explain", &id]] {
        for form in ["table", "json", "yaml"] {
            let ran = run(&[arguments, &["--data", data.path(), "-o", form]].concat()).expect(0);
            let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!ran.stdout.contains(bad), "{form}: {ran:?}");
            assert!(!ran.stdout.contains("\nrecord 9"), "{form}: {ran:?}");
        }
    }
}

#[test]
fn a_folder_without_a_log_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    run(&["audit", "verify", "--data", empty.path().to_str().unwrap()]).expect(1);
    let ran = run(&["audit", "tail", "--config", "/nowhere/deputize.yaml"]).expect(5);
    assert!(ran.stderr.contains("/nowhere/deputize.yaml"), "{ran:?}");
    // Nothing was made by looking.
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
