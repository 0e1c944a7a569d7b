use super::*;
use deputize_call::{
    digest::{prompt_digest, tool_digest},
    sign::SigningAlgorithm,
};
use serde_json::json;

const NOW_MS: u64 = 1_795_000_000_000;

fn key() -> SigningKey {
    SigningKey::generate(SigningAlgorithm::ES256).unwrap()
}

fn keys(keys: &[&SigningKey]) -> KeySet {
    KeySet::new(keys.iter().map(|key| key.public().clone()).collect())
}

fn tool(name: &str, description: &str) -> Value {
    let definition = json!({ "name": name, "description": description,
        "inputSchema": { "type": "object", "properties": { "n": { "type": "number", "maximum": 2.0 } } },
        "annotations": { "readOnlyHint": true } });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": "medium", "effect": "read", "tool_digest": digest, "definition": definition })
}

fn record() -> Value {
    json!({ "id": "crm", "resource": "https://crm.example/mcp", "tenant": "acme", "version": "1", "owner": "o",
        "purpose": "p", "environment": "e", "data_class": "internal", "verifier": "guard",
        "tools": [tool("read", "Reads."), tool("write", "Writes.")] })
}

fn parsed(value: &Value) -> ServerRecord {
    serde_json::from_value(value.clone()).unwrap()
}

fn approval(value: &Value) -> Approval {
    let record = parsed(value);
    Approval {
        serial: NOW_MS,
        approved_by: "carol".to_owned(),
        reason: "reviewed".to_owned(),
        accepted_findings: vec!["F-0123456789".to_owned()],
        manifest_digest: record.digest_of_manifest().unwrap(),
        record,
    }
}

fn file(signed: &SignedApproval) -> Vec<u8> {
    serde_json::to_vec_pretty(signed).unwrap()
}

/// What comes of a record beside the file of an approval.
fn sealed(record: &Value, file: &[u8], keys: &KeySet) -> Result<Seal, String> {
    let approvals = BTreeMap::from([("crm".to_owned(), file.to_vec())]);
    match seal(&[parsed(record)], &approvals, keys, NOW_MS) {
        Ok(mut seals) => Ok(seals.remove(0)),
        Err(mut errors) => Err(errors.remove(0).problem),
    }
}

fn set(mut value: Value, pointer: &str, member: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[name] = member;
    value
}

#[test]
fn what_was_signed_is_sealed() {
    let key = key();
    let file = file(&SignedApproval::sign(&approval(&record()), &key).unwrap());
    let seal = sealed(&record(), &file, &keys(&[&key])).unwrap();
    assert_eq!((seal.id.as_str(), seal.serial, seal.approved_by.as_str()), ("crm", NOW_MS, "carol"));
    assert_eq!(seal.key, key.public().thumbprint());
    // The spelling of numbers and the order of members are YAML's and JSON's business.
    let respelled = set(record(), "/tools/0/definition/inputSchema/properties/n/maximum", json!(2));
    assert!(sealed(&respelled, &file, &keys(&[&key])).is_ok());
    // An emergency needs no approver.
    for narrower in [set(record(), "/enabled", json!(false)), set(record(), "/tools/1/enabled", json!(false))]
    {
        assert!(sealed(&narrower, &file, &keys(&[&key])).is_ok());
    }
}

#[test]
fn a_record_that_differs_in_anything_is_refused() {
    let key = key();
    let signed = file(&SignedApproval::sign(&approval(&record()), &key).unwrap());
    let changed_tool = |pointer: &str, value: Value| {
        let mut changed = set(record(), pointer, value);
        let definition = changed["tools"][0]["definition"].as_object().unwrap();
        changed["tools"][0]["tool_digest"] = json!(tool_digest(definition).unwrap());
        changed
    };
    let mut more = record();
    more["tools"].as_array_mut().unwrap().push(tool("pay", "Pays."));
    let mut fewer = record();
    fewer["tools"].as_array_mut().unwrap().pop();
    let downstream = json!([{ "server": "https://bank.example/mcp", "tool": "pay", "level": "L2" }]);
    for (changed, expected) in [
        (changed_tool("/tools/0/definition/description", json!("Reads!")), "tool \"read\""),
        (changed_tool("/tools/0/definition/inputSchema/properties/n/maximum", json!(3)), "tool \"read\""),
        (changed_tool("/tools/0/definition/annotations/readOnlyHint", json!(false)), "tool \"read\""),
        (set(record(), "/tools/1/tier", json!("low")), "tool \"write\""),
        (set(record(), "/tools/1/level", json!("L3")), "tool \"write\""),
        (set(record(), "/tools/1/downstream", downstream), "tool \"write\""),
        (set(record(), "/tools/1/max_uses", json!(100)), "tool \"write\""),
        (set(record(), "/resource", json!("https://evil.example/mcp")), "`resource`"),
        (set(record(), "/version", json!("2")), "`version`"),
        (set(record(), "/tenant", json!("other")), "`tenant`"),
        (set(record(), "/client_id", json!("thief")), "`client_id`"),
        (set(record(), "/verifier", json!("rfc9068")), "`verifier`"),
        (more, "tool \"pay\", which is new"),
        (fewer, "\"write\" is missing"),
    ] {
        let problem = sealed(&changed, &signed, &keys(&[&key])).unwrap_err();
        assert!(problem.contains(expected) && problem.contains("differs"), "{problem}");
    }
    // What was disabled when it was approved is not enabled without a new approval.
    let off = set(record(), "/tools/0/enabled", json!(false));
    let signed = file(&SignedApproval::sign(&approval(&off), &key).unwrap());
    assert!(sealed(&record(), &signed, &keys(&[&key])).unwrap_err().contains("differs"));
}

