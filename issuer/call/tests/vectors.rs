//! The shared vectors of `conformance/vectors`, which Python and TypeScript run too. Their expectations were computed
//! without this crate.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails should panic")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::{
    action::Action,
    constraints::Constraints,
    digest::{
        self, CallInput, Digest, call_digest, manifest_digest, prompt_digest, resource_digest, tool_digest,
    },
    dpop,
    json::{self, JsonError, Object},
    jws::JwsError,
    keys::KeySet,
    offers::{Offers, Shown},
    resource, token,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::HashSet;

fn read<F: DeserializeOwned>(name: &str) -> F {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/vectors/");
    serde_json::from_slice(&std::fs::read(format!("{path}{name}")).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Cases<C> {
    cases: Vec<C>,
}

fn reason(error: &JsonError) -> &'static str {
    match error {
        JsonError::Syntax(_) => "syntax",
        JsonError::DuplicateMember => "duplicate",
        JsonError::Number => "number",
        JsonError::Depth => "depth",
        JsonError::NotAnObject => "not_object",
        other => panic!("{other:?} has no name in the vectors"),
    }
}

#[test]
fn strict_json() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        text: Option<String>,
        base64: Option<String>,
        refused: Option<String>,
    }
    let Cases { cases } = read::<Cases<Case>>("strict-json.json");
    assert!(cases.len() > 80);
    for Case { name, text, base64, refused } in cases {
        let bytes = text.map_or_else(|| STANDARD.decode(base64.unwrap()).unwrap(), String::into_bytes);
        let outcome = json::parse_object(&bytes);
        assert_eq!(outcome.as_ref().err().map(reason), refused.as_deref(), "{name}: {outcome:?}");
    }
}

#[test]
fn jcs() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        text: String,
        canonical: String,
    }
    for Case { name, text, canonical } in read::<Cases<Case>>("jcs.json").cases {
        let value = Value::Object(json::parse_object(text.as_bytes()).unwrap());
        assert_eq!(String::from_utf8(json::canonicalize(&value).unwrap()).unwrap(), canonical, "{name}");
        let again = Value::Object(json::parse_object(canonical.as_bytes()).unwrap());
        assert_eq!(json::canonicalize(&again).unwrap(), canonical.as_bytes(), "{name}");
    }
}

#[test]
fn call_digests() {
    #[derive(Deserialize)]
    struct Case {
        case: String,
        method: String,
        name: String,
        arguments: Option<String>,
        input_responses: Option<String>,
        request_state: Option<String>,
        digest: Option<Digest>,
        refused: Option<String>,
        same_as: Option<String>,
    }
    let digest_of = |case: &Case| {
        // An envelope, as a body is: the parts are deeper in it than they are themselves.
        let part = |text: &Option<String>| {
            text.as_ref().map(|text| json::parse_value(format!("[{text}]").as_bytes(), 64)).transpose()
        };
        let first = |list: &Option<Value>| list.as_ref().map(|list| list.get(0).unwrap().clone());
        let arguments = match first(&part(&case.arguments)?) {
            Some(arguments) => arguments.as_object().unwrap().clone(),
            None => Object::new(),
        };
        call_digest(&CallInput {
            method: &case.method,
            name: &case.name,
            arguments: &arguments,
            input_responses: first(&part(&case.input_responses)?).as_ref(),
            request_state: first(&part(&case.request_state)?).as_ref(),
        })
    };
    let mut seen = HashSet::new();
    for case in read::<Cases<Case>>("call-digest.json").cases {
        match digest_of(&case) {
            Ok(digest) => {
                assert_eq!(Some(digest), case.digest, "{}", case.case);
                assert_eq!(seen.insert(digest), case.same_as.is_none(), "{}", case.case);
            }
            Err(error) => assert_eq!(Some(reason(&error)), case.refused.as_deref(), "{}", case.case),
        }
    }
    assert!(seen.len() > 20);
}

#[test]
fn tool_and_manifest_digests() {
    #[derive(Deserialize)]
    struct Tool {
        case: String,
        definition: String,
        digest: Digest,
    }
    for Tool { case, definition, digest } in read::<Cases<Tool>>("tool-digest.json").cases {
        let definition = json::parse_object(definition.as_bytes()).unwrap();
        assert_eq!(tool_digest(&definition), Ok(digest), "{case}");
    }
    #[derive(Deserialize)]
    struct Manifest {
        case: String,
        id: String,
        version: String,
        tools: Vec<Digest>,
        #[serde(default)]
        prompts: Vec<Digest>,
        #[serde(default)]
        resources: Vec<Digest>,
        digest: Digest,
    }
    for case in read::<Cases<Manifest>>("manifest-digest.json").cases {
        let manifest = digest::Manifest {
            id: &case.id,
            version: &case.version,
            tools: &case.tools,
            prompts: &case.prompts,
            resources: &case.resources,
        };
        assert_eq!(manifest_digest(&manifest), Ok(case.digest), "{}", case.case);
    }
}

