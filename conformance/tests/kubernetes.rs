//! `deploy/kubernetes`, as Kustomize builds it: what a cluster is asked for, and whether the program takes what is laid
//! out for it there.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/pod_files.rs"]
mod pod_files;

use deputize_conformance::{
    forge::Key,
    process::{Process, binary},
    trust::Authority,
};
use manifests::{Manifests, Pod};
use pod_files::PodFiles;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
};

#[test]
fn every_kustomization_is_valid_in_every_kubernetes_that_is_supported() {
    for folder in KUSTOMIZATIONS {
        let built = Manifests::build(&tree().join(folder));
        for version in KUBERNETES {
            let ran = validate(&built.to_yaml(), version);
            assert!(ran.status.success(), "{folder}: {}", said(&ran));
        }
        // It does look: a member that is none.
        let broken = built.to_yaml().replacen("\"metadata\":{", "\"metadata\":{\"lable\":\"x\",", 1);
        let ran = validate(&broken, KUBERNETES[0]);
        assert!(!ran.status.success() && said(&ran).contains("lable"), "{folder}: {}", said(&ran));
    }
}

#[test]
fn containers_may_do_no_more_than_they_must() {
    let mut found = Vec::new();
    for folder in KUSTOMIZATIONS {
        found.extend(Manifests::build(&tree().join(folder)).pods().iter().flat_map(Pod::liberties));
    }
    found.sort();
    found.dedup();
    let allowed: Vec<String> = LIBERTIES.iter().map(|(liberty, _)| (*liberty).to_owned()).collect();
    assert_eq!(found, allowed, "each has its reason in LIBERTIES");
}

#[test]
fn accounts_may_do_no_more_in_the_cluster_than_they_must() {
    let mut found = BTreeSet::new();
    for folder in KUSTOMIZATIONS {
        let built = Manifests::build(&tree().join(folder));
        for kind in ["Role", "ClusterRole"] {
            for role in built.of_kind(kind) {
                let name = role["metadata"]["name"].as_str().unwrap();
                for rule in role["rules"].as_array().unwrap() {
                    found.insert(format!(
                        "{name}: {} {}{}",
                        rule["verbs"], rule["apiGroups"], rule["resources"]
                    ));
                }
            }
        }
    }
    let allowed: BTreeSet<String> = RIGHTS.iter().map(|(right, _)| (*right).to_owned()).collect();
    assert_eq!(found, allowed, "each has its reason in RIGHTS");
}

#[test]
fn agents_ask_the_kubelet_of_their_own_node_by_a_token_for_that() {
    let built = Manifests::build(&tree().join("agent"));
    let agent = built.pod("deputize-agent");
    assert_eq!(agent.argument("--kubelet-address").unwrap(), "$(NODE_IP)");
    let variables = agent.spec["containers"][0]["env"].as_array().unwrap();
    let node = variables.iter().find(|variable| variable["name"] == "NODE_IP").unwrap();
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
    for (argument, volume, file) in
        [("--kubelet-ca", "kubelet-ca", "ca.crt"), ("--kubelet-token-file", "kubelet-token", "token")]
    {
        let expected = agent.mount(volume).join(file);
        assert_eq!(agent.argument(argument).unwrap(), expected.to_str().unwrap());
    }
    // Who gets the one token is not to get what the other opens.
    let token = |volume: &str| {
        agent.volume(volume)["projected"]["sources"][0]["serviceAccountToken"]["audience"].clone()
    };
    assert_eq!((token("token"), token("kubelet-token")), ("deputize".into(), Value::Null));
}

