//! Two brokers that federate with each other: one asks in the profile `https_web`, the other in `https_spiffe`. What one
//! mints, processes of the other verify; what changes at one arrives at the other; what is not to be believed leaves
//! everything as it was.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use deputize_conformance::{
    node_lab::{NodeLab, node_id},
    process,
    spiffe_lab::FOREIGN,
    wire::Request,
    workload_api::{
        Answers, Connection, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest,
        ValidateJwtSvidResponse, X509BundlesResponse,
    },
    workload_server::{authority_of, self_signed},
    world::{Started, World},
};
use serde_json::{Value, json};
use std::{os::unix::fs::MetadataExt, path::PathBuf};

const OURS: &str = "ours.test";
const THEIRS: &str = "theirs.test";

/// A broker of one trust domain, whose one entry is for this very process.
struct Broker {
    world: World,
    trust_domain: &'static str,
    /// Where its bundle endpoint with an SVID is.
    endpoint: String,
}

impl Broker {
    /// One that trusts `other`; it is started by [`Broker::start`].
    async fn new(trust_domain: &'static str, other: &str) -> Self {
        let world = World::new().await;
        let config = world.write_files();
        let folder = world.folder().to_owned();
        let uid = std::fs::metadata(&folder).unwrap().uid();
        std::fs::create_dir(folder.join("entries")).unwrap();
        let entry = json!({
            "id": "me", "spiffe_id": format!("spiffe://{trust_domain}/me"),
            "selectors": [format!("unix:uid:{uid}")], "federates_with": [other],
        });
        std::fs::write(folder.join("entries/me.yaml"), entry.to_string()).unwrap();
        let endpoint = format!("127.0.0.1:{}", free_port());
        let mut configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        configuration["spiffe"] = json!({
            "trust_domain": trust_domain, "socket": "workload.sock", "entries": "entries",
            "bundle_endpoint": { "address": endpoint },
        });
        std::fs::write(&config, configuration.to_string()).unwrap();
        Self { world, trust_domain, endpoint }
    }

    fn configure(&self, federation: &Value) {
        let config = self.world.config();
        let mut configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        configuration["spiffe"]["federation"] = federation.clone();
        std::fs::write(&config, configuration.to_string()).unwrap();
    }

    async fn start(&self) -> Started {
        let started = self.world.start_again(&self.world.config()).await;
        started.process.wait_until(async || Connection::open(&self.socket()).await.is_ok()).await;
        started
    }

    fn socket(&self) -> PathBuf {
        self.world.folder().join("workload.sock")
    }

    /// As another trust domain asks it in the profile `https_web`.
    fn of_the_web(&self) -> Value {
        json!({
            "trust_domain": self.trust_domain,
            "endpoint": {
                "url": format!("{}/spiffe/bundle", self.world.base), "profile": "https_web",
                "ca_file": self.world.folder().join("ca.pem"), "allow_private_addresses": true,
            },
        })
    }

    /// As another trust domain asks it in the profile `https_spiffe`, with this first bundle.
    fn of_spiffe(&self, first: &str) -> Value {
        json!({
            "trust_domain": self.trust_domain, "bundle_file": first,
            "endpoint": {
                "url": format!("https://{}/spiffe/bundle", self.endpoint), "profile": "https_spiffe",
                "endpoint_spiffe_id": format!("spiffe://{}/deputize/broker", self.trust_domain),
                "allow_private_addresses": true,
            },
        })
    }

