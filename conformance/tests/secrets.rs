//! Secret discovery, as Envoy asks for it: by a client that is made of Envoy's own messages.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    spiffe_lab::{FOREIGN, SpiffeLab, TRUST_DOMAIN},
    workload_api::{Connection, JwtSvidRequest, X509SvidResponse},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

const IDS: [&str; 2] = ["spiffe://example.org/myservice", "spiffe://example.org/myservice2"];

/// A client. It ends with this value.
struct Envoy {
    child: Child,
    said: Receiver<Value>,
}

impl Envoy {
    /// One that says that it is Envoy 1.`minor`.
    fn start(lab: &SpiffeLab, minor: u32) -> Self {
        Self::start_with(lab, minor, &[])
    }

    /// One that sends no metadata of its own.
    fn bare(lab: &SpiffeLab) -> Self {
        Self::start_with(lab, 30, &["bare"])
    }

    fn start_with(lab: &SpiffeLab, minor: u32, more: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/spiffe/bin/envoy-client");
        assert!(path.exists(), "the client of Envoy's messages is missing: run ./test, which builds it");
        let mut command = Command::new(path);
        command.arg(format!("unix:{}", lab.socket.display())).arg(minor.to_string()).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more.
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, said }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// What it hears next.
    fn hears(&self) -> Value {
        self.said.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// What it hears next, asking for this.
    fn ask(&mut self, names: &str) -> Value {
        self.tell(&format!("ask {names}"));
        self.hears()
    }

    /// Nothing was said up to now: what is asked for in another way is answered, and that is all.
    fn hears_nothing_else(&mut self) {
        self.tell("fetch default");
        let answer = self.hears();
        assert!(answer["secrets"]["default"].is_object() && answer["nonce"] == "1", "{answer}");
        assert_eq!(self.said.try_recv().err(), Some(std::sync::mpsc::TryRecvError::Empty));
    }

    /// Hears on until this holds.
    fn hears_until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.said.recv_timeout(Duration::from_secs(30)) {
                Ok(heard) if holds(&heard) => return heard,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{what} has not come")
                }
            }
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(heard: &Value) -> Vec<&str> {
    heard["secrets"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gets_its_own_certificates_and_whom_to_trust_by_name() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut envoy = Envoy::start(&lab, 30);
        let heard = envoy.ask("default ROOTCA");
        let certificate = &heard["secrets"]["default"];
        assert_eq!(
            (&certificate["ids"], &certificate["key_fits"]),
            (&json!([IDS[0]]), &json!(true)),
            "{heard}"
        );
        let trusted = &heard["secrets"]["ROOTCA"];
        assert_eq!(trusted["verifier"], "envoy.tls.cert_validator.spiffe");
        assert_eq!(trusted["domains"][TRUST_DOMAIN], json!([certificate["authority"]]), "{heard}");
        assert_eq!(trusted["domains"].as_object().unwrap().len(), 1, "{heard}");

        let heard = envoy.ask(&format!("{} {} spiffe://{FOREIGN} ALL", IDS[0], IDS[1]));
        for id in IDS {
            let certificate = &heard["secrets"][id];
            assert_eq!(
                (&certificate["ids"], &certificate["key_fits"]),
                (&json!([id]), &json!(true)),
                "{heard}"
            );
        }
        let domains = |name: &str| {
            heard["secrets"][name]["domains"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(domains("ALL"), [FOREIGN, TRUST_DOMAIN]);
        assert_eq!(domains(&format!("spiffe://{FOREIGN}")), [FOREIGN]);
        assert_ne!(
            heard["secrets"]["ALL"]["domains"][FOREIGN],
            heard["secrets"]["ALL"]["domains"][TRUST_DOMAIN]
        );

        // An old one, or another client of xDS, gets authorities, and never those of two trust domains in one.
        let mut old = Envoy::start(&lab, 17);
        let heard = old.ask(&format!("spiffe://{TRUST_DOMAIN} spiffe://{FOREIGN}"));
        let trusts = |domain: &str| heard["secrets"][format!("spiffe://{domain}")]["trusts"].clone();
        assert_eq!(trusts(TRUST_DOMAIN), json!([certificate["authority"]]));
        assert_eq!(trusts(FOREIGN).as_array().unwrap().len(), 1);
        assert_eq!(old.ask("ALL"), json!({ "ended": "InvalidArgument" }));
        let everything = old.ask("");
        let foreign = format!("spiffe://{FOREIGN}");
        let mut expected = vec![foreign.as_str(), "spiffe://example.org", IDS[0], IDS[1]];
        expected.sort_unstable();
        assert_eq!(names(&everything), expected);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_pushed_what_is_acknowledged_is_not_and_what_is_refused_waits_for_the_next() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut envoy = Envoy::start(&lab, 30);
        let first = envoy.ask("default");
        let mut trusting = Envoy::start(&lab, 30);
        trusting.tell("refuse");
        let refused = trusting.ask("ROOTCA");
        assert_eq!(refused["version"], "1");
        trusting.hears_nothing_else();
        envoy.hears_nothing_else();

        lab.deputize(&["keys", "prepare", "--purpose", "x509-svids"]);
        let both = trusting.hears();
        assert_eq!(both["version"], "2", "what was refused is followed by what is new: {both}");
        let authorities = both["secrets"]["ROOTCA"]["domains"][TRUST_DOMAIN].as_array().unwrap();
        assert_eq!(authorities.len(), 2, "{both}");
        envoy.hears_nothing_else();

        lab.deputize(&["keys", "rotate", "--purpose", "x509-svids", "--compromised"]);
        let authority = |heard: &Value| heard["secrets"]["default"]["authority"].clone();
        let renewed = envoy.hears_until("a new certificate", |heard| authority(heard) != authority(&first));
        assert_eq!(renewed["secrets"]["default"]["key_fits"], true);
        assert_eq!(renewed["secrets"]["default"]["ids"], json!([IDS[0]]));
        let trusted = |heard: &Value| {
            let all = heard["secrets"]["ROOTCA"]["domains"][TRUST_DOMAIN].as_array();
            all.is_some_and(|all| all.contains(&authority(&renewed)))
        };
        trusting.hears_until("the new authority", trusted);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_callers_is_refused_and_who_loses_its_entry_loses_its_stream() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut envoy = Envoy::start(&lab, 30);
        for (name, code) in [
            ("spiffe://example.org/another", "PermissionDenied"),
            ("spiffe://elsewhere.test", "PermissionDenied"),
            ("default spiffe://example.org/another", "PermissionDenied"),
            ("nonsense", "InvalidArgument"),
        ] {
            assert_eq!(envoy.ask(name), json!({ "ended": code }), "{name}");
            envoy.tell(&format!("fetch {name}"));
            assert_eq!(envoy.hears(), json!({ "ended": code }), "{name}");
        }
        assert_eq!(names(&envoy.ask("default")), ["default"]);
    });
    let mut envoy = tokio::task::block_in_place(|| {
        let mut envoy = Envoy::start(&lab, 30);
        assert_eq!(names(&envoy.ask(IDS[1])), [IDS[1]]);
        envoy
    });
    std::fs::remove_file(lab.world.folder().join("entries/myservice2.yaml")).unwrap();
    lab.world.reload(&lab.started).await;
    tokio::task::block_in_place(|| {
        assert_eq!(envoy.hears(), json!({ "ended": "PermissionDenied" }));
        assert_eq!(names(&envoy.ask("default")), ["default"]);
    });
    std::fs::remove_file(lab.world.folder().join("entries/myservice.yaml")).unwrap();
    lab.world.reload(&lab.started).await;
    tokio::task::block_in_place(|| {
        assert_eq!(envoy.hears(), json!({ "ended": "PermissionDenied" }));
        assert_eq!(
            envoy.ask("ROOTCA"),
            json!({ "ended": "PermissionDenied" }),
            "no bundle for strangers either"
        );
        envoy.tell("fetch default");
        assert_eq!(envoy.hears(), json!({ "ended": "PermissionDenied" }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_given_without_the_header_of_the_workload_api() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut envoy = Envoy::bare(&lab);
        for name in ["default", "ROOTCA"] {
            assert_eq!(envoy.ask(name), json!({ "ended": "InvalidArgument" }), "{name}");
            envoy.tell(&format!("fetch {name}"));
            assert_eq!(envoy.hears(), json!({ "ended": "InvalidArgument" }), "{name}");
        }
        let mut envoy = Envoy::start(&lab, 30);
        assert_eq!(names(&envoy.ask("default")), ["default"], "it is that alone");
    });
    let connection = Connection::open(&lab.socket).await.unwrap();
    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    for path in [
        "/SpiffeWorkloadAPI/FetchX509SVID",
        "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        "/envoy.service.secret.v3.SecretDiscoveryService",
        "/envoy.service.secret.v3.SecretDiscoveryServiceX/StreamSecrets",
    ] {
        let asked = connection.ask_at::<X509SvidResponse>(path, None, &nothing).await;
        let ended = match asked {
            Ok(mut answers) => answers.next().await.unwrap_err(),
            Err(ended) => ended,
        };
        assert_eq!(ended.code(), Some(3), "{path}");
    }
}
