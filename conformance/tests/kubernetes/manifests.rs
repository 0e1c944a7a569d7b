//! What Kustomize builds of a folder, and the pods in it.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use crate::installed;

/// All resources of one kustomization.
pub(crate) struct Manifests(Vec<Value>);

/// The pods of one workload.
pub(crate) struct Pod {
    pub(crate) namespace: String,
    /// The workload's name.
    pub(crate) name: String,
    labels: Value,
    pub(crate) spec: Value,
}

impl Manifests {
    pub(crate) fn build(folder: &Path) -> Self {
        let ran = Command::new(installed("kustomize")).arg(folder).output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && errors.is_empty(), "{}: {errors}", folder.display());
        let lines = String::from_utf8(ran.stdout).unwrap();
        Self(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    pub(crate) fn to_yaml(&self) -> String {
        self.0.iter().map(|resource| format!("---\n{resource}\n")).collect()
    }

    pub(crate) fn of_kind<'m>(&'m self, kind: &str) -> impl Iterator<Item = &'m Value> {
        self.0.iter().filter(move |resource| resource["kind"] == kind)
    }

    pub(crate) fn pods(&self) -> Vec<Pod> {
        let is_workload = |resource: &&Value| resource.pointer("/spec/template/spec").is_some();
        self.0.iter().filter(is_workload).map(Pod::of).collect()
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        self.pods().into_iter().find(|pod| pod.name == name).unwrap()
    }

    /// What a ConfigMap has, if it is one of these.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<&Value> {
        let mut found = self.of_kind("ConfigMap").filter(|it| is_named(it, namespace, name));
        found.next().map(|found| &found["data"])
    }

    /// Whether what comes to and goes from all pods of a namespace is only what policies name.
    pub(crate) fn has_closed_network(&self, namespace: &str) -> bool {
        self.of_kind("NetworkPolicy").any(|policy| {
            policy["metadata"]["namespace"] == namespace
                && policy["spec"]["podSelector"].as_object().unwrap().is_empty()
                && policy["spec"]["policyTypes"] == serde_json::json!(["Ingress", "Egress"])
        })
    }

    /// References that lead nowhere: namespaces, selectors, ports, service accounts, volumes.
    pub(crate) fn dangling(&self) -> Vec<String> {
        let (pods, mut problems) = (self.pods(), Vec::new());
        let namespaces: BTreeSet<_> =
            self.of_kind("Namespace").map(|namespace| text(namespace, "/metadata/name")).collect();
        for resource in self.0.iter().filter(|resource| resource["metadata"]["namespace"].is_string()) {
            let namespace = text(resource, "/metadata/namespace");
            if !namespaces.contains(&namespace) {
                problems.push(format!("{}: no namespace {namespace}", text(resource, "/metadata/name")));
            }
        }
        for (kind, pointer) in
            [("Service", "/spec/selector"), ("PodDisruptionBudget", "/spec/selector/matchLabels")]
        {
            for resource in self.of_kind(kind) {
                let chosen: Vec<&Pod> = pods.iter().filter(|pod| pod.is_chosen(resource, pointer)).collect();
                let ports = resource["spec"]["ports"].as_array().into_iter().flatten();
                let lost = ports.filter(|port| {
                    chosen.iter().any(|pod| pod.port(port["targetPort"].as_str().unwrap()).is_none())
                });
                if chosen.len() != 1 || lost.count() > 0 {
                    problems.push(format!("{kind} {} has no pods", text(resource, "/metadata/name")));
                }
            }
        }
        for policy in self.of_kind("NetworkPolicy") {
            let pointer = "/spec/podSelector/matchLabels";
            if policy.pointer(pointer).is_some() && !pods.iter().any(|pod| pod.is_chosen(policy, pointer)) {
                problems.push(format!("NetworkPolicy {} has no pods", text(policy, "/metadata/name")));
            }
        }
        for pod in &pods {
            let account = text(&pod.spec, "/serviceAccountName");
            if !self.of_kind("ServiceAccount").any(|it| is_named(it, &pod.namespace, &account)) {
                problems.push(format!("{}: no service account {account}", pod.name));
            }
            let mounts = pod
                .containers()
                .flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten());
            let mounted: BTreeSet<_> = mounts.map(|mount| text(mount, "/name")).collect();
            let templates = self.0.iter().filter(|it| is_named(it, &pod.namespace, &pod.name));
            let claimed =
                templates.flat_map(|it| it["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten());
            let volumes =
                pod.spec["volumes"].as_array().into_iter().flatten().map(|volume| text(volume, "/name"));
            let known: BTreeSet<_> =
                volumes.chain(claimed.map(|claim| text(claim, "/metadata/name"))).collect();
            if mounted != known {
                problems.push(format!("{}: mounts {mounted:?} of {known:?}", pod.name));
            }
        }
        problems
    }
}