#[test]
fn prompts_resources_and_what_lists_show() {
    #[derive(Deserialize)]
    struct File {
        prompts: Vec<Pinned>,
        resources: Vec<Pinned>,
        offers: Vec<Offered>,
        well_formed: WellFormed,
        entries: Vec<Entry>,
        decisions: Vec<Decisions>,
    }
    #[derive(Deserialize)]
    struct Pinned {
        case: String,
        definition: String,
        digest: Digest,
    }
    #[derive(Deserialize)]
    struct Offered {
        case: String,
        tools: Vec<String>,
        prompts: Vec<String>,
        resources: Vec<String>,
        visible: Vec<String>,
        shown: Shown,
    }
    #[derive(Deserialize)]
    struct WellFormed {
        entries: Vec<String>,
        others: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        entry: String,
        named: Vec<String>,
        others: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Decisions {
        case: String,
        entries: Vec<String>,
        decided: Vec<Decided>,
    }
    #[derive(Deserialize)]
    struct Decided {
        uri: String,
        entry: Option<String>,
    }
    let file = read::<File>("reads.json");
    let parsed = |definition: &str| json::parse_object(definition.as_bytes()).unwrap();
    for Pinned { case, definition, digest } in &file.prompts {
        assert_eq!(prompt_digest(&parsed(definition)), Ok(*digest), "{case}");
    }
    for Pinned { case, definition, digest } in &file.resources {
        assert_eq!(resource_digest(&parsed(definition)), Ok(*digest), "{case}");
    }
    for offered in &file.offers {
        let of = |action, names: &'static [String]| names.iter().map(move |name| (action, name.as_str()));
        let [tools, prompts, resources] =
            [&offered.tools, &offered.prompts, &offered.resources].map(|names| &*names.clone().leak());
        let all = of(Action::CallTool, tools)
            .chain(of(Action::GetPrompt, prompts))
            .chain(of(Action::ReadResource, resources));
        let offers = Offers::new(all.clone()).unwrap();
        let is_visible = |name: &str| offered.visible.iter().any(|visible| visible == name);
        assert_eq!(offers.show(|_, name| is_visible(name)), offered.shown, "{}", offered.case);
        for (action, name) in all {
            let is_shown = offers.is_shown(&offered.shown, action, name);
            assert_eq!(is_shown, is_visible(name), "{}: {name}", offered.case);
        }
    }
    for entry in &file.well_formed.entries {
        assert_eq!(resource::check_entry(entry), Ok(()), "{entry}");
    }
    for other in &file.well_formed.others {
        assert!(resource::check_entry(other).is_err(), "{other}");
    }
    for Entry { entry, named, others } in &file.entries {
        let entries = std::collections::BTreeMap::from([(entry.clone(), ())]);
        for (uris, expected) in [(named, true), (others, false)] {
            for uri in uris {
                // As an entry, a prefix may lie below another one; nobody asks for it.
                let is_asked = resource::check_uri(uri).is_ok();
                assert_eq!(is_asked && resource::names(entry, uri), expected, "{entry} {uri}");
                assert_eq!(resource::find(&entries, uri).is_some(), expected, "{entry} {uri}");
            }
        }
    }
    for Decisions { case, entries, decided } in file.decisions {
        let entries = entries.into_iter().map(|entry| (entry, ())).collect();
        for Decided { uri, entry } in decided {
            let found = resource::find(&entries, &uri).map(|(found, ())| found);
            assert_eq!(found, entry.as_deref(), "{case}: {uri}");
        }
    }
}

#[test]
fn constraints() {
    #[derive(Deserialize)]
    struct File {
        well_formed: Vec<WellFormed>,
        malformed: Vec<Malformed>,
        conjunctions: Vec<Conjunction>,
    }
    #[derive(Deserialize)]
    struct WellFormed {
        case: String,
        constraints: String,
        admitted: Vec<String>,
        refused: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Malformed {
        case: String,
        constraints: String,
    }
    #[derive(Deserialize)]
    struct Conjunction {
        case: String,
        left: String,
        right: String,
        outcome: Option<String>,
        admitted: Vec<String>,
        refused: Vec<String>,
    }
    let rules = |text: &str| serde_json::from_str::<Constraints>(text).unwrap().checked().unwrap();
    let object = |text: &str| json::parse_object(text.as_bytes()).unwrap();
    let file: File = read("constraints.json");
    for WellFormed { case, constraints, admitted, refused } in file.well_formed {
        let constraints = rules(&constraints);
        for arguments in admitted {
            assert_eq!(constraints.admit(&object(&arguments)), Ok(()), "{case}: {arguments}");
        }
        for arguments in refused {
            assert!(constraints.admit(&object(&arguments)).is_err(), "{case}: {arguments}");
        }
        let written = serde_json::to_string(&constraints).unwrap();
        assert_eq!(rules(&written), constraints, "{case}");
    }
    for Malformed { case, constraints } in file.malformed {
        if let Ok(constraints) = serde_json::from_str::<Constraints>(&constraints) {
            assert!(constraints.clone().checked().is_err(), "{case}");
            assert!(constraints.admit(&Object::new()).is_err(), "{case}");
        }
    }
    for Conjunction { case, left, right, outcome, admitted, refused } in file.conjunctions {
        let (left, right) = (rules(&left), rules(&right));
        for (one, other) in [(&left, &right), (&right, &left)] {
            let both = one.conjoin(other);
            assert_eq!(both.is_ok(), outcome.is_some(), "{case}: {both:?}");
            let Ok(both) = both else { continue };
            assert_eq!(both.clone().checked().as_ref(), Ok(&both), "{case}");
            for arguments in &admitted {
                assert_eq!(both.admit(&object(arguments)), Ok(()), "{case}: {arguments}");
            }
            for arguments in &refused {
                assert!(both.admit(&object(arguments)).is_err(), "{case}: {arguments}");
            }
        }
        if let Some(outcome) = outcome {
            assert_eq!(left.conjoin(&right), Ok(rules(&outcome)), "{case}");
        }
    }
}

#[test]
fn dpop_proofs() {
    #[derive(Deserialize)]
    struct Case {
        case: String,
        proof: String,
        expected: Expected,
        verified: Option<Verified>,
        refused_by_check: Option<u8>,
    }
    #[derive(Deserialize)]
    struct Expected {
        htm: String,
        htu: String,
        access_token: Option<String>,
        jkt: Option<String>,
        now_seconds: u64,
        window_seconds: u64,
    }
    #[derive(Deserialize, PartialEq, Debug)]
    struct Verified {
        jkt: String,
        jti: String,
        iat: u64,
        tag: String,
    }
    let verify = |proof: &str, expected: &Expected| {
        dpop::parse(proof)?.verify(&dpop::Expected {
            htm: &expected.htm,
            htu: &expected.htu,
            access_token: expected.access_token.as_deref(),
            jkt: expected.jkt.as_deref(),
            now_seconds: expected.now_seconds,
            window_seconds: expected.window_seconds,
        })
    };
    let mut tags = HashSet::new();
    for Case { case, proof, expected, verified, refused_by_check } in read::<Cases<Case>>("dpop.json").cases {
        match verify(&proof, &expected) {
            Ok(proof) => {
                let tag = proof.tag.iter().map(|byte| format!("{byte:02x}")).collect();
                let found = Verified { jkt: proof.jkt, jti: proof.jti, iat: proof.iat, tag };
                assert_eq!(Some(&found), verified.as_ref(), "{case}");
                tags.insert(found.tag);
            }
            Err(error) => {
                let check = refused_by_check.unwrap_or_else(|| panic!("{case}: {error}"));
                let plausible = match &error {
                    JwsError::Claim("htm", "another method") => check == 8,
                    JwsError::Claim("htu", "another URL") => check == 9,
                    JwsError::Claim("iat", "outside the window") => check == 11,
                    JwsError::Claim("ath", _) => check == 12,
                    JwsError::Claim(..) => check == 3,
                    JwsError::Signature => check == 6,
                    JwsError::Algorithm => check == 5,
                    JwsError::Malformed(text) if text.contains("typ") => check == 4,
                    JwsError::Malformed(_) => check == 2,
                    JwsError::Header("jwk") => check == 3,
                    JwsError::Header(_) => check == 2,
                    JwsError::Key(_) => matches!(check, 5 | 6 | 7 | 12),
                    _ => false,
                };
                assert!(plausible, "{case}: {error}, not check {check}");
            }
        }
    }
    assert!(tags.len() >= 4);
}

#[test]
fn tool_call_tokens() {
    #[derive(Deserialize)]
    struct File {
        jwks: Value,
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        case: String,
        token: String,
        expected: Expected,
        refused: Option<String>,
    }
    #[derive(Deserialize)]
    struct Expected {
        issuer: String,
        audience: Option<String>,
        now_seconds: u64,
        leeway_seconds: u64,
    }
    let File { jwks, cases } = read("tokens.json");
    let keys = KeySet::from_jwks(jwks.to_string().as_bytes()).unwrap();
    for Case { case, token, expected, refused } in cases {
        let outcome = token::verify(
            &token,
            &keys,
            &token::Expected {
                issuer: &expected.issuer,
                audience: expected.audience.as_deref(),
                now_seconds: expected.now_seconds,
                leeway_seconds: expected.leeway_seconds,
            },
        );
        let found = outcome.as_ref().err().map(|error| match error {
            JwsError::TooLong => "form",
            JwsError::Malformed(text) if text.contains("typ") => "typ",
            JwsError::Malformed(text) if text.contains("kid") => "kid",
            JwsError::Malformed(text) if text.contains("shape") => "shape",
            JwsError::Malformed(_) => "form",
            JwsError::Algorithm => "alg",
            JwsError::Header(_) => "header",
            JwsError::UnknownKey => "kid",
            JwsError::Signature => "signature",
            JwsError::Claim(name @ ("iss" | "aud" | "exp" | "nbf" | "iat"), _) => name,
            JwsError::Claim(..) => "shape",
            other => panic!("{case}: {other}"),
        });
        // An algorithm that no key of the set is for is seen as such only when the key is looked for.
        let agrees = found == refused.as_deref() || (found, refused.as_deref()) == (Some("kid"), Some("alg"));
        assert!(agrees, "{case}: {outcome:?}, expected {refused:?}");
    }
}
