//! The server scenarios of MCP's own conformance suite: a server passes them, and it passes them still when a guard
//! stands before it and `deputize connect` adds the tokens. Where that is not so stands in `scenarios.toml`, with the
//! reason.

use crate::{stage::Stage, third_party::node_command};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

/// What is known to differ.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    difference: Vec<Known>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    versions: Vec<String>,
    scenario: String,
    checks: Vec<String>,
    direct: String,
    guarded: String,
    reason: String,
}

/// One check that gives one result directly and another through the guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    version: String,
    scenario: String,
    check: String,
    direct: String,
    guarded: String,
}

/// The results of a run, by scenario and check.
type Results = BTreeMap<(String, String), String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_server_passes_what_it_passes_without_a_guard() {
    let stage = Stage::set(&[]).await;
    let known = known();
    let (mut found, mut seen) = (BTreeSet::new(), BTreeMap::new());
    for version in VERSIONS {
        let (direct, guarded) = tokio::join!(direct(&stage, version), guarded(&stage, version, &[]));
        let (direct, guarded) = settled(&stage, version, direct, guarded, &known).await;
        let failed: Vec<_> = direct.iter().filter(|(_, result)| result.contains("FAILURE")).collect();
        assert!(failed.is_empty(), "the server itself fails in {version}: {failed:#?}");
        seen.insert(version, direct.keys().map(|(scenario, _)| scenario.clone()).collect::<BTreeSet<_>>());
        found.extend(differences(version, &direct, &guarded));
    }
    for (version, least) in VERSIONS.iter().zip([24, 30, 37]) {
        assert!(seen[version].len() >= least, "{version}: {:?}", seen[version]);
    }
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "differs: {new:#?}\ndiffers no longer: {gone:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tool_asks_the_user_passes_where_its_token_does_not_fix_the_call() {
    let stage = Stage::set(&["--level", "l1"]).await;
    for scenario in ["tools-call-elicitation", "elicitation-sep1034-defaults", "elicitation-sep1330-enums"] {
        let results = guarded(&stage, "2025-11-25", &["--scenario", scenario]).await;
        assert!(!results.is_empty(), "{scenario}");
        assert!(results.values().all(|result| result == "SUCCESS"), "{scenario}: {results:#?}");
    }
}

/// The suite waits a second and less for some things: what fails, or differs, on a loaded machine is asked again alone.
async fn settled(
    stage: &Stage,
    version: &str,
    mut direct: Results,
    mut guarded: Results,
    known: &BTreeSet<Difference>,
) -> (Results, Results) {
    let found: BTreeSet<Difference> = differences(version, &direct, &guarded).into_iter().collect();
    let expected: BTreeSet<_> = known.iter().filter(|known| known.version == version).cloned().collect();
    let odd = found.symmetric_difference(&expected).map(|odd| odd.scenario.clone());
    let failed = direct.iter().filter(|(_, result)| result.contains("FAILURE")).map(|(key, _)| key.0.clone());
    for scenario in odd.chain(failed).collect::<BTreeSet<_>>() {
        let alone = ["--scenario", scenario.as_str()];
        for (results, again) in [
            (&mut direct, run(&stage.server, None, version, &alone).await),
            (&mut guarded, self::guarded(stage, version, &alone).await),
        ] {
            results.retain(|key, _| key.0 != scenario);
            results.extend(again);
        }
    }
    (direct, guarded)
}

fn known() -> BTreeSet<Difference> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios.toml")).unwrap();
    let catalogue: Catalogue = toml::from_str(&text).unwrap();
    let mut known = BTreeSet::new();
    for entry in catalogue.difference {
        let Known { versions, scenario, checks, direct, guarded, reason } = entry;
        assert!(reason.len() > 20, "{scenario}: a reason says something");
        for (version, check) in
            versions.iter().flat_map(|version| checks.iter().map(move |check| (version, check)))
        {
            let (version, check) = (version.clone(), check.clone());
            let (scenario, direct, guarded) = (scenario.clone(), direct.clone(), guarded.clone());
            assert!(known.insert(Difference { version, scenario, check, direct, guarded }), "listed twice");
        }
    }
    known
}

fn differences(version: &str, direct: &Results, guarded: &Results) -> Vec<Difference> {
    let keys: BTreeSet<_> = direct.keys().chain(guarded.keys()).collect();
    let of = |results: &Results, key| results.get(key).cloned().unwrap_or_else(|| "absent".to_owned());
    let all = keys.into_iter().map(|key| Difference {
        version: version.to_owned(),
        scenario: key.0.clone(),
        check: key.1.clone(),
        direct: of(direct, key),
        guarded: of(guarded, key),
    });
    all.filter(|difference| difference.direct != difference.guarded).collect()
}

async fn direct(stage: &Stage, version: &str) -> Results {
    run(&stage.server, None, version, &[]).await
}

async fn guarded(stage: &Stage, version: &str, selection: &[&str]) -> Results {
    run(&stage.connect.url, Some(&stage.connect.secret), version, selection).await
}

/// Runs the suite against a URL.
async fn run(url: &str, secret: Option<&str>, version: &str, selection: &[&str]) -> Results {
    let folder = tempfile::tempdir().unwrap();
    let mut command = node_command();
    if let Some(secret) = secret {
        command.args(["--import", "./scenarios/secret.mjs"]);
        command.env("DEPUTIZE_CONNECT", url).env("DEPUTIZE_SECRET", secret);
    }
    let selection = if selection.is_empty() { &["--suite", "all"] } else { selection };
    command.args([SUITE, "server", "--url", url, "--spec-version", version]).args(selection);
    command.arg("--output-dir").arg(folder.path());
    let output = tokio::time::timeout(RUN_WITHIN, command.output()).await.expect("the suite ends").unwrap();
    let ran = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(ran > 0, "nothing ran: {}", String::from_utf8_lossy(&output.stderr));
    read(folder.path())
}

/// The results that a run left, one folder for each scenario. What is only told, and judged nowhere, is left out.
fn read(folder: &Path) -> Results {
    let mut counted: BTreeMap<(String, String), BTreeMap<String, usize>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // server-NAME-TIME
        let scenario = &name["server-".len()..name.len() - "-2026-07-28T00-00-00-000Z".len()];
        let Ok(text) = std::fs::read(entry.path().join("checks.json")) else { continue };
        for check in serde_json::from_slice::<Vec<Value>>(&text).unwrap() {
            let text = |member: &str| check[member].as_str().unwrap().to_owned();
            if text("status") != "INFO" {
                let key = (scenario.to_owned(), text("id"));
                *counted.entry(key).or_default().entry(text("status")).or_default() += 1;
            }
        }
    }
    let told = |counts: BTreeMap<String, usize>| {
        let one = |(status, count)| if count == 1 { status } else { format!("{count} {status}") };
        counts.into_iter().map(one).collect::<Vec<_>>().join(", ")
    };
    counted.into_iter().map(|(key, counts)| (key, told(counts))).collect()
}

const VERSIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];
const SUITE: &str = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
const RUN_WITHIN: Duration = Duration::from_secs(180);
