//! The Workload API of a broker, used by clients that other people wrote, and examined by the suite that examines any.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    node::{node, npm},
    spiffe_lab::{FOREIGN, SpiffeLab, TRUST_DOMAIN, program, python},
    workload_api::{Examination, Level, Outcome, examine},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const IDS: [&str; 2] = ["spiffe://example.org/myservice", "spiffe://example.org/myservice2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conformance_suite_finds_no_fault() {
    let lab = SpiffeLab::start().await;
    let examination = Examination {
        socket: lab.socket.clone(),
        trust_domain: Some(TRUST_DOMAIN.to_owned()),
        entitled: true,
        watch: Duration::from_secs(1),
    };
    let report = examine(&examination).await.unwrap();
    let failures = [report.failures(Level::Must), report.failures(Level::Should)].concat();
    assert!(failures.is_empty(), "{}", report.table());
    let passed_over = report.requirements.iter().filter(|finding| finding.outcome == Outcome::NotApplicable);
    let passed_over: Vec<_> = passed_over.map(|finding| finding.id).collect();
    // We publish no revocation lists, and this process has an identity.
    assert_eq!(passed_over, ["WLAPI-5.2.1-8", "WLAPI-5.2.1-9"], "{}", report.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conformance_suite_finds_no_fault_in_how_strangers_are_refused() {
    let lab = SpiffeLab::start_with(&json!({ "entries": null })).await;
    let examination = Examination {
        socket: lab.socket.clone(),
        trust_domain: None,
        entitled: false,
        watch: Duration::ZERO,
    };
    let report = examine(&examination).await.unwrap();
    let failures = [report.failures(Level::Must), report.failures(Level::Should)].concat();
    assert!(failures.is_empty(), "{}", report.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spiffe_crates_own_integration_tests_pass() {
    let lab = SpiffeLab::start().await;
    let manifest = own_tests(&lab.endpoint());
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--offline", "--no-fail-fast", "--manifest-path"]).arg(&manifest);
    command.args(["--", "--ignored"]).env_remove("CARGO_TARGET_DIR");
    let said = tokio::task::block_in_place(|| lab.run(&mut command));
    let passed: usize = said
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "))
        .filter_map(|line| line.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(passed, 60, "{said}");
}

/// Lays out the package of its tests, out of cargo's registry: its own three files, one line of each of two changed,
/// which names a socket outside of every test's folder. The path of its manifest.
fn own_tests(endpoint: &str) -> PathBuf {
    let ours = program("own-tests");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/spiffe-own-tests");
    for name in ["src", "tests"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in ["Cargo.toml", "Cargo.lock", "src/lib.rs"] {
        std::fs::copy(ours.join(name), folder.join(name)).unwrap();
    }
    for (name, times) in [("workload_api_client.rs", 0), ("x509_source.rs", 1), ("jwt_source.rs", 1)] {
        let text = std::fs::read_to_string(package("spiffe").join("tests").join(name)).unwrap();
        assert_eq!(text.matches(SPIRES_SOCKET).count(), times, "{name}");
        std::fs::write(folder.join("tests").join(name), text.replace(SPIRES_SOCKET, endpoint)).unwrap();
    }
    folder.join("Cargo.toml")
}

/// Where cargo keeps the source of a package that these tests depend on.
fn package(name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--offline", "--format-version", "1", "--manifest-path"]);
    let output = command.arg(program("own-tests/Cargo.toml")).output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("run ./test, which fetches it: {}", String::from_utf8_lossy(&output.stderr))
    });
    let found = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == name);
    let manifest = found.unwrap()["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

/// Where the authors of those tests have SPIRE listen.
const SPIRES_SOCKET: &str = "unix:/tmp/spire-agent/public/api.sock";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spiffes_python_library_on_grpcs_c_core_makes_every_call() {
    let lab = SpiffeLab::start().await;
    let said = tokio::task::block_in_place(|| lab.run(Command::new(python()).arg(program("calls.py"))));
    let mut result: Value = serde_json::from_str(&said).unwrap();
    for refused in ["other_audience", "stranger"] {
        let why = result[refused].take().as_str().unwrap().to_owned();
        let code = if refused == "stranger" { "PERMISSION_DENIED" } else { "INVALID_ARGUMENT" };
        assert!(why.contains(code), "{refused}: {why}");
    }
    let both = [FOREIGN, TRUST_DOMAIN];
    assert_eq!(
        result,
        json!({
            "x509": IDS, "context": IDS, "streamed": IDS, "jwt": IDS, "valid": IDS,
            "default": IDS[0], "one": IDS[0], "x509_source": IDS[0], "jwt_source": IDS[0],
            "x509_bundles": both, "jwt_bundles": both, "x509_authorities": 1, "jwt_authorities": 1,
            "other_audience": null, "stranger": null,
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_for_javascript_makes_every_call() {
    let lab = SpiffeLab::start().await;
    let mut command = Command::new(node());
    command.current_dir(npm()).arg("workload.mjs").arg(lab.endpoint());
    let result: Value = serde_json::from_str(&tokio::task::block_in_place(|| lab.run(&mut command))).unwrap();
    let each = |id: &str| {
        json!({
            "spiffe_id": id, "hint": id.rsplit('/').next(), "san": format!("URI:{id}"),
            "is_ca": false, "key_fits": true, "issued_by_bundle": true,
        })
    };
    let verified = |id: &str| {
        json!({
            "spiffe_id": id, "validated": id, "header": ["alg", "kid", "typ"],
            "claims": ["aud", "exp", "iat", "iss", "jti", "sub"],
        })
    };
    let both = [FOREIGN, TRUST_DOMAIN].map(|domain| format!("spiffe://{domain}"));
    assert_eq!(
        result,
        json!({
            "x509": IDS.map(each), "verified": IDS.map(verified), "one": [IDS[0]],
            "federated": [both[0]], "x509_bundles": both, "jwt_bundles": both,
            "refused": {
                "no_header": "INVALID_ARGUMENT", "no_audience": "INVALID_ARGUMENT",
                "foreign_id": "PERMISSION_DENIED", "other_audience": "INVALID_ARGUMENT",
            },
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spiffes_java_library_makes_every_call_and_grpc_java_finds_them_by_reflection() {
    let lab = SpiffeLab::start().await;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/java");
    assert!(built.join("classes").exists(), "the Java client is missing: run ./test, which builds it");
    let classes = format!("{}:{}/*", built.join("classes").display(), built.join("lib").display());
    let mut command = Command::new("java");
    command.args(["-cp", &classes, "WorkloadClient", &format!("unix:{}", lab.socket.display())]);
    let said = tokio::task::block_in_place(|| lab.run(&mut command));
    let both = format!("[{FOREIGN}, {TRUST_DOMAIN}]");
    for line in [
        format!("x509 {} myservice", IDS[0]),
        format!("x509 {} myservice2", IDS[1]),
        format!("federated {both}"),
        format!("x509-bundles {both}"),
        format!("jwt-bundles {both}"),
        format!("jwt {} myservice true", IDS[0]),
        format!("jwt {} myservice2 true", IDS[1]),
        "other-audience INVALID_ARGUMENT".to_owned(),
        format!("one {}", IDS[0]),
        "stranger PERMISSION_DENIED".to_owned(),
        format!("x509-source {}", IDS[0]),
        "reflected 2".to_owned(),
        "no-audience INVALID_ARGUMENT".to_owned(),
        "no-header INVALID_ARGUMENT".to_owned(),
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
    }
    let listed = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(listed("services").contains("SpiffeWorkloadAPI"), "{said}");
    let methods = listed("methods");
    for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"]
    {
        assert!(methods.contains(method), "{methods}");
    }
}
