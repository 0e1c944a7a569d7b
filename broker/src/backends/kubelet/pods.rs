//! What a kubelet says of its pods (`PodList` of Kubernetes' core API, v1), as far as it matters here.

use deputize_workload_api::attest::{MAX_POD_LABELS, Pod, PodContainer};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::items::Items;

/// Pods, by the ids of their containers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// Several for an id that several have: whoever may change what is said of a pod may say any.
    by_container: HashMap<String, Vec<PodContainer>>,
    /// Those of all pods that say who they are, whether or not they have containers, or are left out.
    uids: HashSet<String>,
    kept_bytes: usize,
    /// How many pods are left out: what was said of them is too large, or does not say who they are.
    left_out: usize,
}

/// Why an answer does not say which pods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPods {
    /// It is something else.
    #[error("the answer is no list of pods")]
    Malformed,
    /// They are another node's.
    #[error("the pods of the answer are another node's")]
    OfAnotherNode,
    /// There are more than a node has.
    #[error("the answer has more than the pods of a node")]
    TooLarge,
}

/// An answer that is being read; of this node alone, where its name is known.
pub(super) struct Reading {
    node_name: Option<String>,
    items: Items,
    pods: Pods,
}

impl Reading {
    pub(super) fn new(node_name: Option<String>) -> Self {
        Self { node_name, items: Items::default(), pods: Pods::default() }
    }

    /// Goes on. Whether so much has come that it is to be taken in.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, NotPods> {
        self.items.feed(bytes)?;
        Ok(self.items.waiting_bytes() >= ENOUGH_BYTES)
    }

    /// Takes in what has come: it may take a while.
    pub(super) fn take_in(mut self) -> Result<Self, NotPods> {
        for item in self.items.take() {
            self.pods.take_in(&item, self.node_name.as_deref())?;
        }
        Ok(self)
    }

    /// The pods, at the answer's end.
    pub(super) fn finish(self) -> Result<Pods, NotPods> {
        let Self { items, pods, .. } = self.take_in()?;
        let (frame, count) = items.into_frame();
        let list: PodList = serde_json::from_slice(&frame).map_err(|_| NotPods::Malformed)?;
        let has_items_alone = list.items.unwrap_or_default().len() == count;
        if list.kind == "PodList" && has_items_alone { Ok(pods) } else { Err(NotPods::Malformed) }
    }
}

impl Pods {
    /// A container, and its pod. Where the kernel says which pod it is, it has to be that one; and there has to be one
    /// alone, or nobody knows whose process it is.
    pub(super) fn find(&self, pod_uid: Option<&str>, container_id: &str) -> Option<PodContainer> {
        let all = self.by_container.get(container_id)?.iter();
        let mut fitting = all.filter(|one| pod_uid.is_none_or(|uid| uid == one.pod.uid));
        let found = fitting.next()?;
        fitting.next().is_none().then(|| found.clone())
    }

    /// Whether a container that is not found is in no pod. A kubelet that has just begun lists the pods that lie on the
    /// node before it hears of all others (kubernetes/kubernetes#112119): what it does not list may run here.
    pub(super) fn can_rule_out(&self, pod_uid: Option<&str>) -> bool {
        match pod_uid {
            Some(uid) => self.uids.contains(uid),
            None => !self.by_container.is_empty(),
        }
    }

    /// How many pods are left out.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// What is wrong with one pod is that one's misfortune: whoever may create pods takes nothing from others by it.
    fn take_in(&mut self, item: &[u8], node_name: Option<&str>) -> Result<(), NotPods> {
        match serde_json::from_slice::<Item>(item) {
            Ok(item) if node_name.is_some_and(|name| item.spec.node_name != name) => {
                return Err(NotPods::OfAnotherNode);
            }
            Ok(item) if item.is_one() => self.add(item),
            Ok(item) => self.leave_out(item.metadata.uid),
            Err(_) => {
                let identified = serde_json::from_slice::<Identified>(item).ok();
                self.leave_out(identified.map(|item| item.metadata.uid).unwrap_or_default());
            }
        }
        if self.kept_bytes > MAX_KEPT_BYTES { Err(NotPods::TooLarge) } else { Ok(()) }
    }

    fn leave_out(&mut self, uid: String) {
        self.left_out += 1;
        self.keep_uid(uid);
    }

    fn keep_uid(&mut self, uid: String) {
        if !uid.is_empty() && uid.len() <= MAX_NAME_BYTES {
            self.kept_bytes += uid.len() + UID_BYTES;
            self.uids.insert(uid);
        }
    }