    /// Its bundle, as it publishes it.
    async fn bundle(&self) -> Vec<u8> {
        let answer = self.world.door.send(&Request::get("/spiffe/bundle")).await.unwrap();
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// How many X.509 authorities it publishes.
    async fn authorities(&self) -> usize {
        let document: Value = serde_json::from_slice(&self.bundle().await).unwrap();
        document["keys"].as_array().unwrap().iter().filter(|key| key["use"] == "x509-svid").count()
    }

    async fn jwt_svid(&self) -> String {
        let connection = Connection::open(&self.socket()).await.unwrap();
        let asked = JwtSvidRequest { audience: vec!["audience".to_owned()], spiffe_id: String::new() };
        let answer: JwtSvidResponse =
            connection.ask_once("FetchJWTSVID", Some("true"), &asked).await.unwrap();
        answer.svids[0].svid.clone()
    }

    /// Whose a JWT-SVID is, for a process here.
    async fn validated(&self, svid: String) -> Result<String, String> {
        let connection = Connection::open(&self.socket()).await.unwrap();
        let asked = ValidateJwtSvidRequest { audience: "audience".to_owned(), svid };
        let answer: Result<ValidateJwtSvidResponse, _> =
            connection.ask_once("ValidateJWTSVID", Some("true"), &asked).await;
        answer.map(|answer| answer.spiffe_id).map_err(|ended| ended.to_string())
    }

    /// The X.509 bundles that a process here knows, as they change.
    async fn bundles(&self) -> Bundles {
        let connection = Connection::open(&self.socket()).await.unwrap();
        let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
        let answers = connection.ask("FetchX509Bundles", Some("true"), &nothing).await.unwrap();
        Bundles { answers, _connection: connection }
    }

    fn keys(&self, arguments: &[&str]) -> String {
        let config = self.world.config();
        let mut all = vec!["keys"];
        all.extend(arguments);
        all.extend(["--config", config.to_str().unwrap()]);
        for _ in 0..100 {
            let (success, said, complained) = process::run(&all);
            if success {
                return said;
            }
            // The broker is taking the last change at this very moment.
            assert!(
                complained.contains("another process is changing the authorities"),
                "{arguments:?}: {complained}"
            );
        }
        panic!("{arguments:?}: the broker changes its authorities without end");
    }

    /// The X.509 authorities that sign no more, by their ids.
    fn old_authorities(&self) -> Vec<String> {
        let keys: Value = serde_json::from_str(&self.keys(&["ls", "-o", "json"])).unwrap();
        let keys = keys["keys"].as_array().or(keys.as_array()).unwrap().clone();
        let is_old = |key: &&Value| {
            key["purpose"] == "X.509-SVIDs" && key["state"].as_str().unwrap().starts_with("old")
        };
        let id = |key: &Value| key["id"].as_str().or(key["kid"].as_str()).unwrap().to_owned();
        keys.iter().filter(is_old).map(id).collect()
    }

    /// What `deputize doctor` says of foreign trust domains, without a broker's other checks.
    fn doctor(&self) -> Vec<Value> {
        let config = self.world.config();
        let arguments = ["doctor", "--workload-api", "-o", "json", "--config", config.to_str().unwrap()];
        let (_, said, complained) = process::run(&arguments);
        let checks: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{complained}"));
        let of_bundles = |check: &&Value| check["what"].as_str().unwrap().starts_with("the bundle of ");
        checks.as_array().unwrap().iter().filter(of_bundles).cloned().collect()
    }

    /// The changes of bundles in its log: what, whose, from where.
    async fn recorded(&self) -> Vec<String> {
        let (entries, _) = self.world.log(0).await;
        let of_bundles = entries.iter().filter(|entry| entry["kind"] == "bundle");
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let words = |entry: &Value| {
            let bundle = &entry["bundle"];
            [&entry["result"], &bundle["trust_domain"], &bundle["from"]].map(word).join(" ")
        };
        of_bundles.map(words).collect()
    }
}

/// A stream of X.509 bundles.
struct Bundles {
    answers: Answers<X509BundlesResponse>,
    _connection: Connection,
}

impl Bundles {
    /// Waits until the bundle of a trust domain is so.
    async fn until(&mut self, trust_domain: &str, holds: impl Fn(Option<&Vec<u8>>) -> bool) -> Vec<u8> {
        loop {
            let told = self.answers.next().await.unwrap().unwrap();
            let bundle = told.bundles.get(&format!("spiffe://{trust_domain}"));
            if holds(bundle) {
                return bundle.cloned().unwrap_or_default();
            }
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_federate_in_both_profiles_and_follow_each_others_keys() {
    let (ours, theirs) = (Broker::new(OURS, THEIRS).await, Broker::new(THEIRS, OURS).await);
    theirs.configure(&json!([ours.of_the_web()]));
    let their_process = theirs.start().await;
    std::fs::write(ours.world.folder().join("theirs.json"), theirs.bundle().await).unwrap();
    ours.configure(&json!([theirs.of_spiffe("theirs.json")]));
    let our_process = ours.start().await;
    // Nobody was there when they asked first.
    theirs.world.reload(&their_process).await;
    let mut at_theirs = theirs.bundles().await;
    let first = at_theirs.until(OURS, |bundle| bundle.is_some()).await;
    assert_eq!(theirs.validated(ours.jwt_svid().await).await.unwrap(), format!("spiffe://{OURS}/me"));
    assert_eq!(ours.validated(theirs.jwt_svid().await).await.unwrap(), format!("spiffe://{THEIRS}/me"));
    assert!(ours.validated("e30.e30.e30".to_owned()).await.is_err());

    // https_web: a new authority of ours arrives there.
    ours.keys(&["prepare", "--purpose", "x509-svids"]);
    our_process.process.wait_until(async || ours.authorities().await == 2).await;
    theirs.world.reload(&their_process).await;
    let second = at_theirs.until(OURS, |bundle| bundle.is_some_and(|bundle| *bundle != first)).await;
    assert!(second.len() > first.len());

    // https_spiffe: their authorities are replaced one by one, and with them the SVID of their endpoint.
    let mut at_ours = ours.bundles().await;
    let first = at_ours.until(THEIRS, |bundle| bundle.is_some()).await;
    theirs.keys(&["prepare", "--purpose", "x509-svids"]);
    their_process.process.wait_until(async || theirs.authorities().await == 2).await;
    ours.world.reload(&our_process).await;
    let both = at_ours.until(THEIRS, |bundle| bundle.is_some_and(|bundle| bundle.len() > first.len())).await;
    theirs.keys(&["activate", "--purpose", "x509-svids", "--at-once"]);
    for old in theirs.old_authorities() {
        theirs.keys(&["taint", &old]);
        theirs.keys(&["revoke", &old]);
    }
    their_process.process.wait_until(async || theirs.authorities().await == 1).await;
    // Their endpoint shows an SVID of the new authority, which the bundle that we have knows already.
    let alone = async || {
        ours.world.reload(&our_process).await;
        ours.doctor().iter().all(|check| check["outcome"] == "good")
    };
    our_process.process.wait_until(alone).await;
    let last = at_ours.until(THEIRS, |bundle| bundle.is_some_and(|bundle| bundle.len() < both.len())).await;
    assert_ne!(last, first);
    assert_eq!(ours.validated(theirs.jwt_svid().await).await.unwrap(), format!("spiffe://{THEIRS}/me"));

    let recorded = ours.recorded().await;
    assert_eq!(recorded[0], "taken theirs.test file");
    assert!(recorded[1..].iter().all(|change| change == "taken theirs.test endpoint"), "{recorded:?}");
    let fetches = ours.world.metric_lines("deputize_federation_fetches_total").await;
    assert!(
        fetches.iter().any(|line| line.contains("theirs.test") && line.contains("\"ok\"")),
        "{fetches:?}"
    );
    let own = ours.world.log(0).await.0;
    let own =
        own.iter().find(|entry| entry["spiffe"]["spiffe_id"] == format!("spiffe://{OURS}/deputize/broker"));
    assert_eq!(own.unwrap()["kind"], "intent", "our own SVID has its record as every other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_the_endpoint_that_is_configured_changes_nothing_and_is_told() {
    let (ours, theirs) = (Broker::new(OURS, THEIRS).await, Broker::new(THEIRS, OURS).await);
    let their_process = theirs.start().await;
    std::fs::write(ours.world.folder().join("theirs.json"), theirs.bundle().await).unwrap();
    ours.configure(&json!([theirs.of_spiffe("theirs.json")]));
    let our_process = ours.start().await;
    let mut at_ours = ours.bundles().await;
    let good = at_ours.until(THEIRS, |bundle| bundle.is_some()).await;
    let changed = |change: fn(&mut Value)| {
        let mut federated = theirs.of_spiffe("theirs.json");
        change(&mut federated);
        json!([federated])
    };
    // The same bundle, asked in ways that may not be believed: at their other door, as another ID, and where it is not.
    let web = theirs.of_the_web()["endpoint"]["url"].clone();
    let mut at_the_other_door = changed(|_| {});
    at_the_other_door[0]["endpoint"]["url"] = web;
    for (what, federation) in [
        ("a certificate of the web", at_the_other_door),
        (
            "another ID",
            changed(|one| one["endpoint"]["endpoint_spiffe_id"] = json!("spiffe://theirs.test/me")),
        ),
        ("a private address", changed(|one| one["endpoint"]["allow_private_addresses"] = json!(false))),
        (
            "another path",
            changed(|one| {
                let url = one["endpoint"]["url"].as_str().unwrap().replace("/spiffe/bundle", "/");
                one["endpoint"]["url"] = json!(url);
            }),
        ),
    ] {
        ours.configure(&federation);
        ours.world.reload(&our_process).await;
        let told = async || ours.doctor().iter().any(|check| check["outcome"] == "bad");
        our_process.process.wait_until(told).await;
        assert_eq!(
            ours.validated(theirs.jwt_svid().await).await.unwrap(),
            format!("spiffe://{THEIRS}/me"),
            "{what}"
        );
        ours.configure(&changed(|_| {}));
        ours.world.reload(&our_process).await;
        let well = async || ours.doctor().iter().all(|check| check["outcome"] == "good");
        our_process.process.wait_until(well).await;
    }
    // While nobody is there, and after a restart, the last good one goes on.
    their_process.process.terminate();
    their_process.process.ended().await;
    our_process.process.terminate();
    our_process.process.ended().await;
    let _again = ours.start().await;
    let kept = ours.bundles().await.until(THEIRS, |bundle| bundle.is_some()).await;
    assert_eq!(kept, good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relationship_that_cannot_be_is_refused_with_what_to_do() {
    let ours = Broker::new(OURS, THEIRS).await;
    std::fs::write(ours.world.folder().join("theirs.json"), "{}").unwrap();
    let endpoint = |members: Value| {
        let mut endpoint = json!({ "url": "https://theirs.test/bundle", "profile": "https_web" });
        for (name, value) in members.as_object().unwrap() {
            endpoint[name] = value.clone();
        }
        json!([{ "trust_domain": THEIRS, "endpoint": endpoint }])
    };
    let spiffe = |id: &str| json!({ "profile": "https_spiffe", "endpoint_spiffe_id": id });
    // Each is authenticated by the bundle of the one behind it.
    let circle = |domains: &[(&str, &str)]| {
        let one = |(domain, whose): &(&str, &str)| {
            let mut endpoint = spiffe(&format!("spiffe://{whose}/x"));
            endpoint["url"] = json!(format!("https://{domain}/bundle"));
            json!({ "trust_domain": domain, "endpoint": endpoint })
        };
        Value::Array(domains.iter().map(one).collect())
    };
    for (federation, reason) in [
        (json!([{ "trust_domain": THEIRS }]), "give bundle_file, endpoint, or both"),
        (endpoint(json!({ "url": "http://theirs.test/bundle" })), "give https://HOST/PATH"),
        (endpoint(json!({ "url": "https://me:secret@theirs.test/bundle" })), "no user in it"),
        (endpoint(json!({ "profile": "https" })), "https_web"),
        (
            endpoint(json!({ "endpoint_spiffe_id": "spiffe://theirs.test/x" })),
            "for profile https_spiffe alone",
        ),
        (endpoint(json!({ "profile": "https_spiffe" })), "endpoint_spiffe_id is missing"),
        (endpoint(spiffe("theirs.test")), "endpoint_spiffe_id"),
        (endpoint(spiffe("spiffe://theirs.test/x")), "give bundle_file too"),
        (endpoint(spiffe("spiffe://elsewhere.test/x")), "add that trust domain to spiffe.federation"),
        (circle(&[(THEIRS, "a.test"), ("a.test", THEIRS)]), "a.test, theirs.test: each one's endpoint"),
        (
            circle(&[(THEIRS, "a.test"), ("a.test", "b.test"), ("b.test", "a.test")]),
            "give bundle_file to one of them",
        ),
    ] {
        ours.configure(&federation);
        let (success, said, complained) =
            process::run(&["lint", "--config", ours.world.config().to_str().unwrap()]);
        assert!(!success && (said.clone() + &complained).contains(reason), "{reason}: {said}{complained}");
    }
    // One that is authenticated by ours is a beginning, for another one too.
    let chain = circle(&[(THEIRS, "a.test"), ("a.test", "ours.test")]);
    for federation in [endpoint(spiffe("spiffe://ours.test/deputize/broker")), chain] {
        ours.configure(&federation);
        let (success, said, complained) =
            process::run(&["lint", "--config", ours.world.config().to_str().unwrap()]);
        assert!(success, "{said}{complained}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partners_key_of_a_kind_that_is_unknown_keeps_nothing_from_nodes() {
    let nodes = NodeLab::start(&json!({ "join_tokens": true })).await;
    let (lab, folder) = (&nodes.lab, nodes.lab.world.folder());
    let uid = std::fs::metadata(folder).unwrap().uid();
    let entry = |id: &str| {
        json!({
            "id": id, "spiffe_id": format!("spiffe://example.org/{id}"), "nodes": [node_id("edge-1"), node_id("edge-2")],
            "selectors": [format!("unix:uid:{uid}")], "federates_with": [FOREIGN],
        })
    };
    let create = async |id: &str| {
        let answer = lab.world.order("POST", "/admin/entries", &entry(id)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    };
    create("one").await;
    let agent = nodes.joined("edge-1").await;
    agent.until_it_gives("one").await;
    let federated = async || agent.svids().await.unwrap().federated_bundles.into_values().next().unwrap();
    let before = federated().await;

    // Its next authority comes beside the first one, with a key that no JWK of ours can say; and one as a JWK.
    let file = folder.join("foreign.json");
    let mut published: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let keys = published["keys"].as_array_mut().unwrap();
    let second = self_signed(authority_of(FOREIGN));
    let x5c = |der: &[u8]| json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(der)] });
    keys.push(x5c(second.der()));
    keys.push(x5c(&unknown_curve(second.der())));
    keys.push(json!({ "kty": "AKP", "alg": "ML-DSA-65", "use": "jwt-svid", "kid": "next", "pub": "AAAA" }));
    published["spiffe_sequence"] = json!(2);
    std::fs::write(&file, published.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
    agent.process.wait_until(async || federated().await != before).await;
    let after = federated().await;
    assert_eq!(after.len(), before.len() + second.der().len(), "what is understood is there");
    create("two").await;
    agent.until_it_gives("two").await;
    // An agent that begins now hears of all of it, too.
    nodes.joined("edge-2").await.until_it_gives("two").await;
}

/// This certificate, with a key on a curve that nobody knows.
fn unknown_curve(der: &[u8]) -> Vec<u8> {
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = der.windows(P256.len()).position(|part| part == P256).unwrap();
    let mut der = der.to_vec();
    der[at + P256.len() - 1] = 0x7f;
    der
}
