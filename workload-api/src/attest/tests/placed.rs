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
    let asking = |answer: PodAnswer| {
        let pods: Option<Arc<dyn PodData>> = Some(Arc::new(Kubelet::with(answer)));
        attestor_with(AttestSettings { pods, ..AttestSettings::default() })
    };
    let workload = asking(PodAnswer::Known(main())).attest(&peer).await.unwrap();
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
    let unknown = asking(PodAnswer::Unknown).attest(&peer).await.unwrap();
    assert_eq!(unknown, without, "in no pod of this node: it is what else it is");
    // Who would have an entry for containers besides one for pods is not taken for that alone.
    let away = asking(PodAnswer::NotAsked);
    assert!(matches!(away.attest(&peer).await, Err(NotAttested::Unavailable(_))));
    assert_eq!(away.explain(&peer).await.unwrap(), without, "as far as it is known, to explain it");
    drop((actor, groups));
}

#[tokio::test]
async fn who_is_in_no_container_needs_no_kubelet() {
    let stage = Stage::set();
    let (actor, _stream, peer) = waiting(&stage, &program()).await;
    let Some(groups) = Groups::place(actor.pid(), &format!("deputizetest{}.plain", std::process::id()))
    else {
        return skip(NO_GROUPS);
    };
    let pods: Option<Arc<dyn PodData>> = Some(Arc::new(Kubelet::with(PodAnswer::NotAsked)));
    let attestor = attestor_with(AttestSettings { pods, ..AttestSettings::default() });
    assert!(!attestor.attest(&peer).await.unwrap().is_contained());
    drop((actor, groups));
}

fn main() -> PodContainer {
    PodContainer {
        pod: Arc::new(pod()),
        name: "main".to_owned(),
        image: "registry.example/ledger@sha256:00".to_owned(),
    }
}

fn pod() -> Pod {
    Pod {
        uid: POD.to_owned(),
        namespace: "payments".to_owned(),
        name: "ledger-0".to_owned(),
        service_account: "ledger".to_owned(),
        labels: [("app".to_owned(), "ledger".to_owned())].into(),
    }
}

/// A kubelet in memory: it always says the same, or never answers.
struct Kubelet {
    answer: PodAnswer,
    is_stuck: bool,
    asked: Mutex<Vec<(Option<String>, String)>>,
}

impl Kubelet {
    fn with(answer: PodAnswer) -> Self {
        Self { answer, is_stuck: false, asked: Mutex::default() }
    }
}

#[async_trait]
impl PodData for Kubelet {
    async fn pod(&self, pod_uid: Option<&str>, container_id: &str) -> PodAnswer {
        self.asked.lock().unwrap().push((pod_uid.map(str::to_owned), container_id.to_owned()));
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        self.answer.clone()
    }
}

fn container(pod_uid: Option<&str>) -> Container {
    Container { id: ID.to_owned(), runtime: None, pod_uid: pod_uid.map(str::to_owned) }
}

#[tokio::test]
async fn a_pod_is_asked_for_by_what_the_kernel_told() {
    let kubelet = Kubelet::with(PodAnswer::Known(main()));
    assert_eq!(pod::look_up(&kubelet, &container(Some(POD))).await.unwrap().len(), 7);
    let by_container = pod::look_up(&kubelet, &container(None)).await.unwrap();
    assert_eq!(by_container.len(), 7, "found by its container alone");
    let asked = kubelet.asked.lock().unwrap().clone();
    assert_eq!(asked, [(Some(POD.to_owned()), ID.to_owned()), (None, ID.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_pod_and_another_one_tell_nothing_and_no_answer_lets_nothing_be_said() {
    assert_eq!(pod::look_up(&Kubelet::with(PodAnswer::Unknown), &container(Some(POD))).await, Ok(Vec::new()));
    let of_other = Arc::new(Pod { uid: POD.replace('2', "3"), ..pod() });
    let other = Kubelet::with(PodAnswer::Known(PodContainer { pod: of_other, ..main() }));
    assert_eq!(pod::look_up(&other, &container(Some(POD))).await, Ok(Vec::new()));
    let stuck = Kubelet { is_stuck: true, ..Kubelet::with(PodAnswer::Known(main())) };
    for away in [stuck, Kubelet::with(PodAnswer::NotAsked)] {
        let said = pod::look_up(&away, &container(Some(POD))).await;
        assert!(matches!(said, Err(NotAttested::Unavailable(_))), "{said:?}");
    }
}

#[tokio::test]
async fn what_is_not_known_is_absent_and_labels_are_bounded() {
    let told = async |pod: Pod| {
        let bare = PodContainer { pod: Arc::new(pod), ..PodContainer::default() };
        pod::look_up(&Kubelet::with(PodAnswer::Known(bare)), &container(Some(POD))).await.unwrap()
    };
    let bare = Pod { uid: POD.to_owned(), ..Pod::default() };
    assert_eq!(told(bare.clone()).await, [format!("pod_uid:{POD}")]);
    let labels = (0..10_000).map(|at| (format!("l{at}"), String::new())).collect();
    assert_eq!(told(Pod { labels, ..bare }).await.len(), 257);
}