    fn add(&mut self, item: Item) {
        let containers = item.status.containers();
        let Item { metadata, spec, .. } = item;
        self.keep_uid(metadata.uid.clone());
        let pod = Arc::new(Pod {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            service_account: spec.service_account_name,
            labels: metadata.labels.unwrap_or_default().0,
        });
        let before = self.kept_bytes;
        for Container { name, id, image_id: image } in containers {
            // One that was not made yet has none.
            let Some((_runtime, id)) = id.split_once("://") else { continue };
            self.kept_bytes += id.len() + name.len() + image.len() + CONTAINER_BYTES;
            let container = PodContainer { pod: Arc::clone(&pod), name, image };
            self.by_container.entry(id.to_owned()).or_default().push(container);
        }
        if self.kept_bytes > before {
            let labels = pod.labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_BYTES);
            self.kept_bytes += 4 * MAX_NAME_BYTES + labels.sum::<usize>();
        }
    }
}

impl Item {
    /// Whether it says who it is, in names such as a cluster has.
    fn is_one(&self) -> bool {
        let Metadata { uid, name, namespace, .. } = &self.metadata;
        let has_names = [uid, name, namespace].into_iter().all(|name| !name.is_empty());
        let is_bounded = |name: &String| name.len() <= MAX_NAME_BYTES;
        let of_pod = [uid, name, namespace, &self.spec.service_account_name];
        let mut of_containers = self.status.kinds().flat_map(|one| [&one.name, &one.id, &one.image_id]);
        let is_few = self.status.kinds().count() <= MAX_CONTAINERS;
        has_names && is_few && of_pod.into_iter().all(is_bounded) && of_containers.all(is_bounded)
    }
}

impl Status {
    fn kinds(&self) -> impl Iterator<Item = &Container> {
        let kinds = [&self.containers, &self.init_containers, &self.ephemeral_containers];
        kinds.into_iter().flatten().flatten()
    }

    fn containers(self) -> impl Iterator<Item = Container> {
        let kinds = [self.containers, self.init_containers, self.ephemeral_containers];
        kinds.into_iter().flatten().flatten()
    }
}

#[derive(Deserialize)]
struct PodList {
    kind: String,
    /// Zeros in place of its items. Go writes a list of nothing as `null`.
    items: Option<Vec<u8>>,
}

/// Labels; none of a pod that has more than [`MAX_POD_LABELS`], or larger ones than Kubernetes lets so many be.
#[derive(Default)]
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let (mut labels, mut bytes) = (BTreeMap::new(), 0);
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    bytes += key.len() + value.len();
                    labels.insert(key, value);
                    if labels.len() > MAX_POD_LABELS || bytes > MAX_LABELS_BYTES {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(Labels::default());
                    }
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_map(Bounded)
    }
}

/// So many bytes of items are parsed together.
const ENOUGH_BYTES: usize = 1024 * 1024;
/// Longer than any name in a cluster, and than references of images.
const MAX_NAME_BYTES: usize = 1024;
/// Of one pod, of all kinds together.
const MAX_CONTAINERS: usize = 128;
const MAX_LABELS_BYTES: usize = 16 * 1024;
/// What is kept of all pods together: several hundred of the largest.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;
/// About what a container, a label and a UID take besides their text.
const CONTAINER_BYTES: usize = 256;
const LABEL_BYTES: usize = 64;
const UID_BYTES: usize = 64;

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// Who a pod is of which nothing else is read.
#[derive(Deserialize)]
struct Identified {
    metadata: Identity,
}