#[test]
fn what_is_too_much_is_seen() {
    let pod = |change: &dyn Fn(&mut Value)| {
        let built = Manifests::build(&tree().join("broker"));
        let mut pod = built.pods().remove(0);
        assert_eq!(pod.liberties(), Vec::<String>::new());
        change(&mut pod.spec);
        pod.liberties()
    };
    for (pointer, value) in [
        ("/securityContext/runAsNonRoot", serde_json::json!(false)),
        ("/securityContext/runAsUser", serde_json::json!(0)),
        ("/securityContext/seccompProfile/type", serde_json::json!("Unconfined")),
        ("/containers/0/securityContext/readOnlyRootFilesystem", serde_json::json!(false)),
        ("/containers/0/securityContext/allowPrivilegeEscalation", serde_json::json!(true)),
        (
            "/containers/0/securityContext/capabilities",
            serde_json::json!({ "drop": ["ALL"], "add": ["CHOWN"] }),
        ),
        ("/containers/0/securityContext/capabilities/drop", serde_json::json!(["CHOWN"])),
        ("/containers/0/resources/limits", serde_json::json!({ "cpu": 1 })),
        ("/containers/0/resources/requests", serde_json::json!({ "cpu": 1 })),
        ("/automountServiceAccountToken", serde_json::json!(true)),
        ("/enableServiceLinks", serde_json::json!(true)),
        ("/volumes/0", serde_json::json!({ "name": "config", "hostPath": { "path": "/" } })),
    ] {
        let found = pod(&|spec| *spec.pointer_mut(pointer).unwrap() = value.clone());
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
    }
    for member in ["hostPID", "hostNetwork", "hostIPC"] {
        assert_eq!(pod(&|spec| spec[member] = true.into()).len(), 1, "{member}");
    }
    assert_eq!(pod(&|spec| spec["containers"][0]["securityContext"]["privileged"] = true.into()).len(), 1);
}

