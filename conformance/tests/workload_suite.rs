//! The suite that examines Workload API servers: an honest server of another make fulfils everything that it can, and
//! each fault is found under the requirement that it breaks.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    workload_api::{Examination, Level, Outcome, Report, examine},
    workload_server::{
        Material, WorkloadServer, authority_of, leaf, self_signed, unknown_critical_extension,
    },
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};
use tempfile::TempDir;

/// Examines a server with this fault, which serves this.
async fn examined(fault: &str, material: &Material, entitled: bool) -> Report {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("workload.sock");
    let _server = tokio::task::block_in_place(|| WorkloadServer::start(&socket, fault, material));
    let watch = Duration::from_millis(200);
    examine(&Examination { socket, trust_domain: None, entitled, watch }).await.unwrap()
}

/// Asserts that exactly these fail, of both levels; the JavaScript server has no reflection.
fn assert_failures(what: &str, report: &Report, expected: &[&str]) {
    let failures = [report.failures(Level::Must), report.failures(Level::Should)].concat();
    let found: BTreeSet<_> = failures.into_iter().filter(|id| *id != "WLEP-7-1").collect();
    assert_eq!(found, expected.iter().copied().collect(), "{what}:\n{}", report.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_server_of_another_make_fulfils_what_it_can() {
    let report = examined("", &Material::honest(), true).await;
    assert_failures("honest", &report, &[]);
    let passed_over: Vec<_> = report
        .requirements
        .iter()
        .filter(|finding| finding.outcome == Outcome::NotApplicable)
        .map(|finding| finding.id)
        .collect();
    // Everything else is looked at: no check is there for show.
    assert_eq!(passed_over, ["WLAPI-2-1", "WLAPI-5.2.1-8", "WLAPI-5.2.1-9"], "{}", report.table());
    assert!(report.requirements.iter().all(|finding| !finding.specification.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_behaves_wrongly_is_found_out() {
    let material = Material::honest();
    for (fault, expected) in [
        ("no-header-check", &["WLEP-3-2", "WLEP-3-3", "WLEP-6-1"][..]),
        ("header-in-any-case", &["WLEP-3-3"]),
        ("header-refused-otherwise", &["WLEP-6-1"]),
        ("profile-missing", &["JWTSVID-4-1", "WLAPI-1-1", "WLAPI-6.2.2-1", "WLEP-6-1"]),
        ("pushed-twice", &["WLAPI-4.3-3"]),
        ("empty-audience-taken", &["WLAPI-4.5-1"]),
        ("requested-id-ignored", &["WLAPI-6.2.1-3", "WLAPI-6.2.1-4"]),
        ("foreign-id-given", &["WLAPI-6.2.1-4"]),
        ("jwt-for-one-only", &["WLAPI-6.2.1-2"]),
        ("jwt-extra-header", &["JWTSVID-2-1"]),
        ("jwt-other-typ", &["JWTSVID-2.3-1"]),
        ("jwt-other-subject", &["JWTSVID-3.1-1", "WLAPI-6.2.3-4"]),
        ("jwt-other-audience", &["WLAPI-6.2.1-1", "WLAPI-6.2.3-1"]),
        ("jwt-without-audience", &["JWTSVID-3.2-1", "WLAPI-6.2.1-1", "WLAPI-6.2.3-1"]),
        ("jwt-expired", &["JWTSVID-3.3-1", "WLAPI-6.2.3-1"]),
        ("jwt-without-expiry", &["JWTSVID-3.3-1", "WLAPI-6.2.3-1"]),
        ("validates-anything", &["WLAPI-6.2.3-2", "WLAPI-6.2.3-3"]),
        ("validates-any-audience", &["WLAPI-6.2.3-2"]),
        ("claims-withheld", &["WLAPI-6.2.3-4"]),
    ] {
        assert_failures(fault, &examined(fault, &material, true).await, expected);
    }
}

/// A change of what is served, and what must fail for it.
type Fault = (&'static str, fn(&mut Material), &'static [&'static str]);

const SERVED: &[Fault] = &[
    ("a hint twice", |m| m.served["x509"]["svids"][1]["hint"] = json!("myservice"), &["WLAPI-5.2.1-3"]),
    (
        "a hint of a JWT-SVID twice",
        |m| m.served["jwt"]["ids"][1]["hint"] = json!("myservice"),
        &["WLAPI-6.2.1-5"],
    ),
    ("another's key", |m| swap_keys(&mut m.served), &["WLAPI-5.2.1-6"]),
    (
        "PEM where DER is due",
        |m| m.served["x509"]["svids"][0]["x509_svid"] = json!("LS0tLS1CRUdJTg=="),
        &["WLAPI-5.2.1-4"],
    ),
    (
        "another ID beside it",
        |m| m.served["x509"]["svids"][0]["spiffe_id"] = json!("spiffe://example.org/other"),
        &["WLAPI-5.2.1-5", "WLAPI-6.2.1-2"],
    ),
    (
        "the foreign bundle as ours",
        |m| {
            let foreign = m.served["x509"]["bundles"]["spiffe://example-federated.org"].clone();
            m.served["x509"]["svids"][0]["bundle"] = foreign;
        },
        &["WLAPI-5.2.2-2", "X509SVID-3.2-3", "X509SVID-5.1-1"],
    ),
    (
        "our bundle among the foreign",
        |m| {
            let own = m.served["x509"]["bundles"]["spiffe://example.org"].clone();
            m.served["x509"]["federated_bundles"]["spiffe://example.org"] = own;
        },
        &["WLAPI-5.2.1-7"],
    ),
    (
        "a bundle by a bare name",
        |m| rename(&mut m.served["x509"]["federated_bundles"], "example-federated.org"),
        &["WLAPI-5.2.1-7"],
    ),
    ("no bundle of ours", |m| remove(&mut m.served["x509"]["bundles"]), &["WLAPI-5.2.2-1"]),
    ("no JWT bundle of ours", |m| remove(&mut m.served["jwt"]["jwks"]), &["JWTSVID-4-1", "WLAPI-6.2.2-1"]),
    (
        "a private key in a JWT bundle",
        |m| {
            let key = m.served["jwt"]["private_jwk"].clone();
            m.served["jwt"]["jwks"]["spiffe://example.org"]["keys"][0] = key;
        },
        &["BUNDLE-2-1"],
    ),
    (
        "a JWT bundle without `keys`",
        |m| m.served["jwt"]["jwks"]["spiffe://example.org"] = json!({}),
        &["BUNDLE-4.1.3-1", "JWTSVID-4-1"],
    ),
    (
        "an X.509 authority in a JWT bundle",
        |m| {
            let keys = &mut m.served["jwt"]["jwks"]["spiffe://example.org"]["keys"];
            keys.as_array_mut().unwrap().push(json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AA=="] }));
        },
        &["WLAPI-6.2.2-2"],
    ),
    (
        "a key of no type",
        |m| {
            let keys = &mut m.served["jwt"]["jwks"]["spiffe://example.org"]["keys"];
            keys.as_array_mut().unwrap().push(json!({ "kid": "odd" }));
        },
        &["BUNDLE-4.2.1-1"],
    ),
    ("a revocation list that is none", |m| m.served["x509"]["crl"] = json!(["AAAA"]), &["WLAPI-5.2.1-8"]),
    ("no SVIDs", |m| m.served["x509"]["svids"] = json!([]), &["WLAPI-5.2.1-1"]),
    (
        "an ID that is none",
        |m| {
            let id = "spiffe://example.org/My%20Service/";
            m.serve_leaf(&leaf(id));
            m.served["x509"]["svids"][0]["spiffe_id"] = json!(id);
            m.served["jwt"]["ids"][0]["spiffe_id"] = json!(id);
        },
        &["SPIFFEID-2.2-1"],
    ),
    (
        "two URIs",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.subject_alt_names.push(SanType::URI("spiffe://example.org/myservice2".try_into().unwrap()));
            m.serve_leaf(&leaf);
        },
        &["WLAPI-5.2.1-5", "X509SVID-2-1"],
    ),
    (
        "a leaf that is a CA",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            m.serve_leaf(&leaf);
        },
        &["WLAPI-5.2.1-4", "X509SVID-4.1-1"],
    ),
    (
        "a leaf that may sign certificates",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
            m.serve_leaf(&leaf);
        },
        &["X509SVID-4.3-2"],
    ),
    (
        "a leaf without key usage",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.key_usages.clear();
            m.serve_leaf(&leaf);
        },
        &["X509SVID-4.3-1"],
    ),
    (
        "a leaf without extended key usage",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.extended_key_usages.clear();
            m.serve_leaf(&leaf);
        },
        &["X509SVID-4.4-1"],
    ),
    (
        "a leaf for servers alone",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            m.serve_leaf(&leaf);
        },
        &["X509SVID-4.4-2"],
    ),
    (
        "a leaf that has expired",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.not_after = rcgen::date_time_ymd(2024, 1, 1);
            leaf.not_before = rcgen::date_time_ymd(2023, 1, 1);
            m.serve_leaf(&leaf);
        },
        &["X509SVID-5.1-1"],
    ),
    (
        "an unknown critical extension",
        |m| {
            let mut leaf = leaf("spiffe://example.org/myservice");
            leaf.custom_extensions.push(unknown_critical_extension());
            m.serve_leaf(&leaf);
        },
        &["X509SVID-5.1-1"],
    ),
    (
        "a leaf of a stranger with our authority's name",
        |m| {
            m.serve_leaf_of(
                &self_signed(authority_of("example.org")),
                &leaf("spiffe://example.org/myservice"),
            );
        },
        &["X509SVID-5.1-1"],
    ),
    (
        "an authority that is no SVID",
        |m| {
            let mut authority = authority_of("example.org");
            authority.subject_alt_names.clear();
            m.serve_authority(&self_signed(authority));
        },
        &["X509SVID-3.2-1"],
    ),
    (
        "an authority with a path",
        |m| {
            let mut authority = authority_of("example.org");
            authority.subject_alt_names = vec![SanType::URI("spiffe://example.org/ca".try_into().unwrap())];
            m.serve_authority(&self_signed(authority));
        },
        &["X509SVID-3.2-2"],
    ),
    (
        "an authority that may not sign",
        |m| {
            let mut authority = authority_of("example.org");
            authority.key_usages = vec![KeyUsagePurpose::CrlSign];
            m.serve_authority(&self_signed(authority));
        },
        &["X509SVID-4.3-3"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_serves_something_wrong_is_found_out() {
    for (what, change, expected) in SERVED {
        let mut material = Material::honest();
        change(&mut material);
        assert_failures(what, &examined("", &material, true).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_identity_is_told_so_by_every_method() {
    let material = Material::honest();
    let report = examined("nobody-is-entitled", &material, false).await;
    assert_failures("nobody is entitled", &report, &[]);
    let entitled = examined("", &material, false).await;
    assert_failures("everybody is entitled", &entitled, &["WLAPI-5.2.1-9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_reports_and_says_by_its_exit_code_what_it_found() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("workload.sock");
    let run = |arguments: &[&str], socket: &Path| {
        let endpoint = format!("unix://{}", socket.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-conformance"));
        command.args(["--socket", &endpoint, "--watch", "1"]).args(arguments).output().unwrap()
    };
    tokio::task::block_in_place(|| {
        assert_eq!(run(&[], &socket).status.code(), Some(6), "nobody listens");
        let server = WorkloadServer::start(&socket, "", &Material::honest());
        let honest = run(&["-o", "json", "--trust-domain", "example.org"], &socket);
        let report: Value = serde_json::from_slice(&honest.stdout).unwrap();
        assert_eq!((honest.status.code(), &report["failed"]), (Some(0), &json!(1)), "{report}");
        assert_eq!(run(&["--strict"], &socket).status.code(), Some(1), "reflection is missing");
        assert_eq!(run(&["--trust-domain", "other.test"], &socket).status.code(), Some(1));
        assert_eq!(run(&["--watch", "never"], &socket).status.code(), Some(2));
        drop(server);
        std::fs::remove_file(&socket).unwrap();
        let _server = WorkloadServer::start(&socket, "jwt-extra-header", &Material::honest());
        let faulty = run(&[], &socket);
        let table = String::from_utf8(faulty.stdout).unwrap();
        assert_eq!(faulty.status.code(), Some(1), "{table}");
        assert!(table.contains("FAIL  JWTSVID-2-1"), "{table}");
    });
}

fn swap_keys(served: &mut Value) {
    let svids = &mut served["x509"]["svids"];
    svids[0]["x509_svid_key"] = svids[1]["x509_svid_key"].clone();
}

fn rename(bundles: &mut Value, name: &str) {
    let bundle = bundles.as_object_mut().unwrap().remove("spiffe://example-federated.org").unwrap();
    bundles[name] = bundle;
}

fn remove(bundles: &mut Value) {
    bundles.as_object_mut().unwrap().remove("spiffe://example.org");
}
