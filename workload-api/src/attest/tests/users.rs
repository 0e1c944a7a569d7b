//! Users, groups, and namespaces of them.

use super::*;
use crate::attest::status::Credentials;

/// A command that runs as these and becomes the program.
fn as_user(stage: &Stage, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(options).arg(stage.other_program("anybodys"));
    command
}

#[tokio::test]
async fn a_user_has_its_names_and_its_groups() {
    if !is_root() {
        return;
    }
    let stage = Stage::set();
    let mut command = as_user(&stage, &["--reuid=65534", "--regid=12346", "--groups=0,12347"]);
    let Some((_actor, _stream, peer)) = connected_if_allowed(&stage, &mut command).await else { return };
    let workload = attestor().attest(&peer).await.unwrap();
    assert_eq!(values(&workload, "unix", "gid"), just("12346"));
    assert!(values(&workload, "unix", "group").is_empty(), "a group without a name");
    let others: BTreeSet<_> = ["0".to_owned(), "12347".to_owned()].into();
    assert_eq!(values(&workload, "unix", "supplementary_gid"), others);
    assert_eq!(values(&workload, "unix", "supplementary_group"), just("root"));
    assert!(!has(&workload, "unix:uid:0") && !has(&workload, "unix:user:root"));
    // Outside of containers `nobody` is a user like others.
    if Overflow::ours().is_one_user(65_534) {
        assert_eq!(values(&workload, "unix", "uid"), just("65534"));
        assert_eq!(values(&workload, "unix", "user"), just("nobody"));
    } else {
        skip(IN_USER_NAMESPACE);
    }
}

#[tokio::test]
async fn a_number_that_stands_for_strangers_is_no_user_and_no_group() {
    let names = Names::of(Box::new(SystemDirectory));
    let seen = Credentials {
        effective_uid: 65_534,
        effective_gid: 65_534,
        supplementary_gids: vec![0, 65_534],
        is_nested: false,
    };
    let rest = ["unix:supplementary_gid:0".to_owned(), "unix:supplementary_group:root".to_owned()];
    for (names, rest) in [(Some(&names), rest.as_slice()), (None, &rest[..1])] {
        let mut selectors = Selectors::default();
        selectors.users_and_groups(&seen, Overflow::of(Some(65_534), Some(65_534)), names).await;
        let told: BTreeSet<_> = selectors.into_set().iter().map(ToString::to_string).collect();
        assert_eq!(told, rest.iter().cloned().collect());
    }
}

#[tokio::test]
async fn root_of_a_user_namespace_is_who_made_it() {
    if !is_root() {
        return;
    }
    let stage = Stage::set();
    let options = ["--reuid=12345", "--regid=12346", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(options).args(["unshare", "--user", "--map-root-user"]).arg(stage.other_program("anybodys"));
    let Some((actor, _stream, peer)) = connected_if_allowed(&stage, &mut command).await else { return };
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", actor.pid())).unwrap();
    assert_eq!(map.split_ascii_whitespace().collect::<Vec<_>>(), ["0", "12345", "1"], "it is root to itself");
    let workload = attestor().attest(&peer).await.unwrap();
    assert_eq!(values(&workload, "unix", "uid"), just("12345"));
    assert_eq!(values(&workload, "unix", "gid"), just("12346"));
    assert!(values(&workload, "unix", "user").is_empty());
    assert!(workload.is_contained());
}

/// As many a container has it: root of the machine by its number, and a control group that tells nothing.
#[tokio::test]
async fn who_has_other_namespaces_or_another_root_is_contained_and_has_no_names() {
    if !is_root() {
        return;
    }
    let stage = Stage::set();
    let script = "root=\"$0\"; mount -t tmpfs none \"$root\" && for at in /* ; do [ -d \"$at\" ] && \
        mkdir -p \"$root$at\" && mount --rbind \"$at\" \"$root$at\" || true; done; exec chroot \"$root\" \"$@\"";
    let new_root = stage.folder().join("root");
    std::fs::create_dir(&new_root).unwrap();
    let pid = ["--pid", "--fork", "--kill-child"];
    let user = ["--user", "--map-root-user"];
    let root = ["--mount", "sh", "-c", script, new_root.to_str().unwrap()];
    let program = stage.other_program("inner");
    for (options, is_contained) in [
        (["--mount"].as_slice(), false),
        (pid.as_slice(), true),
        (user.as_slice(), true),
        (root.as_slice(), true),
    ] {
        let mut command = Command::new("unshare");
        command.args(options).arg(&program);
        let Some((_actor, _stream, peer)) = connected_if_allowed(&stage, &mut command).await else { return };
        let workload = attestor().attest(&peer).await.unwrap();
        assert_eq!(workload.is_contained(), is_contained, "{options:?}");
        assert_eq!(values(&workload, "unix", "uid"), just("0"), "{options:?}");
        let names =
            ["user", "group", "supplementary_group"].map(|word| values(&workload, "unix", word).len());
        assert_eq!(names == [0; 3], is_contained, "{options:?}: {names:?}");
    }
}

#[tokio::test]
async fn a_process_of_an_inner_process_namespace_is_looked_at_by_our_number_for_it() {
    if !is_root() {
        return;
    }
    let stage = Stage::set();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(stage.other_program("inner"));
    let Some((actor, _stream, peer)) = connected_if_allowed(&stage, &mut command).await else { return };
    assert!(peer.pid() > 1 && peer.pid() != actor.pid(), "{} is number 1 to itself", peer.pid());
    let workload = attestor().attest(&peer).await.unwrap();
    assert_eq!(values(&workload, "unix", "path"), just(stage.folder().join("inner").to_str().unwrap()));
}
