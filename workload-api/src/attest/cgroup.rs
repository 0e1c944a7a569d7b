//! Where a process is placed: the systemd unit, the container and the pod that its control groups belong to.
//!
//! A path is read from its root, and what stands behind the first unit or container is never looked at: there a
//! workload may have been given the right to make groups of its own, under whatever names it likes. So a container in
//! a container is the outer one; and what a user starts under `user@1000.service` is that unit, whatever it calls
//! itself.

/// The places of a process, as far as its control groups tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The systemd unit: `nginx.service`.
    pub(crate) unit: Option<String>,
    /// The slice that the unit is in: `system.slice`.
    pub(crate) slice: Option<String>,
    /// The container.
    pub(crate) container: Option<Container>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// What runs it, where the path tells: `containerd`.
    pub(crate) runtime: Option<&'static str>,
    /// The UID of its pod, where it is in one.
    pub(crate) pod_uid: Option<String>,
}

impl Placement {
    /// Reads the text of /proc/PID/cgroup (cgroups(7)), of either version or of both. Hierarchies that contradict each
    /// other say nothing.
    pub(crate) fn parse(cgroups: &str) -> Self {
        let hierarchies: Vec<_> = cgroups.lines().filter_map(Hierarchy::parse).collect();
        let mut containers = hierarchies.iter().filter_map(|one| one.placement.container.as_ref());
        let container = containers.next().cloned();
        if containers.any(|other| Some(other) != container.as_ref()) {
            return Self::default();
        }
        // systemd keeps its units in a hierarchy of its own where there are several.
        let of_systemd = hierarchies.iter().find(|one| one.name == "name=systemd");
        let units = of_systemd.or_else(|| hierarchies.iter().find(|one| one.is_unified()));
        Self {
            unit: units.and_then(|one| one.placement.unit.clone()),
            slice: units.and_then(|one| one.placement.slice.clone()),
            container,
        }
    }

    fn of_path(path: &str) -> Self {
        let Some(path) = path.strip_prefix('/') else { return Self::default() };
        let below = below_ours(path);
        let is_whole = below.len() == path.len();
        let mut segments = below.split('/').peekable();
        let mut slice: Option<&str> = None;
        while let Some(next) = segments.next_if(|next| is_slice_in(next, slice, is_whole)) {
            slice = Some(next);
        }
        let rest: Vec<&str> = segments.take(DEEPEST).collect();
        // Of a path whose beginning we do not see, nobody knows which unit it is in.
        let unit = rest.first().filter(|first| is_whole && is_unit(first)).map(|&unit| unit.to_owned());
        let container = match slice {
            Some(slice) => container_in_slice(slice, &rest),
            None => container_in_folders(&rest, is_whole),
        };
        let slice = unit.is_some().then(|| slice.unwrap_or("-.slice").to_owned());
        Self { unit, slice, container }
    }
}

struct Hierarchy<'a> {
    number: &'a str,
    name: &'a str,
    placement: Placement,
}

impl<'a> Hierarchy<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (number, name, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { number, name, placement: Placement::of_path(path) })
    }

    fn is_unified(&self) -> bool {
        self.number == "0" && self.name.is_empty()
    }
}

/// The part of a path that is not above the root of our own cgroup namespace, which the kernel writes as `..`.
fn below_ours(mut path: &str) -> &str {
    while let Some(rest) = path.strip_prefix("../") {
        path = rest;
    }
    path
}

/// Whether a segment is a slice that stands where systemd would put it: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn is_slice_in(segment: &str, parent: Option<&str>, is_whole: bool) -> bool {
    let Some(name) = segment.strip_suffix(".slice") else { return false };
    match parent.map(|parent| parent.trim_end_matches(".slice")) {
        None if is_whole => !name.is_empty() && !name.contains('-'),
        None => !name.is_empty(),
        Some(parent) => name
            .strip_prefix(parent)
            .and_then(|own| own.strip_prefix('-'))
            .is_some_and(|own| !own.is_empty() && !own.contains('-')),
    }
}

fn is_unit(segment: &str) -> bool {
    UNIT_KINDS.iter().any(|kind| segment.strip_suffix(kind).is_some_and(|name| !name.is_empty()))
}

