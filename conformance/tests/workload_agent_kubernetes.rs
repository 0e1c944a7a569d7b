//! Nodes of Kubernetes and their pods: a broker and agents as processes, and stand-ins for the cluster's TokenReview API
//! and for a kubelet.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

#[path = "workload_agent_kubernetes/pods.rs"]
mod pods;

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use deputize_conformance::{
    node_lab::{Agent, NodeLab, node_id, shown},
    spiffe_lab::SpiffeLab,
    trust::{Authority, write_private},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use pods::{ContainerGroup, Kubelet, pod};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the program ends with where the answer is `Unavailable`.
const UNREACHABLE: i32 = 6;
const UID: &str = "6f1f7a0e-0f5e-4a3c-9a53-3f2f4f3e8f01";

/// What the cluster says of each token.
type Reviews = Arc<Mutex<BTreeMap<String, Value>>>;

/// A cluster with its files.
struct Cluster {
    reviews: Reviews,
    folder: TempDir,
    port: u16,
}

impl Cluster {
    async fn start() -> Self {
        let (authority, folder, reviews) =
            (Authority::new(), tempfile::tempdir().unwrap(), Reviews::default());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        write_private(&folder.path().join("broker-token"), "the-brokers-own\n");
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&reviews));
        let port = serve(&authority, router).await;
        Self { reviews, folder, port }
    }

    async fn lab(&self) -> NodeLab {
        NodeLab::start(&json!({ "kubernetes": [{
            "cluster": "prod", "api": format!("https://localhost:{}", self.port),
            "ca_file": self.folder.path().join("ca.pem"), "token_file": self.folder.path().join("broker-token"),
            "audience": "deputize", "service_accounts": ["deputize-agent/agent"],
        }] }))
        .await
    }

    /// An agent in a pod with this token, of which the cluster says this.
    fn agent(&self, lab: &NodeLab, name: &str, says: Value) -> Agent {
        self.agent_with(lab, (name, says), &[])
    }

    /// The same, with these arguments besides.
    fn agent_with(&self, lab: &NodeLab, (name, says): (&str, Value), more: &[String]) -> Agent {
        self.reviews.lock().unwrap().insert(format!("token-of-{name}"), says);
        let file = self.folder.path().join(name);
        write_private(&file, &format!("token-of-{name}"));
        let own = ["--kubernetes-token-file", shown(&file)];
        let all: Vec<&str> = own.into_iter().chain(more.iter().map(String::as_str)).collect();
        lab.agent(name, &all)
    }
}

/// Serves it on loopback with a certificate of this authority; at which port.
async fn serve(authority: &Authority, router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(authority.certify().server());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                // A client that goes away is none of our business.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

/// As the API does: who asks has to be known, and who is reviewed is for the audiences that were asked about.
async fn review(State(reviews): State<Reviews>, headers: HeaderMap, Json(asked): Json<Value>) -> Json<Value> {
    assert_eq!(headers.get("authorization").unwrap(), "Bearer the-brokers-own");
    assert_eq!(asked.pointer("/spec/audiences"), Some(&json!(["deputize"])));
    let token = asked.pointer("/spec/token").and_then(Value::as_str).unwrap();
    let said = reviews.lock().unwrap().get(token).cloned();
    let status = said.unwrap_or_else(|| json!({ "authenticated": false, "error": "unknown" }));
    Json(json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status }))
}