#[test]
fn broken_and_foreign_signatures_are_refused() {
    let (key, other) = (key(), key());
    let good = SignedApproval::sign(&approval(&record()), &key).unwrap();
    let known = keys(&[&key]);
    assert!(sealed(&record(), &file(&good), &keys(&[&other])).unwrap_err().contains("approval_keys"));

    // The same kid on another key.
    let named = SigningKey::from_pkcs8(&other.to_pkcs8().unwrap(), Some(key.kid())).unwrap();
    let foreign = SignedApproval::sign(&approval(&record()), &named).unwrap();
    assert!(sealed(&record(), &file(&foreign), &known).unwrap_err().contains("does not verify"));

    let mut tampered = good.clone();
    tampered.approval["record"]["tools"][0]["tier"] = json!("low");
    let lowered = set(record(), "/tools/0/tier", json!("low"));
    assert!(sealed(&lowered, &file(&tampered), &known).unwrap_err().contains("does not verify"));
    let mut newer = good.clone();
    newer.approval["serial"] = json!(NOW_MS + 1);
    assert!(sealed(&record(), &file(&newer), &known).unwrap_err().contains("does not verify"));
    let mut cut = good.clone();
    cut.signature.pop();
    assert!(sealed(&record(), &file(&cut), &known).is_err());

    // Signed by the right key as something else.
    let claims = json!({ "id": "crm", "serial": NOW_MS, "sha256": digest_of(&good.approval).unwrap() });
    let mut retyped = good;
    retyped.signature = key.sign("JWT", &claims).unwrap();
    assert!(sealed(&record(), &file(&retyped), &known).unwrap_err().contains("something else"));
}

#[test]
fn approvals_of_others_of_tomorrow_and_of_nobody_are_refused() {
    let key = key();
    let known = keys(&[&key]);
    let sign = |approval: &Approval| file(&SignedApproval::sign(approval, &key).unwrap());
    let other = set(record(), "/id", json!("bank"));
    assert!(sealed(&record(), &sign(&approval(&other)), &known).unwrap_err().contains("\"bank\""));
    let future = Approval { serial: NOW_MS + 3_600_000, ..approval(&record()) };
    assert!(sealed(&record(), &sign(&future), &known).unwrap_err().contains("future"));
    let soon = Approval { serial: NOW_MS + 1000, ..approval(&record()) };
    assert!(sealed(&record(), &sign(&soon), &known).is_ok());
    let none = seal(&[parsed(&record())], &BTreeMap::new(), &known, NOW_MS).unwrap_err();
    assert!(none[0].problem.contains("nobody has approved"));
    // What does not say that it is approved needs no approval: it gets no tokens.
    let proposed = parsed(&set(record(), "/approved", json!(false)));
    assert_eq!(seal(&[proposed], &BTreeMap::new(), &known, NOW_MS), Ok(vec![]));
    for text in [&b""[..], b"{}", b"{\"approval\":{},\"signature\":\"x\"}"] {
        assert!(sealed(&record(), text, &known).is_err());
    }
    let doubled = String::from_utf8(sign(&approval(&record()))).unwrap();
    let doubled = doubled.replacen("\"serial\":", "\"serial\": 1, \"serial\":", 1);
    assert!(sealed(&record(), doubled.as_bytes(), &known).unwrap_err().contains("duplicate"));
}

#[test]
fn prompts_and_resources_are_signed_too() {
    let key = key();
    let definition = json!({ "name": "greet", "description": "Greets." });
    let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
    let more = set(
        record(),
        "/prompts",
        json!([{ "tier": "low", "prompt_digest": digest, "definition": definition }]),
    );
    let more = set(more, "/resources", json!([{ "uri": "demo://docs/*", "tier": "medium" }]));
    let approved = approval(&more);
    assert_ne!(approved.manifest_digest, approval(&record()).manifest_digest);
    let file = file(&SignedApproval::sign(&approved, &key).unwrap());
    let with =
        |pointer: &str, member: Value| sealed(&set(more.clone(), pointer, member), &file, &keys(&[&key]));
    assert!(with("/id", json!("crm")).is_ok(), "as it was signed");
    assert!(with("/prompts/0/enabled", json!(false)).is_ok(), "an emergency needs no approver");
    assert!(with("/resources/0/enabled", json!(false)).is_ok());
    for (pointer, member) in [
        ("/resources/0/uri", json!("demo://*")),
        ("/resources/0/tier", json!("low")),
        ("/resources/0/description", json!("Read me first.")),
        ("/resources", json!([])),
        ("/prompts/0/definition/description", json!("Greets!")),
        ("/prompts/0/tier", json!("medium")),
        ("/prompts", json!([])),
    ] {
        let problem = with(pointer, member).unwrap_err();
        assert!(problem.contains("differs from what was approved"), "{pointer}: {problem}");
    }
    // What was signed before there were any is still what it was.
    let plain = serde_json::to_value(approval(&record())).unwrap();
    assert!(plain["record"].get("prompts").is_none() && plain["record"].get("resources").is_none());
}
