//! Real control groups, and pods.

use super::*;
use crate::attest::cgroup::Container;
use async_trait::async_trait;
use std::{fs, path::PathBuf, sync::Mutex};

const ID: &str = "8f0e5f5f0a2c4e3d9b1a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f";
const POD: &str = "2c48913c-b29f-4fe1-8a2f-9d6f2c0ab123";

/// Control groups that are taken away in the end.
struct Groups {
    made: Vec<PathBuf>,
}

impl Groups {
    /// Puts a process in this group, of systemd's hierarchy or of the only one.
    fn place(pid: i32, path: &str) -> Option<Self> {
        let root = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = root.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let mut groups = Self { made: Vec::new() };
        let mut at = root;
        for segment in path.split('/') {
            at.push(segment);
            if !at.exists() {
                fs::create_dir(&at).ok()?;
                groups.made.push(at.clone());
            }
        }
        fs::write(at.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in self.made.iter().rev() {
            let _ = fs::remove_dir(group);
        }
    }
}

#[tokio::test]
async fn a_process_is_where_its_control_groups_are() {
    let stage = Stage::set();
    let own = std::process::id();
    let slice = format!("deputizetest{own}.slice");
    let attestor = attestor();
    for below in ["", "/evil.service", "/system.slice/sshd.service"] {
        let (actor, _stream, peer) = waiting(&stage, &program()).await;
        let path = format!("{slice}/agent.service{below}");
        let Some(groups) = Groups::place(actor.pid(), &path) else {
            return skip(NO_GROUPS);
        };
        let workload = attestor.attest(&peer).await.unwrap();
        assert_eq!(values(&workload, "systemd", "id"), just("agent.service"), "{path}");
        assert_eq!(values(&workload, "systemd", "slice"), just(slice.clone()));
        assert!(values(&workload, "container", "id").is_empty() && !workload.is_contained());
        drop((actor, groups));
    }
}

#[tokio::test]
async fn a_container_has_the_selectors_of_its_pod() {
    let stage = Stage::set();
    let (actor, _stream, peer) = waiting(&stage, &program()).await;
    let path = format!("kubepods/burstable/pod{POD}/{ID}");
    let Some(groups) = Groups::place(actor.pid(), &path) else {
        return skip(NO_GROUPS);
    };
    let without = attestor().attest(&peer).await.unwrap();
    assert!(has(&without, &format!("container:id:{ID}")) && has(&without, &format!("k8s:pod_uid:{POD}")));
    assert!(values(&without, "k8s", "ns").is_empty());
    assert!(without.is_contained() && values(&without, "unix", "user").is_empty());
    let pods: Option<Arc<dyn PodData>> = Some(Arc::new(Kubelet::with(Some(pod()))));
    let settings = AttestSettings { pods, ..AttestSettings::default() };
    let workload = attestor_with(settings).attest(&peer).await.unwrap();
    for selector in [
        "k8s:ns:payments",
        "k8s:sa:ledger",
        "k8s:pod_name:ledger-0",
        "k8s:pod_label:app:ledger",
        "k8s:container_name:main",
        "k8s:container_image:registry.example/ledger@sha256:00",
        "unix:uid:0",
    ] {
        if selector != "unix:uid:0" || stage.own_ids().0 == 0 {
            assert!(has(&workload, selector), "{selector}");
        }
    }
    drop((actor, groups));
}

fn pod() -> Pod {
    Pod {
        uid: POD.to_owned(),
        namespace: "payments".to_owned(),
        name: "ledger-0".to_owned(),
        service_account: "ledger".to_owned(),
        labels: [("app".to_owned(), "ledger".to_owned())].into(),
        container_name: "main".to_owned(),
        container_image: "registry.example/ledger@sha256:00".to_owned(),
    }
}

/// A kubelet in memory: it has one pod, or none, or never answers.
struct Kubelet {
    pod: Option<Pod>,
    is_stuck: bool,
    asked: Mutex<Vec<(Option<String>, String)>>,
}

impl Kubelet {
    fn with(pod: Option<Pod>) -> Self {
        Self { pod, is_stuck: false, asked: Mutex::default() }
    }
}

#[async_trait]
impl PodData for Kubelet {
    async fn pod(&self, pod_uid: Option<&str>, container_id: &str) -> Option<Pod> {
        self.asked.lock().unwrap().push((pod_uid.map(str::to_owned), container_id.to_owned()));
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        self.pod.clone()
    }
}

fn container(pod_uid: Option<&str>) -> Container {
    Container { id: ID.to_owned(), runtime: None, pod_uid: pod_uid.map(str::to_owned) }
}

#[tokio::test]
async fn a_pod_is_asked_for_by_what_the_kernel_told() {
    let kubelet = Kubelet::with(Some(pod()));
    assert_eq!(pod::look_up(&kubelet, &container(Some(POD))).await.len(), 7);
    assert_eq!(pod::look_up(&kubelet, &container(None)).await.len(), 7, "found by its container alone");
    let asked = kubelet.asked.lock().unwrap().clone();
    assert_eq!(asked, [(Some(POD.to_owned()), ID.to_owned()), (None, ID.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_a_late_one_and_one_about_another_pod_tell_nothing() {
    let nothing: Vec<String> = Vec::new();
    assert_eq!(pod::look_up(&Kubelet::with(None), &container(Some(POD))).await, nothing);
    let stuck = Kubelet { is_stuck: true, ..Kubelet::with(Some(pod())) };
    assert_eq!(pod::look_up(&stuck, &container(Some(POD))).await, nothing);
    let other = Kubelet::with(Some(Pod { uid: POD.replace('2', "3"), ..pod() }));
    assert_eq!(pod::look_up(&other, &container(Some(POD))).await, nothing);
}

#[tokio::test]
async fn what_is_not_known_is_absent_and_labels_are_bounded() {
    let bare = Pod { uid: POD.to_owned(), ..Pod::default() };
    let told = pod::look_up(&Kubelet::with(Some(bare.clone())), &container(Some(POD))).await;
    assert_eq!(told, [format!("pod_uid:{POD}")]);
    let labels = (0..10_000).map(|at| (format!("l{at}"), String::new())).collect();
    let told = pod::look_up(&Kubelet::with(Some(Pod { labels, ..bare })), &container(Some(POD))).await;
    assert_eq!(told.len(), 257);
}
