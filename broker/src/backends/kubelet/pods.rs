//! What a kubelet says of its pods (`PodList` of Kubernetes' core API, v1), as far as it matters here.

use deputize_workload_api::attest::Pod;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, hash_map};

/// Pods, by the ids of their containers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// None for an id that two containers have: nobody knows whose process it is.
    by_container: HashMap<String, Option<Pod>>,
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
}

impl Pods {
    /// Reads an answer; of this node alone, where its name is known.
    pub(super) fn parse(body: &[u8], node_name: Option<&str>) -> Result<Self, NotPods> {
        let list: PodList = serde_json::from_slice(body).map_err(|_| NotPods::Malformed)?;
        if list.kind != "PodList" {
            return Err(NotPods::Malformed);
        }
        let items = list.items.unwrap_or_default();
        if node_name.is_some_and(|name| items.iter().any(|item| item.spec.node_name != name)) {
            return Err(NotPods::OfAnotherNode);
        }
        let mut pods = Self::default();
        for item in items {
            pods.add(item)?;
        }
        Ok(pods)
    }

    /// The pod of a container. Where the kernel says which pod it is, it has to be that one.
    pub(super) fn find(&self, pod_uid: Option<&str>, container_id: &str) -> Option<Pod> {
        let pod = self.by_container.get(container_id)?.as_ref()?;
        pod_uid.is_none_or(|uid| uid == pod.uid).then(|| pod.clone())
    }

    fn add(&mut self, item: Item) -> Result<(), NotPods> {
        let Item { metadata, spec, status } = item;
        // What has no name in the cluster is no pod.
        if [&metadata.uid, &metadata.name, &metadata.namespace].into_iter().any(String::is_empty) {
            return Err(NotPods::Malformed);
        }
        let pod = Pod {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            service_account: spec.service_account_name,
            labels: metadata.labels.unwrap_or_default(),
            ..Pod::default()
        };
        let kinds = [status.containers, status.init_containers, status.ephemeral_containers];
        for container in kinds.into_iter().flatten().flatten() {
            // One that was not made yet has none.
            let Some((_runtime, id)) = container.id.split_once("://") else { continue };
            let here =
                Pod { container_name: container.name, container_image: container.image_id, ..pod.clone() };
            match self.by_container.entry(id.to_owned()) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(Some(here));
                }
                hash_map::Entry::Occupied(mut place) => {
                    place.insert(None);
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct PodList {
    kind: String,
    /// Go writes a list of nothing as `null`.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
    name: String,
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
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
        let pods = Pods::parse(&list(&json!([item])), Some("worker-1")).unwrap();
        let main = Pod {
            uid: "u1".into(),
            namespace: "a".into(),
            name: "a-0".into(),
            service_account: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            container_name: "main".into(),
            container_image: "registry.example/web@sha256:00".into(),
        };
        assert_eq!(pods.find(Some("u1"), "main"), Some(main));
        for name in ["init", "debug"] {
            assert_eq!(pods.find(Some("u1"), name).unwrap().container_name, name);
        }
        assert_eq!(pods.find(None, "main").unwrap().uid, "u1", "the kernel told no pod");
        for (uid, id) in
            [("u2", "main"), ("u1", "other"), ("", "main"), ("u1", ""), ("u1", "containerd://main")]
        {
            assert_eq!(pods.find(Some(uid), id), None, "{uid} {id}");
        }
    }

    #[test]
    fn a_container_of_two_pods_is_nobodys() {
        let two = json!([pod("u1", &["containerd://x", "containerd://y"]), pod("u2", &["containerd://x"])]);
        let pods = Pods::parse(&list(&two), None).unwrap();
        assert_eq!(
            (pods.find(Some("u1"), "x"), pods.find(Some("u2"), "x"), pods.find(None, "x")),
            (None, None, None)
        );
        assert!(pods.find(Some("u1"), "y").is_some());
        let thrice = json!([pod("u1", &["containerd://x", "containerd://x", "containerd://x"])]);
        assert_eq!(Pods::parse(&list(&thrice), None).unwrap().find(Some("u1"), "x"), None);
    }

    #[test]
    fn what_was_not_made_yet_has_no_id_and_a_node_without_pods_has_none() {
        let pods = Pods::parse(&list(&json!([pod("u1", &["", "x"])])), None).unwrap();
        assert_eq!(pods, Pods::default());
        assert_eq!(Pods::parse(&list(&Value::Null), Some("worker-1")), Ok(Pods::default()));
        let mut item = pod("u1", &[]);
        item.as_object_mut().unwrap().remove("status");
        assert_eq!(Pods::parse(&list(&json!([item])), None), Ok(Pods::default()));
    }

    #[test]
    fn what_is_no_list_of_this_nodes_pods_is_refused_as_a_whole() {
        let good = pod("u1", &["containerd://x"]);
        let changed = |pointer: &str, value: Value| {
            let mut item = good.clone();
            *item.pointer_mut(pointer).unwrap() = value;
            list(&json!([good, item]))
        };
        let deep = format!("{{\"kind\":\"PodList\",\"items\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for (what, body) in [
            ("nothing", Vec::new()),
            ("no JSON", b"<html>".to_vec()),
            ("a status", br#"{"kind":"Status","apiVersion":"v1","status":"Failure","items":[]}"#.to_vec()),
            ("no kind", br#"{"items":[]}"#.to_vec()),
            ("two kinds", br#"{"kind":"PodList","kind":"PodList","items":[]}"#.to_vec()),
            ("more behind it", [list(&json!([])), b"{}".to_vec()].concat()),
            ("cut off", list(&json!([good]))[..80].to_vec()),
            ("deep", deep.into_bytes()),
            ("items of text", list(&json!(["pod"]))),
            ("no uid", changed("/metadata", json!({ "name": "a", "namespace": "a" }))),
            ("an empty uid", changed("/metadata/uid", json!(""))),
            ("an empty namespace", changed("/metadata/namespace", json!(""))),
            ("a number", changed("/metadata/name", json!(7))),
            ("an id that is none", changed("/status/containerStatuses/0/containerID", json!(["x"]))),
        ] {
            assert_eq!(Pods::parse(&body, Some("worker-1")), Err(NotPods::Malformed), "{what}");
        }
        for other in ["worker-2", "worker-10", ""] {
            let body = changed("/spec/nodeName", json!(other));
            assert_eq!(Pods::parse(&body, Some("worker-1")), Err(NotPods::OfAnotherNode), "{other}");
            assert!(Pods::parse(&body, None).is_ok(), "whose name we do not know");
        }
    }
}
