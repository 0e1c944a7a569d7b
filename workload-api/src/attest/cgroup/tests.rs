//! Texts as kernels and runtimes write them.

use super::*;
use proptest::prelude::*;

const ID: &str = "8f0e5f5f0a2c4e3d9b1a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f";
const OTHER_ID: &str = "0011223344556677889900aabbccddeeff0011223344556677889900aabbccdd";
const POD: &str = "2c48913c-b29f-4fe1-8a2f-9d6f2c0ab123";
const POD_: &str = "2c48913c_b29f_4fe1_8a2f_9d6f2c0ab123";

fn placed(unit: &str, slice: &str) -> Placement {
    Placement { unit: Some(unit.to_owned()), slice: Some(slice.to_owned()), container: None }
}

fn contained(runtime: Option<&'static str>, pod: Option<&str>) -> Option<Container> {
    Some(Container { id: ID.to_owned(), runtime, pod_uid: pod.map(str::to_owned) })
}

fn unified(path: &str) -> Placement {
    Placement::parse(&format!("0::{path}\n"))
}

fn filled(form: &str) -> String {
    form.replace("ID", ID).replace("POD_", POD_).replace("POD", POD)
}

#[test]
fn units_are_where_systemd_puts_them() {
    for (path, unit, slice) in [
        ("/system.slice/nginx.service", "nginx.service", "system.slice"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "system-getty.slice"),
        ("/init.scope", "init.scope", "-.slice"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", "user-1000.slice"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service",
            "user@1000.service",
            "user-1000.slice",
        ),
        ("/system.slice/a.service/b.service", "a.service", "system.slice"),
        ("/system.slice/dbus.socket", "dbus.socket", "system.slice"),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/init.scope",
            "systemd-nspawn@web.service",
            "machine.slice",
        ),
        ("/system.slice/a.service/docker-ID.scope", "a.service", "system.slice"),
        ("/system.slice/quadlet.service/libpod-payload-ID", "quadlet.service", "system.slice"),
    ] {
        assert_eq!(unified(&filled(path)), placed(unit, slice), "{path}");
    }
}

#[test]
fn what_systemd_did_not_put_there_is_no_unit() {
    for path in [
        "/",
        "",
        "nginx.service",
        "/../nginx.service",
        "/../../system.slice/nginx.service",
        "/custom/nginx.service",
        "/custom.slice/other-deep.slice/nginx.service",
        "/system.slice",
        "/system.slice/system-a-b.slice/nginx.service",
        "/.slice/nginx.service",
        "/a-b.slice/nginx.service",
        "/system.slice//nginx.service",
        "/system.slice/.service",
        "/system.slice/nginx.service (deleted)",
        "/system.slice/nginx",
        "//nginx.service",
        "/docker/nginx.service",
    ] {
        assert_eq!(unified(path), Placement::default(), "{path}");
    }
}

#[test]
fn containers_of_every_runtime_are_found() {
    let pod = Some(POD);
    for (path, runtime, pod) in [
        ("/system.slice/docker-ID.scope", Some("docker"), None),
        ("/docker/ID", Some("docker"), None),
        ("/docker/ID/system.slice/nginx.service", Some("docker"), None),
        ("/system.slice/nerdctl-ID.scope", Some("containerd"), None),
        ("/machine.slice/libpod-ID.scope/container", Some("podman"), None),
        ("/libpod_parent/libpod-ID", Some("podman"), None),
        ("/ecs/0123456789abcdef0123456789abcdef/ID", None, None),
        ("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", Some("crio"), pod),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
            Some("containerd"),
            pod,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPOD_.slice/docker-ID.scope",
            Some("docker"),
            pod,
        ),
        ("/kubepods.slice/kubepods-podPOD_.slice/ID", None, pod),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podPOD_.slice/cri-containerd-ID.scope",
            Some("containerd"),
            pod,
        ),
        ("/kubepods/podPOD/ID", None, pod),
        ("/kubepods/burstable/podPOD/ID", None, pod),
        ("/kubepods/besteffort/podPOD/crio-ID", Some("crio"), pod),
        ("/kubelet/kubepods/burstable/podPOD/ID", None, pod),
        (
            "/system.slice/containerd.service/kubepods-burstable-podPOD_.slice:cri-containerd:ID",
            Some("containerd"),
            pod,
        ),
        ("/system.slice/crio.service/kubepods-podPOD_.slice:crio:ID", Some("crio"), pod),
        // As seen from a container with a cgroup namespace of its own.
        ("/../../kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope", Some("containerd"), pod),
        ("/../cri-containerd-ID.scope", Some("containerd"), None),
        ("/../../podPOD/ID", None, pod),
        ("/../../../burstable/podPOD/ID", None, pod),
        ("/../../../../kubepods/burstable/podPOD/ID", None, pod),
    ] {
        assert_eq!(unified(&filled(path)).container, contained(runtime, pod), "{path}");
    }
    let of_file = format!("/kubepods/pod{}/{ID}", "0123456789abcdef0123456789abcdef");
    let pod = unified(&of_file).container.unwrap().pod_uid.unwrap();
    assert_eq!(pod, "0123456789abcdef0123456789abcdef", "a pod of the node's own files has a digest");
}

