//! `deputize keys` of the authorities that sign SVIDs: beside a running `serve`, which takes what it did, and without.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::Value;
use std::{collections::BTreeSet, path::PathBuf, thread, time::Duration};
use x509_parser::{certificate::X509Certificate, pem::Pem, prelude::FromDer as _};

use crate::{
    broker::{Broker, SPIFFE, Watch, own_uid},
    program::{Ran, run},
};

const X509: &str = "X.509-SVIDs";
const JWT: &str = "JWT-SVIDs";

#[test]
fn an_authority_is_prepared_activated_tainted_and_revoked_while_a_stream_is_open() {
    let (broker, mut follower) = broker_with_follower();
    let first = broker.only(X509, "active");
    let before = follower.next();
    assert_eq!((before.authorities, before.is_trusted), (1, true));
    broker.refused(&["activate", "--purpose", "x509-svids"], "none is prepared");
    for verb in ["taint", "revoke"] {
        broker.refused(&[verb, &first], "it is the one that signs");
        broker.refused(&[verb, "00000000000000000000"], "there is no such authority");
        broker.refused(&[verb, &first[..7]], "there is no such authority");
    }

    let answer = broker.keys(&["prepare", "--purpose", "x509-svids"]).expect(0).json();
    assert!(answer["next"].as_str().unwrap().contains("keys activate"), "{answer}");
    let next = broker.only(X509, "prepared");
    let known = follower.until(|state| state.authorities == 2);
    assert_eq!(known.serial, before.serial, "what is prepared signs nothing");
    broker.refused(&["prepare", "--purpose", "x509-svids"], "one is prepared already");
    broker.refused(&["activate", "--purpose", "x509-svids"], "not everybody who verifies has it yet");
    broker.refused(&["taint", &next[..12]], "it has signed nothing yet");

    broker.keys(&["activate", "--purpose", "x509-svids", "--at-once"]).expect(0);
    assert_eq!((broker.only(X509, "active"), broker.only(X509, "old")), (next.clone(), first.clone()));
    broker.refused(&["revoke", &first], "what it signed is still in use");

    broker.keys(&["taint", &first[..8]]).expect(0);
    let replaced = follower.until(|state| state.serial != before.serial);
    assert_eq!((replaced.authorities, replaced.is_trusted), (2, true));
    broker.refused(&["taint", &first], "it is tainted already");

    broker.keys(&["revoke", &first]).expect(0);
    let after = follower.until(|state| state.authorities == 1);
    assert_eq!((after.serial, after.is_trusted), (replaced.serial, true));
    assert_eq!(broker.ids(X509), [next]);
    broker.refused(&["revoke", &first], "there is no such authority");
}

#[test]
fn what_a_revoked_authority_signed_is_replaced_though_nobody_saw_it_tainted() {
    let (broker, mut follower) = broker_with_follower();
    let (first, before) = (broker.only(X509, "active"), follower.next());
    // All of it between two looks of the broker.
    broker.signal(Signal::STOP);
    broker.keys(&["prepare", "--purpose", "x509-svids"]).expect(0);
    broker.keys(&["activate", "--purpose", "x509-svids", "--at-once"]).expect(0);
    broker.keys(&["taint", &first]).expect(0);
    broker.keys(&["revoke", &first]).expect(0);
    broker.signal(Signal::CONT);
    let after = follower.next();
    assert_eq!((after.authorities, after.is_trusted), (1, true));
    assert_ne!(after.serial, before.serial);
}

#[test]
fn the_key_of_jwt_svids_is_rotated_and_replaced_at_once_where_it_is_stolen() {
    let broker = Broker::start(SPIFFE);
    broker.create("agent", "spiffe://example.org/agent", &own_uid());
    let first = broker.only(JWT, "active");
    assert_eq!(broker.signs_jwt_svids(), first);
    let too_soon = broker.keys(&["rotate", "--purpose", "jwt-svids", "--signs-in", "9m"]).expect(2);
    assert!(too_soon.stderr.contains("--signs-in"), "{too_soon:?}");
    let rotated = broker.keys(&["rotate", "--purpose", "jwt-svids"]).expect(0).json();
    assert!(rotated["keys"].as_array().unwrap().iter().any(|key| key["signs_from"].is_string()), "{rotated}");
    let announced = broker.only(JWT, "prepared");
    until(|| broker.published() == BTreeSet::from([first.clone(), announced.clone()]));
    broker.refused(&["rotate", "--purpose", "jwt-svids"], "one is prepared already");
    assert_eq!(broker.signs_jwt_svids(), first);

    let replaced = broker.keys(&["rotate", "--purpose", "jwt-svids", "--compromised"]).expect(0).json();
    assert!(replaced["next"].as_str().unwrap().contains("keys revoke"), "{replaced}");
    let second = broker.only(JWT, "active");
    assert!(second != first && second != announced, "what lay beside a stolen key is stolen too");
    assert_eq!(broker.only(JWT, "tainted"), first);
    until(|| broker.signs_jwt_svids() == second);
    assert_eq!(broker.published(), BTreeSet::from([first.clone(), second.clone()]));
    broker.keys(&["revoke", &first]).expect(0);
    until(|| broker.published() == BTreeSet::from([second.clone()]));
    assert_eq!(broker.ids(X509).len(), 1, "of the other kind nothing changed");
}

