//! What an orchestrator knows about a container: asked of the kubelet of this node, or of whoever else can tell.

use super::cgroup::Container;
use crate::peer::NotAttested;
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Knows the pods of this node.
#[async_trait]
pub trait PodData: Send + Sync + 'static {
    /// Which container this is, and of which pod. The UID is absent where only the container's id could be learned.
    async fn pod(&self, pod_uid: Option<&str>, container_id: &str) -> PodAnswer;

    /// Why nothing can be learned at present, if so: for whoever asks why a selector is absent.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodAnswer {
    /// It is this one.
    Known(PodContainer),
    /// That pod has no such container; where no pod was named, none of this node has it.
    Unknown,
    /// Nobody can say now whether it is in a pod, or what is known of that pod.
    NotAsked,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodContainer {
    /// Its pod: the same for all of its containers.
    pub pod: Arc<Pod>,
    /// The name of the container. Empty where it is not known.
    pub name: String,
    /// The image that the container runs, as its runtime resolved it. Empty where it is not known.
    pub image: String,
}

/// A pod. What is empty is not known.
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
    /// Its labels; [`MAX_POD_LABELS`] at most count.
    pub labels: BTreeMap<String, String>,
}

/// What is true of a process in this container, as values of selectors of the kind `k8s`.
///
/// # Errors
/// [`NotAttested::Unavailable`] where that cannot be asked now. Without its pod's selectors the process might pass for
/// another: nothing is said of it then.
pub(crate) async fn look_up(pods: &dyn PodData, container: &Container) -> Result<Vec<String>, NotAttested> {
    let uid = container.pod_uid.as_deref();
    let Ok(answer) = tokio::time::timeout(PATIENCE, pods.pod(uid, &container.id)).await else {
        tracing::warn!("what knows the pods does not answer in time");
        return Err(NOT_ASKED);
    };
    match answer {
        PodAnswer::Known(found) if uid.is_none_or(|uid| uid == found.pod.uid) => Ok(values(&found)),
        PodAnswer::Known(_) => {
            tracing::warn!("what knows the pods tells of another pod");
            Ok(Vec::new())
        }
        PodAnswer::Unknown => Ok(Vec::new()),
        PodAnswer::NotAsked => Err(NOT_ASKED),
    }
}

fn values(container: &PodContainer) -> Vec<String> {
    let pod = &container.pod;
    let one = [
        ("pod_uid", &pod.uid),
        ("ns", &pod.namespace),
        ("pod_name", &pod.name),
        ("sa", &pod.service_account),
        ("container_name", &container.name),
        ("container_image", &container.image),
    ];
    let known = one.into_iter().filter(|(_, value)| !value.is_empty());
    let labels = pod.labels.iter().take(MAX_POD_LABELS);
    let labels = labels.map(|(key, value)| format!("pod_label:{key}:{value}"));
    known.map(|(name, value)| format!("{name}:{value}")).chain(labels).collect()
}

/// So many labels of a pod become selectors.
pub const MAX_POD_LABELS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(1);
const NOT_ASKED: NotAttested =
    NotAttested::Unavailable("the kubelet does not say now which pod this container is of: try again later");
