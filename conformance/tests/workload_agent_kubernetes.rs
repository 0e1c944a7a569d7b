//! Nodes of Kubernetes: a broker and agents as processes, and a stand-in for the cluster's TokenReview API.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use deputize_conformance::{
    node_lab::{Agent, NodeLab, node_id, shown},
    trust::{Authority, write_private},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(authority.certify().server());
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&reviews));
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
        self.reviews.lock().unwrap().insert(format!("token-of-{name}"), says);
        let file = self.folder.path().join(name);
        write_private(&file, &format!("token-of-{name}"));
        lab.agent(name, &["--kubernetes-token-file", shown(&file)])
    }
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
                "authentication.kubernetes.io/pod-uid": ["77d1a5ea-6d0a-4f6f-8a0f-0e3a7f1c2b3d"],
    assert!(shown.contains("kubernetes") && shown.contains("worker-1"), "{shown}");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let attested = records.iter().filter(|record| record["spiffe"]["attested"] == "kubernetes");
    assert_eq!(attested.count(), 2);
    lab.lab.deputize(&["node", "ban", &node]);
    assert_eq!(cluster.agent(&lab, "banned", good()).process.ended().await.code(), Some(3));
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
    for (name, says) in [
        ("unknown", json!({ "authenticated": false })),
        ("audience", changed("/audiences", json!(["https://kubernetes.default.svc"]))),
        ("no-audience", changed("/audiences", json!([]))),
        ("account", changed("/user/username", json!("system:serviceaccount:default:agent"))),
        ("no-node", changed("/user/extra", json!({}))),
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
    let mut of_no_pod = good();
    let extra = of_no_pod.pointer_mut("/user/extra").and_then(Value::as_object_mut).unwrap();
    extra.remove("authentication.kubernetes.io/pod-uid").unwrap();
        ("no-pod", of_no_pod),
