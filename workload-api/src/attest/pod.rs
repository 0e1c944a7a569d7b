//! What an orchestrator knows about a container: asked of the kubelet of this node, or of whoever else can tell.

use super::cgroup::Container;
use async_trait::async_trait;
use std::{collections::BTreeMap, time::Duration};

/// Knows the pods of this node.
#[async_trait]
pub trait PodData: Send + Sync + 'static {
    /// The pod that this container runs in, and the container's own part of it. `None` if it is not known, or if the
    /// container is not one of that pod. The UID is absent where only the container's id could be learned.
    async fn pod(&self, pod_uid: Option<&str>, container_id: &str) -> Option<Pod>;

    /// Why nothing can be learned at present, if so: for whoever asks why a selector is absent.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A pod, seen from one of its containers. What is empty is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of the container.
    pub container_name: String,
    /// The image that the container runs, as its runtime resolved it.
    pub container_image: String,
}

/// What is true of a process in this container, as values of selectors of the kind `k8s`.
pub(crate) async fn look_up(pods: &dyn PodData, container: &Container) -> Vec<String> {
    let uid = container.pod_uid.as_deref();
    let Ok(answer) = tokio::time::timeout(PATIENCE, pods.pod(uid, &container.id)).await else {
        tracing::warn!("what knows the pods does not answer in time");
        return Vec::new();
    };
    match answer {
        Some(pod) if uid.is_none_or(|uid| uid == pod.uid) => values(&pod),
        Some(_) => {
            tracing::warn!("what knows the pods tells of another pod");
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn values(pod: &Pod) -> Vec<String> {
    let one = [
        ("pod_uid", &pod.uid),
        ("ns", &pod.namespace),
        ("pod_name", &pod.name),
        ("sa", &pod.service_account),
        ("container_name", &pod.container_name),
        ("container_image", &pod.container_image),
    ];
    let known = one.into_iter().filter(|(_, value)| !value.is_empty());
    let labels = pod.labels.iter().take(MAX_LABELS).map(|(key, value)| format!("pod_label:{key}:{value}"));
    known.map(|(name, value)| format!("{name}:{value}")).chain(labels).collect()
}

const PATIENCE: Duration = Duration::from_secs(1);
const MAX_LABELS: usize = 256;