#[test]
fn pods_get_the_agents_folder_read_only_and_find_the_socket_in_it() {
    let built = Manifests::build(&tree().join("example"));
    let (agents, others): (Vec<Pod>, Vec<Pod>) =
        built.pods().into_iter().partition(|pod| pod.name == "deputize-agent");
    let agent = &agents[0];
    let folder = agent.volume("socket")["hostPath"]["path"].as_str().unwrap().to_owned();
    let socket = agent.argument("--socket").unwrap();
    assert_eq!(Path::new(&socket).parent().unwrap(), agent.mount("socket"));
    let users: Vec<&Pod> = others.iter().filter(|pod| pod.has_volume("workload-socket")).collect();
    assert!(!users.is_empty());
    for pod in users {
        let volume = pod.volume("workload-socket");
        // Made by the agent: a pod that comes before it waits, and makes none of its own.
        assert_eq!(volume["hostPath"], serde_json::json!({ "path": folder, "type": "Directory" }));
        let mounts: Vec<&Value> = pod.mounts_of("workload-socket").collect();
        assert!(!mounts.is_empty() && mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
        let inside = Path::new(mounts[0]["mountPath"].as_str().unwrap());
        let found = inside.join(Path::new(&socket).file_name().unwrap());
        assert_eq!(pod.variable("SPIFFE_ENDPOINT_SOCKET").unwrap(), format!("unix://{}", found.display()));
    }
}

#[test]
fn what_refers_to_something_finds_it() {
    for folder in KUSTOMIZATIONS {
        let built = Manifests::build(&tree().join(folder));
        let (pods, problems) = (built.pods(), built.dangling());
        assert_eq!(problems, Vec::<String>::new(), "{folder}");
        for pod in &pods {
            assert!(
                built.has_closed_network(&pod.namespace),
                "{folder}: {} has no NetworkPolicy",
                pod.namespace
            );
        }
    }
}

#[test]
fn the_brokers_probes_ask_its_admin_listener() {
    let built = Manifests::build(&tree().join("example"));
    let broker = built.pod("deputize");
    for (probe, path) in
        [("startupProbe", "/readyz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        let asked = &broker.spec["containers"][0][probe]["httpGet"];
        assert_eq!((&asked["path"], &asked["port"]), (&path.into(), &"admin".into()), "{probe}");
    }
    let port = broker.port("admin").unwrap();
    let files = PodFiles::of(&broker, &built, |_, _| None);
    let configured = format!("admin:\n  address: 0.0.0.0:{port} ");
    assert!(files.text("/etc/deputize/config/deputize.yaml").contains(&configured));
}

#[test]
fn the_configuration_lints_as_it_is_mounted() {
    let built = Manifests::build(&tree().join("example"));
    let broker = built.pod("deputize");
    let files = PodFiles::of(&broker, &built, |_, _| None);
    let config = files.path(&broker.argument("--config").unwrap());
    let lint =
        || Command::new(binary()).args(["lint", "--strict", "--config"]).arg(&config).output().unwrap();
    let ran = lint();
    assert!(ran.status.success(), "{}", said(&ran));
    // It is these files that are looked at: the entries too, and that they are for nodes that there may be.
    for (file, from, to) in [
        ("/etc/deputize/entries/entries.yaml", "kubernetes/main/*", "kubernetes/main2/*"),
        ("/etc/deputize/entries/entries.yaml", "id: crm\n", "id: support-bot\n"),
        ("/etc/deputize/config/deputize.yaml", "\nissuer: https:", "\nissuer: http:"),
    ] {
        files.replace(file, from, to);
        assert_eq!(lint().status.code(), Some(5), "{file}: {to}");
        files.replace(file, to, from);
    }
}

#[tokio::test]
async fn a_broker_and_a_guard_start_on_what_is_mounted() {
    let built = Manifests::build(&tree().join("example"));
    let authority = Authority::new();
    let certificate = authority.certify();
    let secrets = |name: &str, file: &str| match (name, file) {
        ("deputize-tls" | "crm-tls", "tls.crt") => Some(certificate.certificate_pem.clone()),
        ("deputize-tls" | "crm-tls", "tls.key") => Some(certificate.key_pem.clone()),
        ("deputize-ca" | "kube-root-ca.crt", "ca.crt") => Some(authority.pem()),
        ("crm-guard-key", "crm-guard.private.jwk.json") => Some(Key::es256().private_jwk().to_string()),
        ("deputize-snapshot-keys", "jwks.json") => Some(format!("{{\"keys\":[{}]}}", Key::es256().jwk())),
        _ => None,
    };
    let broker = built.pod("deputize");
    let files = PodFiles::of(&broker, &built, secrets);
    let config = "/etc/deputize/config/deputize.yaml";
    files.replace(config, "0.0.0.0:8443", "127.0.0.1:0");
    files.replace(config, "0.0.0.0:9090", "127.0.0.1:0");
    let (config, ready) = (files.path(config), files.root().join("ready.json"));
    let arguments = ["serve", "--config", config.to_str().unwrap(), "--ready-file", ready.to_str().unwrap()];
    let process = Process::start(&arguments, &files.root().join("broker.log"));
    process.wait_until(async || ready.exists()).await;

    let guard = built.pod("crm");
    let files = PodFiles::of(&guard, &built, secrets);
    let config = files.path(&guard.argument("--config").unwrap());
    let arguments = ["guard", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let process = Process::start(&arguments, &files.root().join("guard.log"));
    // All that it still waits for is the node's agent.
    process.wait_until(async || process.said().contains("waiting for the workload api")).await;
}

#[test]
fn no_secret_is_in_the_tree() {
    for folder in KUSTOMIZATIONS {
        let built = Manifests::build(&tree().join(folder));
        assert_eq!(built.of_kind("Secret").count(), 0, "{folder}");
        let text = built.to_yaml();
        for sign in ["PRIVATE KEY", "\\\"d\\\":", "AKIA"] {
            assert!(!text.contains(sign), "{folder}: {sign}");
        }
    }
}

#[test]
fn the_policies_are_those_that_come_with_deputize() {
    let (here, there) = (tree().join("broker/policies"), tree().join("../../broker/policies"));
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&here), names(&there));
    for name in names(&here) {
        let text = |folder: &Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert_eq!(text(&here), text(&there), "{name:?}: copy it");
    }
}

/// Holds resources against the schemas of one version of Kubernetes.
fn validate(yaml: &str, version: &str) -> Output {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let mut program = Command::new(installed("kubernetes-validate"));
    program.args(["--strict", "--quiet", "-k", version]).arg(file.path()).output().unwrap()
}

fn said(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

/// What `./test` installed.
pub(crate) fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes/bin").join(name);
    assert!(path.exists(), "{name} is missing: run ./test, which installs it");
    path
}

const KUSTOMIZATIONS: [&str; 3] = ["broker", "agent", "example"];
/// The oldest and the newest that are supported.
const KUBERNETES: [&str; 2] = ["1.32", "1.37"];
/// What service accounts may do in the cluster, and why.
const RIGHTS: [(&str, &str); 2] = [
    (
        "deputize-agent-pods: [\"get\"] [\"\"][\"nodes/pods\"]",
        "the kubelet says which pods run on the agent's node",
    ),
    (
        "deputize-token-review: [\"create\"] [\"authentication.k8s.io\"][\"tokenreviews\"]",
        "the cluster says whose token an agent brings",
    ),
];
/// What pods may do beyond the narrowest, and why.
const LIBERTIES: [(&str, &str); 5] = [
    ("crm: mounts /run/deputize of the node", "the socket of the Workload API is there, and read-only"),
    ("deputize-agent: has hostPID", "it attests processes of other pods, and must see them"),
    ("deputize-agent: mounts /run/deputize of the node", "it lays the socket there"),
    ("deputize-agent: runs as root", "the node's folder is root's; it has no capabilities"),
    ("deputize-agent: writes to /run/deputize of the node", "it lays the socket there"),
];
