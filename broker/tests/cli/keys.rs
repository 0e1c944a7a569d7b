//! `deputize keys`: of the identity that AWS knows.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

use crate::program::{Ran, run};

const ISSUER: &str = "https://id.example/deputize";

struct Folders {
    data: TempDir,
    site: TempDir,
}

impl Folders {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), site: tempfile::tempdir().unwrap() }
    }
    fn data(&self) -> &str {
        self.data.path().to_str().unwrap()
    }
    fn publish(&self, more: &[&str]) -> Ran {
        let site = self.site.path().to_str().unwrap();
        run(&[&["keys", "publish", "--to", site, "--data", self.data(), "-o", "json"][..], more].concat())
    }
    fn published(&self) -> Vec<String> {
        let set: Value = serde_json::from_slice(&fs::read(self.site.path().join("jwks")).unwrap()).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
    fn rotate(&self, more: &[&str]) -> Ran {
        run(&[
            &["keys", "rotate", "--purpose", "web-identity", "--data", self.data(), "-o", "json"][..],
            more,
        ]
        .concat())
    }
    fn states(&self) -> Vec<String> {
        let keys = run(&["keys", "ls", "--data", self.data(), "-o", "json"]).expect(0).json();
        let keys = keys.as_array().unwrap().iter().filter(|key| key["purpose"] == "web identity");
        keys.map(|key| key["state"].as_str().unwrap().split(',').next().unwrap().to_owned()).collect()
    }
}

#[test]
fn what_aws_reads_is_written_as_files() {
    let folders = Folders::new();
    let answer = folders.publish(&["--issuer", ISSUER]).expect(0).json();
    let files: Vec<PathBuf> = answer["upload"]
        .as_array()
        .unwrap()
        .iter()
        .map(|upload| Path::new(upload["file"].as_str().unwrap()).to_owned())
        .collect();
    let place = |name: &str| folders.site.path().join(name);
    assert_eq!(files, [place("jwks"), place(".well-known/openid-configuration")], "the keys come first");
    assert_eq!(answer["upload"][0]["url"], "https://id.example/deputize/jwks");
    let document: Value =
        serde_json::from_slice(&fs::read(place(".well-known/openid-configuration")).unwrap()).unwrap();
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], "https://id.example/deputize/jwks");
    assert_eq!(folders.published().len(), 2, "one of each algorithm");
    assert_eq!(folders.states(), ["signing", "signing"]);
    assert_eq!(fs::read_dir(folders.site.path()).unwrap().count(), 2, "no drafts stay");
    // The same set again, and as the command that prints it has it.
    let before = folders.published();
    folders.publish(&["--issuer", ISSUER]).expect(0);
    assert_eq!(folders.published(), before);
    let printed =
        run(&["keys", "jwks", "--purpose", "web-identity", "--data", folders.data(), "-o", "json"]).expect(0);
    assert_eq!(printed.json()["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn an_issuer_that_is_not_configured_or_can_be_none_is_refused() {
    let folders = Folders::new();
    for (issuer, problem) in [
        ("http://id.example", "https://"),
        ("https://id.example/", "trailing slash"),
        ("https://id.example/a?b", "plain"),
        ("https://id.example:8443", "port"),
        ("id.example", "https://"),
    ] {
        let ran = folders.publish(&["--issuer", issuer]).expect(2);
        assert!(ran.stderr.contains(problem), "{ran:?}");
    }
    folders.publish(&[]).expect(2);
    folders.publish(&["--issuer", ISSUER]).expect(0);
    let ran = folders.publish(&["--issuer", "https://other.example"]).expect(3);
    assert!(ran.stderr.contains("another issuer"), "{ran:?}");
}

#[test]
fn a_rotation_announces_keys_and_publishes_them_beside_the_old_ones() {
    let folders = Folders::new();
    folders.rotate(&[]).expect(1);
    folders.publish(&["--issuer", ISSUER]).expect(0);
    let first = folders.published();
    folders.rotate(&["--signs-in", "23h"]).expect(2);
    let rotated = folders.rotate(&["--signs-in", "36h"]).expect(0).json();
    assert!(rotated["keys"].as_array().unwrap().iter().any(|key| key["signs_from"].is_string()), "{rotated}");
    assert_eq!(folders.states(), ["signing", "signing", "announced", "announced"]);
    let ran = folders.rotate(&[]).expect(1);
    assert!(ran.stderr.contains("announced already"), "{ran:?}");

    let answer = folders.publish(&["--issuer", ISSUER]).expect(0).json();
    assert!(answer["upload_before"].is_string() && answer["warnings"] == json!([]), "{answer}");
    let both = folders.published();
    assert!(both.len() == 4 && first.iter().all(|kid| both.contains(kid)), "{both:?}");
    // Once it is out there is nothing to hurry for.
    assert_eq!(folders.publish(&["--issuer", ISSUER]).expect(0).json().get("upload_before"), None);
}

#[test]
fn a_key_that_may_be_needed_is_not_dropped() {
    let (one, other) = (Folders::new(), Folders::new());
    one.publish(&["--issuer", ISSUER]).expect(0);
    let site = one.site.path().to_str().unwrap();
    let publish = ["keys", "publish", "--to", site, "--data", other.data(), "--issuer", ISSUER];
    let before = one.published();
    let ran = run(&publish).expect(3);
    assert!(ran.stderr.contains("not of this data folder"), "{ran:?}");
    assert_eq!(one.published(), before);
    run(&[&publish[..], &["--force"]].concat()).expect(0);
    assert_ne!(one.published(), before);
}

#[test]
fn compromised_keys_are_replaced_at_once() {
    let folders = Folders::new();
    folders.publish(&["--issuer", ISSUER]).expect(0);
    let stolen = folders.published();
    let ran = folders.rotate(&["--compromised"]).expect(0).json();
    assert!(ran["next"].as_str().unwrap().contains("delete the OIDC provider"), "{ran}");
    folders.publish(&["--issuer", ISSUER]).expect(0);
    assert!(folders.published().iter().all(|kid| !stolen.contains(kid)));
    assert_eq!(folders.states().iter().filter(|state| *state == "signing").count(), 2);
}