#[test]
fn look_alikes_are_no_containers() {
    for path in [
        "/system.slice/crio-conmon-ID.scope",
        "/machine.slice/libpod-conmon-ID.scope",
        "/system.slice/evil-ID.scope",
        "/system.slice/docker-ID.service",
        "/custom/docker/ID",
        "/custom/kubepods/podPOD/ID",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
        "/system.slice/mine.service/kubepods-podPOD_.slice:cri-containerd:ID",
        "/system.slice/mine.service/docker/ID",
        "/podPOD/ID",
        "/ID",
        "/../ID",
        "/../docker/ID",
        "/kubepods/burstable/podPOD",
        "/kubepods/guessed/podPOD/ID",
        "/kubepods/pod../ID",
        "/kubepods/podPOD/x/ID",
    ] {
        assert_eq!(unified(&filled(path)).container, None, "{path}");
    }
    let upper = ID.to_uppercase();
    let longer = format!("{ID}0");
    for id in [&ID[1..], upper.as_str(), longer.as_str(), "", "nginx"] {
        assert_eq!(unified(&format!("/system.slice/docker-{id}.scope")).container, None, "{id}");
        assert_eq!(unified(&format!("/docker/{id}")).container, None, "{id}");
        assert_eq!(unified(&format!("/kubepods/pod{POD}/{id}")).container, None, "{id}");
    }
}

#[test]
fn a_pod_that_is_no_pod_is_left_out() {
    let not_a_pod = filled("/kubepods.slice/kubepods-podnot_one.slice/crio-ID.scope");
    assert_eq!(unified(&not_a_pod).container, contained(Some("crio"), None));
    let not_kubernetes = filled("/other.slice/other-podPOD_.slice/crio-ID.scope");
    assert_eq!(unified(&not_kubernetes).container, contained(Some("crio"), None));
}

#[test]
fn several_hierarchies_agree_or_say_nothing() {
    let first = filled(
        "12:pids:/docker/ID\n11:cpu,cpuacct:/docker/ID\n3:rdma:/\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\n",
    );
    assert_eq!(
        Placement::parse(&first),
        Placement { container: contained(Some("docker"), None), ..Placement::default() }
    );
    let service = "9:memory:/system.slice/nginx.service\n3:cpuset:/\n1:name=systemd:/system.slice/nginx.service\n0::/\n";
    assert_eq!(Placement::parse(service), placed("nginx.service", "system.slice"));
    let torn = format!("9:memory:/docker/{OTHER_ID}\n1:name=systemd:/docker/{ID}\n");
    assert_eq!(Placement::parse(&torn), Placement::default());
    let other_unit = "9:memory:/system.slice/evil.service\n1:name=systemd:/system.slice/nginx.service\n";
    assert_eq!(Placement::parse(other_unit), placed("nginx.service", "system.slice"), "systemd's own counts");
    let none_of_systemd = "9:memory:/system.slice/evil.service\n8:cpu:/system.slice/evil.service\n";
    assert_eq!(Placement::parse(none_of_systemd), Placement::default());
    assert_eq!(Placement::parse("nonsense\n::\n\n0:\n"), Placement::default());
}

/// Where a workload may have been placed, by those who place workloads.
const HOMES: &[&str] = &[
    "/system.slice/nginx.service",
    "/user.slice/user-1000.slice/user@1000.service",
    "/user.slice/user-1000.slice/session-3.scope",
    "/system.slice/docker-ID.scope",
    "/docker/ID",
    "/machine.slice/libpod-ID.scope",
    "/machine.slice/systemd-nspawn@web.service",
    "/kubepods/burstable/podPOD/ID",
    "/kubepods.slice/kubepods-podPOD_.slice/cri-containerd-ID.scope",
    "/system.slice/containerd.service/kubepods-podPOD_.slice:cri-containerd:ID",
    "/../../kubepods-podPOD_.slice/cri-containerd-ID.scope",
    "/../cri-containerd-ID.scope",
    "/lxc.payload.web",
    "/custom",
];

proptest! {
    /// Whoever may make groups below their own chooses their names, and gains nothing.
    #[test]
    fn what_a_workload_adds_changes_nothing(
        home in prop::sample::select(HOMES),
        added in prop::collection::vec(prop_oneof![
            "[a-z.:@_-]{1,12}",
            Just("nginx.service".to_owned()),
            Just("system.slice".to_owned()),
            Just("kubepods".to_owned()),
            Just("docker".to_owned()),
            Just(format!("pod{POD}")),
            Just(OTHER_ID.to_owned()),
            Just(format!("docker-{OTHER_ID}.scope")),
            Just(format!("cri-containerd-{OTHER_ID}.scope")),
            Just(format!("kubepods-pod{POD_}.slice:cri-containerd:{OTHER_ID}")),
        ], 1..6),
    ) {
        let home = filled(home);
        let below = format!("{home}/{}", added.join("/"));
        prop_assert_eq!(unified(&below), unified(&home), "{}", below);
        let first = |path: &str| Placement::parse(&format!("4:memory:{path}\n1:name=systemd:{path}\n0::/\n"));
        prop_assert_eq!(first(&below), first(&home), "{}", below);
    }

    #[test]
    fn any_text_is_read_without_harm(text in "\\PC{0,400}") {
        Placement::parse(&text);
        Placement::parse(&format!("0::{text}"));
    }
}