impl Pod {
    fn of(workload: &Value) -> Self {
        let template = &workload["spec"]["template"];
        assert_eq!(workload["spec"]["selector"]["matchLabels"].as_object().unwrap().len(), 1);
        let pod = Self {
            namespace: text(workload, "/metadata/namespace"),
            name: text(workload, "/metadata/name"),
            labels: template["metadata"]["labels"].clone(),
            spec: template["spec"].clone(),
        };
        assert!(pod.is_chosen(workload, "/spec/selector/matchLabels"), "{} chooses others", pod.name);
        pod
    }

    fn is_chosen(&self, resource: &Value, selector: &str) -> bool {
        let wanted = resource.pointer(selector).and_then(Value::as_object).unwrap();
        resource["metadata"]["namespace"] == *self.namespace
            && wanted.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }

    pub(crate) fn containers(&self) -> impl Iterator<Item = &Value> {
        let of = |member: &str| self.spec[member].as_array().into_iter().flatten();
        of("initContainers").chain(of("containers"))
    }

    /// What its containers may do beyond the narrowest.
    pub(crate) fn liberties(&self) -> Vec<String> {
        let mut found = Vec::new();
        let (name, spec) = (&self.name, &self.spec);
        for member in ["hostPID", "hostNetwork", "hostIPC"] {
            if spec[member] == true {
                found.push(format!("{name}: has {member}"));
            }
        }
        let context = &spec["securityContext"];
        let is_root = context["runAsUser"].as_u64().is_none_or(|user| user == 0);
        if is_root || context["runAsNonRoot"] != true {
            found.push(format!("{name}: runs as root"));
        }
        if context["seccompProfile"]["type"] != "RuntimeDefault" {
            found.push(format!("{name}: may make any system call"));
        }
        if spec["automountServiceAccountToken"] != false {
            found.push(format!("{name}: may speak to the API server"));
        }
        if spec["enableServiceLinks"] != false {
            found.push(format!("{name}: has other services in its environment"));
        }
        for volume in spec["volumes"].as_array().into_iter().flatten().filter(|it| it["hostPath"].is_object())
        {
            let path = text(volume, "/hostPath/path");
            found.push(format!("{name}: mounts {path} of the node"));
            if self.mounts_of(&text(volume, "/name")).any(|mount| mount["readOnly"] != true) {
                found.push(format!("{name}: writes to {path} of the node"));
            }
        }
        for container in self.containers() {
            found.extend(liberties_of(container).into_iter().map(|what| format!("{name}: {what}")));
        }
        found
    }

    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.spec["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == name)
    }

    pub(crate) fn volume(&self, name: &str) -> &Value {
        let mut volumes = self.spec["volumes"].as_array().unwrap().iter();
        volumes.find(|volume| volume["name"] == name).unwrap()
    }

    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Value> {
        self.containers().flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten())
    }

    pub(crate) fn mounts_of(&self, volume: &str) -> impl Iterator<Item = &Value> {
        self.mounts().filter(move |mount| mount["name"] == volume)
    }

    /// Where a volume is in its containers.
    pub(crate) fn mount(&self, volume: &str) -> PathBuf {
        self.mounts_of(volume).next().unwrap()["mountPath"].as_str().unwrap().into()
    }

    /// What `--name` says in its first container, after a space or `=`.
    pub(crate) fn argument(&self, name: &str) -> Option<String> {
        let command = self.spec["containers"][0]["command"].as_array().unwrap();
        let mut words = command.iter().flat_map(|word| word.as_str().unwrap().split('='));
        words.find(|word| *word == name)?;
        words.next().map(str::to_owned)
    }

    /// A variable of its first container.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let mut variables = self.spec["containers"][0]["env"].as_array()?.iter();
        variables.find(|variable| variable["name"] == name)?["value"].as_str().map(str::to_owned)
    }

    /// The number of a port.
    pub(crate) fn port(&self, name: &str) -> Option<u64> {
        let ports =
            self.containers().flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let mut ports = ports.filter(|port| port["name"] == name);
        ports.next()?["containerPort"].as_u64()
    }
}

fn liberties_of(container: &Value) -> Vec<&'static str> {
    let context = &container["securityContext"];
    let resource = |pointer: &str| container["resources"].pointer(pointer).is_some();
    let drops_all = context["capabilities"] == serde_json::json!({ "drop": ["ALL"] });
    let image = container["image"].as_str().unwrap();
    [
        (context["privileged"] == true, "is privileged"),
        (context["allowPrivilegeEscalation"] != false, "may gain rights"),
        (context["readOnlyRootFilesystem"] != true, "may write to its root"),
        (!drops_all, "has capabilities"),
        (!resource("/limits/memory"), "may take all memory"),
        (!resource("/requests/cpu") || !resource("/requests/memory"), "asks for no resources"),
        (image.ends_with(":latest"), "runs whatever is newest"),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then_some(what))
    .collect()
}

fn is_named(resource: &Value, namespace: &str, name: &str) -> bool {
    resource["metadata"]["namespace"] == namespace && resource["metadata"]["name"] == name
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