/// As systemd makes them for a runtime: `….slice/docker-ID.scope`, and `containerd.service/SLICE:cri-containerd:ID`
/// where the two disagree about who makes groups.
fn container_in_slice(slice: &str, rest: &[&str]) -> Option<Container> {
    let mut rest = rest.iter().copied();
    let first = rest.next()?;
    let pod_uid = pod_of_slice(slice);
    if let Some(scope) = first.strip_suffix(".scope") {
        let (runtime, id) = scope.rsplit_once('-')?;
        return Some(Container { id: container_id(id)?, runtime: Some(runtime_named(runtime)?), pod_uid });
    }
    if RUNTIME_UNITS.contains(&first) {
        let mut parts = rest.next()?.split(':');
        let (slice, runtime, id) = (parts.next()?, parts.next()?, parts.next()?);
        let runtime = Some(runtime_named(runtime)?);
        return Some(Container { id: container_id(id)?, runtime, pod_uid: pod_of_slice(slice) });
    }
    // A runtime that makes folders within the slice of a pod.
    pod_uid.and_then(|pod| container_of_folder(first, Some(pod)))
}

/// As runtimes make them themselves: `/docker/ID`, `/kubepods/burstable/podUID/ID`.
fn container_in_folders(rest: &[&str], is_whole: bool) -> Option<Container> {
    match rest {
        ["docker", id, ..] if is_whole => {
            Some(Container { id: container_id(id)?, runtime: Some("docker"), pod_uid: None })
        }
        ["ecs", _task, id, ..] if is_whole => {
            Some(Container { id: container_id(id)?, runtime: None, pod_uid: None })
        }
        ["libpod_parent", folder, ..] if is_whole => container_of_folder(folder, None),
        _ => {
            let mut rest = rest.iter().copied().peekable();
            rest.next_if_eq(&"kubelet");
            let in_kubepods = rest.next_if_eq(&"kubepods").is_some();
            rest.next_if(|class| ["besteffort", "burstable"].contains(class));
            let pod = rest.next().filter(|_| in_kubepods || !is_whole)?;
            match pod_uid(pod.strip_prefix("pod").unwrap_or_default()) {
                Some(pod) => container_of_folder(rest.next()?, Some(pod)),
                // Beside our own container, in a pod that we do not see: only a scope says that it is one.
                None => container_in_slice("", &[pod]),
            }
        }
    }
}

/// `ID` or `crio-ID`.
fn container_of_folder(folder: &str, pod_uid: Option<String>) -> Option<Container> {
    let (runtime, id) = match folder.rsplit_once('-') {
        Some((runtime, id)) => (Some(runtime_named(runtime)?), id),
        None => (None, folder),
    };
    Some(Container { id: container_id(id)?, runtime, pod_uid })
}

/// `kubepods-burstable-pod0a1b….slice`, where `_` stands for the `-` that would mean another slice.
fn pod_of_slice(slice: &str) -> Option<String> {
    let (class, pod) = slice.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let class = class.strip_prefix("kubelet-").unwrap_or(class);
    if !["kubepods", "kubepods-besteffort", "kubepods-burstable"].contains(&class) {
        return None;
    }
    pod_uid(&pod.replace('_', "-"))
}

/// A UUID, or the digest that a pod has whose description lies on the node.
fn pod_uid(text: &str) -> Option<String> {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    let is_one = [&[8, 4, 4, 4, 12][..], &[32]].contains(&lengths.as_slice());
    (is_one && is_lower_hex(&text.replace('-', ""))).then(|| text.to_owned())
}

fn container_id(text: &str) -> Option<String> {
    (text.len() == 64 && is_lower_hex(text)).then(|| text.to_owned())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn runtime_named(prefix: &str) -> Option<&'static str> {
    RUNTIMES.iter().find(|(known, _)| *known == prefix).map(|(_, runtime)| *runtime)
}

/// What runtimes put before a container's id. What attends to containers (`crio-conmon-…`) is none.
const RUNTIMES: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("cri-containerd", "containerd"),
    ("containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "crio"),
    ("libpod", "podman"),
];
/// Units below which nobody but a runtime makes groups.
const RUNTIME_UNITS: &[&str] = &["containerd.service", "crio.service", "docker.service"];
const UNIT_KINDS: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];
/// The most segments behind the slices that any form has.
const DEEPEST: usize = 5;

#[cfg(test)]
mod tests;