fn good() -> Value {
    json!({
        "authenticated": true, "audiences": ["deputize"],
        "user": {
            "username": "system:serviceaccount:deputize-agent:agent", "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/node-name": ["worker-1"],
                "authentication.kubernetes.io/node-uid": [UID],
                "authentication.kubernetes.io/pod-name": ["agent-x"],
                "authentication.kubernetes.io/pod-uid": ["77d1a5ea-6d0a-4f6f-8a0f-0e3a7f1c2b3d"],
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_is_what_the_cluster_says_it_is() {
    let cluster = Cluster::start().await;
    let lab = cluster.lab().await;
    let node = node_id(&format!("kubernetes/prod/worker-1/{UID}"));
    lab.entry("mine", &node).await;
    let agent = cluster.agent(&lab, "one", good());
    agent.ready().await;
    assert_eq!(agent.svids().await.unwrap().svids.len(), 1);
    agent.process.kill();
    let again = cluster.agent(&lab, "again", good());
    again.ready().await;
    assert_eq!(again.svids().await.unwrap().svids.len(), 1, "a pod that starts again is the same node");
    let shown = lab.lab.deputize(&["node", "show", &node]);
    assert!(shown.contains("kubernetes") && shown.contains("worker-1"), "{shown}");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let attested = records.iter().filter(|record| record["spiffe"]["attested"] == "kubernetes");
    assert_eq!(attested.count(), 2);
    lab.lab.deputize(&["node", "ban", &node]);
    assert_eq!(cluster.agent(&lab, "banned", good()).process.ended().await.code(), Some(3));
    let mut anew = good();
    let uid = "/user/extra/authentication.kubernetes.io~1node-uid";
    *anew.pointer_mut(uid).unwrap() = json!([UID.replace('8', "9")]);
    let anew = cluster.agent(&lab, "anew", anew).process.ended().await;
    assert_eq!(anew.code(), Some(3), "whatever UID the cluster gives it");
    let said = lab.lab.deputize_to_any_end(&["node", "ban", "kubernetes/prod2/worker-1"]);
    assert!(said.contains("kubernetes/CLUSTER/NODE-NAME"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_token_says_too_little_is_no_node() {
    let cluster = Cluster::start().await;
    let lab = cluster.lab().await;
    let changed = |pointer: &str, value: Value| {
        let mut says = good();
        *says.pointer_mut(pointer).unwrap() = value;
        says
    };
    let node_name = "/user/extra/authentication.kubernetes.io~1node-name";
    let mut of_no_pod = good();
    let extra = of_no_pod.pointer_mut("/user/extra").and_then(Value::as_object_mut).unwrap();
    extra.remove("authentication.kubernetes.io/pod-uid").unwrap();
    for (name, says) in [
        ("unknown", json!({ "authenticated": false })),
        ("audience", changed("/audiences", json!(["https://kubernetes.default.svc"]))),
        ("no-audience", changed("/audiences", json!([]))),
        ("account", changed("/user/username", json!("system:serviceaccount:default:agent"))),
        ("no-node", changed("/user/extra", json!({}))),
        ("no-pod", of_no_pod),
        ("path", changed(node_name, json!(["../worker-1"]))),
    ] {
        let agent = cluster.agent(&lab, name, says);
        assert_eq!(agent.process.ended().await.code(), Some(3), "{name}: {}", agent.process.said());
    }
    let listed: Value = serde_json::from_str(&lab.lab.deputize(&["node", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed, json!([]), "none of them became one");
    let good = cluster.agent(&lab, "good", good());
    good.ready().await;
}

/// Pod and container; each test has its own, for control groups are the machine's.
const BOT: (&str, &str) = (
    "2c48913c-b29f-4fe1-8a2f-9d6f2c0ab123",
    "8f0e5f5f0a2c4e3d9b1a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f",
);
const LATER: (&str, &str) = (
    "3d59024d-c3a0-40f2-9b30-0e703d1bc234",
    "9a1f60601b3d5f4e0c2b8d7e6f504b3c2d1e0f908b7c6d5e4f302b1c0d9e8f70",
);
const BANNED: (&str, &str) = (
    "4e6a135e-d4b1-41a3-8c41-1f814e2cd345",
    "0b2071712c4e605f1d3c9e8f70615c4d3e2f10a19c8d7e6f50413c2d1e0fa081",
);
const EXPLAINED: (&str, &str) = (
    "5f7b246f-e5c2-42b4-9d52-2a925f3de456",
    "1c3182823d5f71602e4daf9081726d5e4f3021b2ad9e8f7061524d3e2f10b192",
);

/// An entry for pods of this account on these nodes.
async fn entry_of_pods(lab: &NodeLab, id: &str, (node, account): (&str, &str)) {
    let entry = json!({
        "id": id, "spiffe_id": format!("spiffe://example.org/{id}"), "nodes": [node_id(node)],
        "selectors": ["k8s:ns:support", format!("k8s:sa:{account}"), "k8s:container_name:main"],
    });
    let answer = lab.lab.world.order("POST", "/admin/entries", &entry).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_who_its_namespace_and_service_account_say_on_every_node_of_its_cluster() {
    let (cluster, kubelet) =
        (Cluster::start().await, Kubelet::start(json!([pod(BOT, "support", "bot")])).await);
    let lab = cluster.lab().await;
    entry_of_pods(&lab, "bot", ("kubernetes/prod/*", "bot")).await;
    entry_of_pods(&lab, "elsewhere", ("kubernetes/prod2/*", "bot")).await;
    entry_of_pods(&lab, "other", ("kubernetes/prod/*", "other")).await;
    let agent = cluster.agent_with(&lab, ("one", good()), &kubelet.arguments("ca.pem"));
    agent.ready().await;
    let fetch = ["svid", "fetch", "--socket", shown(&agent.socket)];
    let Some(group) = ContainerGroup::make(BOT) else { return };
    let (code, said) = group.deputize(&fetch);
    assert!(code == 0 && said.contains("spiffe://example.org/bot"), "{said}{}", agent.process.said());
    assert!(!said.contains("example.org/elsewhere") && !said.contains("example.org/other"), "{said}");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let asked_by: Vec<String> =
        records.iter().map(|record| record["spiffe"]["asked_by"].to_string()).collect();
    assert!(asked_by.iter().any(|told| told.contains("k8s:sa:bot")), "{asked_by:?}");
    // Outside of the pod, in a container that is not this pod's, and in pods that the kubelet has not heard of.
    assert!(agent.svids().await.is_err());
    for (place, end) in [((BOT.0, LATER.1), 3), ((LATER.0, BOT.1), UNREACHABLE), (LATER, UNREACHABLE)] {
        let Some(group) = ContainerGroup::make(place) else { return };
        let (code, said) = group.deputize(&fetch);
        assert_eq!(code, end, "{place:?}: {said}");
    }
    kubelet.renews_token("second");
    agent
        .process
        .wait_until(async || {
            let (code, _) = group.deputize(&fetch);
            code == 0
        })
        .await;
    // It is not asked again for what it said a moment ago. Then nobody can say whose this process is, and it is not taken
    // for what it would be besides.
    let besides = json!({
        "id": "besides", "spiffe_id": "spiffe://example.org/besides", "nodes": [node_id("kubernetes/prod/*")],
        "selectors": [format!("container:id:{}", BOT.1)],
    });
    assert_eq!(lab.lab.world.order("POST", "/admin/entries", &besides).await.status, 201);
    agent.process.wait_until(async || group.deputize(&fetch).1.contains("example.org/besides")).await;
    kubelet.says(403);
    agent
        .process
        .wait_until(async || {
            let (code, said) = group.deputize(&fetch);
            assert!(said.contains("example.org/bot") || !said.contains("example.org/besides"), "{said}");
            code == UNREACHABLE
        })
        .await;
    let told = agent.process.said();
    assert_eq!(told.matches("the kubelet cannot be asked").count(), 1, "{told}");
    assert!(told.contains("nodes/pods"), "what to do stands beside it: {told}");
    kubelet.says(200);
    agent.process.wait_until(async || group.deputize(&fetch).0 == 0).await;
    // Started again, it lists what lies on the node before it hears of all others.
    kubelet.lists(json!([pod(LATER, "kube-system", "static")]));
    agent
        .process
        .wait_until(async || {
            let (code, said) = group.deputize(&fetch);
            assert!(code == 0 && said.contains("example.org/bot") || code == UNREACHABLE, "{code}: {said}");
            code == UNREACHABLE
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_nodes_of_a_cluster_one_can_be_banned() {
    let (cluster, kubelet) =
        (Cluster::start().await, Kubelet::start(json!([pod(BANNED, "support", "bot")])).await);
    let lab = cluster.lab().await;
    entry_of_pods(&lab, "bot", ("kubernetes/prod/*", "bot")).await;
    lab.entry("any", &node_id("kubernetes/prod/*")).await;
    let mut other = good();
    *other.pointer_mut("/user/extra/authentication.kubernetes.io~1node-name").unwrap() = json!(["worker-2"]);
    let one = cluster.agent_with(&lab, ("one", good()), &kubelet.arguments("ca.pem"));
    // Its kubelet's pods are another node's: what it says counts for nothing there.
    let two = cluster.agent_with(&lab, ("two", other), &kubelet.arguments("ca.pem"));
    one.until_it_gives("any").await;
    two.until_it_gives("any").await;
    let on = |agent: &Agent| ["svid", "fetch", "--socket", shown(&agent.socket)].map(str::to_owned);
    let fetched = |group: &ContainerGroup, agent: &Agent| {
        let arguments = on(agent);
        group.deputize(&arguments.each_ref().map(String::as_str)).1
    };
    let group = ContainerGroup::make(BANNED);
    if let Some(group) = &group {
        assert!(fetched(group, &one).contains("spiffe://example.org/bot"));
        assert!(!fetched(group, &two).contains("spiffe://example.org/bot"));
        assert!(two.process.said().contains("another node's"), "{}", two.process.said());
    }
    lab.lab.deputize(&["node", "ban", &node_id(&format!("kubernetes/prod/worker-1/{UID}"))]);
    one.process.wait_until(async || one.svids().await.is_err()).await;
    two.until_it_gives("any").await;
    if let Some(group) = &group {
        assert!(!fetched(group, &one).contains("spiffe://example.org/bot"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_that_is_absent_for_want_of_a_kubelet_is_explained_so() {
    let kubelet = Kubelet::start(json!([pod(EXPLAINED, "support", "bot")])).await;
    let Some(group) = ContainerGroup::make(EXPLAINED) else { return };
    let mut sleeper = group.sleeper();
    let explained = async |authority: &str| {
        let lab = SpiffeLab::start_with(&json!({ "kubelet": kubelet.configured(authority) })).await;
        let entry = json!({
            "id": "bot", "spiffe_id": "spiffe://example.org/bot",
            "selectors": ["k8s:ns:support", "k8s:sa:bot", "systemd:id:none.service"],
        });
        assert_eq!(lab.world.order("POST", "/admin/entries", &entry).await.status, 201);
        lab.deputize_to_any_end(&["svid", "fetch", "--explain", "--pid", &sleeper.id().to_string()])
    };
    let known = explained("ca.pem").await;
    assert!(known.contains("is k8s:sa:bot") && known.contains("not systemd:id:none.service"), "{known}");
    let unknown = explained("stranger.pem").await;
    assert!(unknown.contains("the process is not k8s:sa:bot: kubelet not reachable: "), "{unknown}");
    assert!(!unknown.contains("not systemd:id:none.service: kubelet"), "{unknown}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}