#[derive(Deserialize)]
struct Identity {
    uid: String,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
    name: String,
    namespace: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// Static pods have none.
    #[serde(default)]
    service_account_name: String,
    #[serde(default)]
    node_name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default, rename = "containerStatuses")]
    containers: Option<Vec<Container>>,
    #[serde(default, rename = "initContainerStatuses")]
    init_containers: Option<Vec<Container>>,
    #[serde(default, rename = "ephemeralContainerStatuses")]
    ephemeral_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    /// `containerd://ID`.
    #[serde(default, rename = "containerID")]
    id: String,
    #[serde(default, rename = "imageID")]
    image_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn list(items: &Value) -> Vec<u8> {
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
            .to_string()
            .into_bytes()
    }

    fn parse(body: &[u8], node_name: Option<&str>) -> Result<Pods, NotPods> {
        let mut reading = Reading::new(node_name.map(str::to_owned));
        for piece in body.chunks(1000) {
            if reading.feed(piece)? {
                reading = reading.take_in()?;
            }
        }
        reading.finish()
    }

    fn pod(uid: &str, ids: &[&str]) -> Value {
        let containers: Vec<Value> =
            ids.iter().map(|id| json!({ "name": "main", "containerID": id, "ready": true })).collect();
        json!({
            "metadata": { "uid": uid, "name": "a-0", "namespace": "a", "creationTimestamp": null },
            "spec": { "serviceAccountName": "web", "nodeName": "worker-1", "containers": [{}] },
            "status": { "phase": "Running", "containerStatuses": containers },
        })
    }

    #[test]
    fn a_container_is_its_pods_whatever_kind_it_is_of() {
        let mut item = pod("u1", &["containerd://main"]);
        item["metadata"]["labels"] = json!({ "app": "web" });
        item["status"]["containerStatuses"][0]["imageID"] = "registry.example/web@sha256:00".into();
        item["status"]["initContainerStatuses"] = json!([{ "name": "init", "containerID": "cri-o://init" }]);
        item["status"]["ephemeralContainerStatuses"] =
            json!([{ "name": "debug", "containerID": "docker://debug" }]);
        let pods = parse(&list(&json!([item])), Some("worker-1")).unwrap();
        let main = Pod {
            uid: "u1".into(),
            namespace: "a".into(),
            name: "a-0".into(),
            service_account: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
        };
        let found = pods.find(Some("u1"), "main").unwrap();
        assert_eq!((&*found.pod, found.name.as_str()), (&main, "main"));
        assert_eq!(found.image, "registry.example/web@sha256:00");
        for name in ["init", "debug"] {
            let other = pods.find(Some("u1"), name).unwrap();
            assert_eq!(other.name, name);
            assert!(Arc::ptr_eq(&other.pod, &found.pod), "what is said of a pod is kept once");
        }
        assert_eq!(pods.find(None, "main").unwrap().pod.uid, "u1", "the kernel told no pod");
        for (uid, id) in
            [("u2", "main"), ("u1", "other"), ("", "main"), ("u1", ""), ("u1", "containerd://main")]
        {
            assert_eq!(pods.find(Some(uid), id), None, "{uid} {id}");
        }
    }

    #[test]
    fn a_container_of_two_pods_is_the_kernels_or_nobodys() {
        let two = json!([pod("u1", &["containerd://x", "containerd://y"]), pod("u2", &["containerd://x"])]);
        let pods = parse(&list(&two), None).unwrap();
        assert_eq!(pods.find(None, "x"), None, "nobody says which of them it is");
        for uid in ["u1", "u2"] {
            // Who may change what is said of one takes nothing from the other.
            assert_eq!(pods.find(Some(uid), "x").unwrap().pod.uid, uid);
        }
        assert_eq!(pods.find(Some("u2"), "y"), None);
        assert!(pods.find(Some("u1"), "y").is_some());
        let thrice = json!([pod("u1", &["containerd://x", "containerd://x", "containerd://x"])]);
        assert_eq!(parse(&list(&thrice), None).unwrap().find(Some("u1"), "x"), None);
    }

    #[test]
    fn labels_are_kept_once_a_pod_and_no_more_than_count() {
        let ids: Vec<String> = (0..MAX_CONTAINERS).map(|at| format!("containerd://{at}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let labelled = |count: usize, length: usize| {
            let mut item = pod("u1", &ids);
            let labels = (0..count).map(|at| (format!("l{at}"), "x".repeat(length)));
            item["metadata"]["labels"] = labels.collect::<BTreeMap<_, _>>().into_iter().collect();
            parse(&list(&json!([item])), None).unwrap()
        };
        for (count, length, kept) in [(256, 40, 256), (257, 1, 0), (5000, 1, 0), (2, 8 * 1024, 0)] {
            let pods = labelled(count, length);
            let [one, other] = ["0", "127"].map(|id| pods.find(Some("u1"), id).unwrap().pod);
            assert_eq!(one.labels.len(), kept, "{count} of {length}");
            assert!(Arc::ptr_eq(&one, &other));
        }
    }

    #[test]
    fn more_than_a_node_has_is_refused() {
        let ids: Vec<String> = (0..=MAX_CONTAINERS).map(|at| format!("containerd://{at}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let pods = parse(&list(&json!([pod("u1", &ids), pod("u2", &["containerd://x"])])), None).unwrap();
        assert_eq!((pods.find(Some("u1"), "0"), pods.left_out()), (None, 1));
        assert!(pods.can_rule_out(Some("u1")), "it is known to be here");
        assert!(pods.find(Some("u2"), "x").is_some());
        let mut all = Pods { kept_bytes: MAX_KEPT_BYTES, ..Pods::default() };
        let one_more = pod("u1", &["containerd://x"]).to_string();
        assert_eq!(all.take_in(one_more.as_bytes(), None), Err(NotPods::TooLarge));
    }

    #[test]
    fn what_was_not_made_yet_has_no_id_and_a_node_without_pods_has_none() {
        let mut without_status = pod("u1", &[]);
        without_status.as_object_mut().unwrap().remove("status");
        for item in [pod("u1", &["", "x"]), without_status] {
            let pods = parse(&list(&json!([item])), None).unwrap();
            assert!(pods.by_container.is_empty() && pods.left_out() == 0, "{item}");
            assert!(pods.can_rule_out(Some("u1")), "{item}: the pod is known");
        }
        assert_eq!(parse(&list(&Value::Null), Some("worker-1")), Ok(Pods::default()));
    }

    #[test]
    fn only_pods_that_are_listed_rule_a_container_out() {
        let parsed = |items: &Value| parse(&list(items), None).unwrap();
        let none = parsed(&Value::Null);
        assert!(!none.can_rule_out(Some("u1")) && !none.can_rule_out(None));
        let not_begun = parsed(&json!([pod("u1", &[])]));
        assert!(not_begun.can_rule_out(Some("u1")) && !not_begun.can_rule_out(Some("u2")));
        assert!(!not_begun.can_rule_out(None), "a list without containers says nothing of any");
        let one = parsed(&json!([pod("u1", &["containerd://x"])]));
        assert!(one.can_rule_out(Some("u1")) && one.can_rule_out(None));
        assert!(!one.can_rule_out(Some("u2")) && !one.can_rule_out(Some("")));
    }

    #[test]
    fn what_is_no_list_of_this_nodes_pods_is_refused_as_a_whole() {
        let good = pod("u1", &["containerd://x"]);
        let deep = format!("{{\"kind\":\"PodList\",\"items\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for (what, body) in [
            ("nothing", Vec::new()),
            ("no JSON", b"<html>".to_vec()),
            ("a status", br#"{"kind":"Status","apiVersion":"v1","status":"Failure","items":[]}"#.to_vec()),
            ("no kind", br#"{"items":[]}"#.to_vec()),
            ("two kinds", br#"{"kind":"PodList","kind":"PodList","items":[]}"#.to_vec()),
            ("items twice", br#"{"kind":"PodList","items":[{}],"items":[{}]}"#.to_vec()),
            ("zeros", br#"{"kind":"PodList","items":[0,{}]}"#.to_vec()),
            ("more behind it", [list(&json!([])), b"{}".to_vec()].concat()),
            ("cut off", list(&json!([good]))[..80].to_vec()),
            ("deep", deep.into_bytes()),
            ("items of text", list(&json!(["pod"]))),
        ] {
            assert_eq!(parse(&body, Some("worker-1")), Err(NotPods::Malformed), "{what}");
        }
        for other in ["worker-2", "worker-10", ""] {
            let mut elsewhere = good.clone();
            elsewhere["spec"]["nodeName"] = json!(other);
            let body = list(&json!([good, elsewhere]));
            assert_eq!(parse(&body, Some("worker-1")), Err(NotPods::OfAnotherNode), "{other}");
            assert!(parse(&body, None).is_ok(), "whose name we do not know");
        }
    }

    #[test]
    fn what_is_no_pod_is_left_out_and_no_other_with_it() {
        let good = pod("u1", &["containerd://x"]);
        let bad = pod("u2", &["containerd://y"]);
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for (what, pointer, value) in [
            ("no uid", "/metadata", json!({ "name": "a", "namespace": "a" })),
            ("an empty uid", "/metadata/uid", json!("")),
            ("a long uid", "/metadata/uid", json!(long)),
            ("an empty namespace", "/metadata/namespace", json!("")),
            ("a number", "/metadata/name", json!(7)),
            ("a long name", "/metadata/name", json!(long)),
            ("an id that is none", "/status/containerStatuses/0/containerID", json!(["x"])),
            ("a long id", "/status/containerStatuses/0/containerID", json!(format!("containerd://{long}"))),
        ] {
            let mut changed = bad.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            let pods = parse(&list(&json!([changed, good])), Some("worker-1")).unwrap();
            assert_eq!((pods.left_out(), pods.by_container.len()), (1, 1), "{what}");
            assert_eq!(
                pods.can_rule_out(Some("u2")),
                !what.ends_with("uid"),
                "{what}: whether it is known to be here"
            );
            assert!(pods.find(Some("u1"), "x").is_some(), "{what}");
        }
    }
}