#[test]
fn authorities_change_without_a_broker_but_not_before_one_made_them() {
    let nothing = tempfile::tempdir().unwrap();
    let prepare = ["keys", "prepare", "--purpose", "x509-svids", "--data", nothing.path().to_str().unwrap()];
    assert!(run(&prepare).expect(1).stderr.contains("there are no authorities"));

    let mut broker = Broker::start(SPIFFE);
    broker.stop();
    let first = broker.only(X509, "active");
    broker.keys(&["rotate", "--purpose", "x509-svids", "--compromised"]).expect(0);
    let second = broker.only(X509, "active");
    assert_eq!(broker.only(X509, "tainted"), first);
    // One that is prepared and not wanted goes without ado.
    broker.keys(&["prepare", "--purpose", "x509-svids"]).expect(0);
    let unwanted = broker.only(X509, "prepared");
    broker.keys(&["revoke", &unwanted]).expect(0);
    broker.start_again();
    let of_x509 = |key: &&Value| key["use"] == "x509-svid";
    assert_eq!(broker.get("/spiffe/bundle")["keys"].as_array().unwrap().iter().filter(of_x509).count(), 2);
    assert_eq!(broker.only(X509, "active"), second);
    run(&["keys", "prepare", "--purpose", "tool-calls"]).expect(2);
    run(&["keys", "taint"]).expect(2);
}

impl Broker {
    fn keys(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["keys"], arguments, &["-o", "json"]].concat())
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], said: &str) {
        let before = self.listed();
        let refused = self.keys(arguments).expect(1);
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        assert_eq!(self.listed(), before, "and nothing changed");
    }

    fn listed(&self) -> Vec<Value> {
        self.keys(&["ls"]).expect(0).json().as_array().unwrap().clone()
    }

    /// The ids of all authorities that sign this, oldest first.
    fn ids(&self, purpose: &str) -> Vec<String> {
        let listed = self.listed();
        let ids = listed.iter().filter(|key| key["purpose"] == purpose);
        ids.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// The id of the one that stands there.
    #[track_caller]
    fn only(&self, purpose: &str, state: &str) -> String {
        let listed = self.listed();
        let stands_there = |key: &&Value| {
            key["purpose"] == purpose && key["state"].as_str().unwrap().split(',').next() == Some(state)
        };
        let [key] = listed.iter().filter(stands_there).collect::<Vec<_>>()[..] else {
            panic!("not one {state}: {listed:?}")
        };
        key["kid"].as_str().unwrap().to_owned()
    }

    /// The key of a JWT-SVID that is fetched now.
    fn signs_jwt_svids(&self) -> String {
        let svids = self.run(&["svid", "fetch", "--audience", "https://db.example", "-o", "json"]).expect(0);
        let token = svids.json()[0]["token"].as_str().unwrap().to_owned();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    }

    /// The keys of JWT-SVIDs that verifiers find.
    fn published(&self) -> BTreeSet<String> {
        let keys = self.get("/spiffe/jwks")["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

/// A process that keeps the files of its X.509-SVID fresh, and looks at what is in them.
struct Follower {
    watch: Watch,
    files: PathBuf,
}

/// What the files say.
#[derive(Debug)]
struct State {
    serial: String,
    /// How many authorities are in the bundle.
    authorities: usize,
    /// Whether the SVID was signed by one of them.
    is_trusted: bool,
}

fn broker_with_follower() -> (Broker, Follower) {
    let broker = Broker::start(SPIFFE);
    broker.create("agent", "spiffe://example.org/agent", &own_uid());
    let files = broker.folder.path().join("svid");
    let watch = broker.watch_with(&["--write", files.to_str().unwrap()]);
    (broker, Follower { watch, files })
}

impl Follower {
    /// The state of the next message.
    fn next(&mut self) -> State {
        self.watch.message();
        let (svid, bundle) = (self.certificates("svid.pem"), self.certificates("bundle.pem"));
        let (_, leaf) = X509Certificate::from_der(&svid[0].contents).unwrap();
        let signed = |authority: &Pem| {
            let (_, authority) = X509Certificate::from_der(&authority.contents).unwrap();
            leaf.verify_signature(Some(authority.public_key())).is_ok()
        };
        State {
            serial: leaf.raw_serial_as_string(),
            authorities: bundle.len(),
            is_trusted: bundle.iter().any(signed),
        }
    }

    /// The first state of which this is true. Nothing changes meanwhile but what was done last.
    fn until(&mut self, is_so: impl Fn(&State) -> bool) -> State {
        loop {
            let state = self.next();
            assert!(state.is_trusted, "in no state is it without its authority: {state:?}");
            if is_so(&state) {
                return state;
            }
        }
    }

    fn certificates(&self, name: &str) -> Vec<Pem> {
        let text = std::fs::read(self.files.join(name)).unwrap();
        Pem::iter_from_buffer(&text).map(Result::unwrap).collect()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process is looked at again until it has done its part"
)]
fn pause() {
    thread::sleep(Duration::from_millis(50));
}

/// Waits until something is so.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        pause();
    }
    panic!("it never was");
}
