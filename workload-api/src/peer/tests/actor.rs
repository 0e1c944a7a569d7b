//! Processes for tests, played by this test program itself: it is started again with a list of steps.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream as Connection, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tokio::net::{UnixListener, UnixStream};

/// A socket that processes connect to.
pub(crate) struct Stage {
    listener: UnixListener,
    folder: tempfile::TempDir,
}

/// A process that plays its steps, which `;` parts:
/// `connect` to the stage; `adopt` the connection that is its input; `send:TEXT`; `await` a word of the test;
/// `linger` until the connection ends; `start:STEPS` (parted by `,`) in a child that inherits the connection;
/// `become:PROGRAM:STEPS` by `exec`, keeping the connection.
pub(crate) struct Actor {
    child: Child,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        std::fs::set_permissions(folder.path().join("socket"), std::fs::Permissions::from_mode(0o777))
            .unwrap();
        super::demand_credentials(&listener).unwrap();
        Self { listener, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn accept(&self) -> UnixStream {
        let accepted = tokio::time::timeout(std::time::Duration::from_secs(60), self.listener.accept());
        accepted.await.expect("nobody connects").unwrap().0
    }

    pub(crate) fn own_ids(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    pub(crate) fn start(&self, steps: &str) -> Actor {
        self.start_as(&mut Command::new(program()), steps)
    }

    /// Another program that plays: a file of the same bytes and some more, which any user may run.
    pub(crate) fn other_program(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.folder().join(name);
        // Copied by another process: no descriptor that may be written through is inherited by those that this one
        // starts meanwhile, for then the kernel refuses to run it.
        let copied = Command::new("cp").arg(program()).arg(&path).status().unwrap();
        assert!(copied.success());
        let script = "printf '%s' \"$0\" >> \"$0\"; chmod 0755 \"$0\"";
        assert!(Command::new("sh").args(["-c", script]).arg(&path).status().unwrap().success());
        path
    }

    /// With the command that starts this program, in whatever way.
    pub(crate) fn start_as(&self, command: &mut Command, steps: &str) -> Actor {
        let command = play(command, steps).env("STAGE", self.folder().join("socket"));
        Actor { child: command.stdin(Stdio::piped()).spawn().unwrap() }
    }
}

impl Actor {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The word that `await` waits for.
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b".").unwrap();
    }

    pub(crate) fn kill_without_reaping(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        while self.child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says loudly that something was not looked at here. Where everything should be (`./test` as root says so), only the
/// reasons of [`ALLOWED`] will do.
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    let must_be_allowed = std::env::var_os("DEPUTIZE_TESTS_NO_SKIP").is_some();
    assert!(!must_be_allowed || is_allowed(why), "not looked at, although this runs as root: {why}");
}

fn is_allowed(why: &str) -> bool {
    ALLOWED.iter().any(|(allowed, _)| why.starts_with(allowed))
}

/// What even root may be unable to do, and why that is no fault of a machine.
const ALLOWED: &[(&str, &str)] = &[
    (
        NO_NUMBERS,
        "needs a kernel with checkpoints (ns_last_pid), and a number that nobody else takes meanwhile",
    ),
    (NO_SET_USER_ID, "the folder of temporary files may be mounted nosuid, as is good practice"),
    (NO_GROUPS, "in a container the control groups are read-only"),
    (NO_ADMINISTRATOR, "in a container root usually may make no namespaces"),
    (IN_USER_NAMESPACE, "root of a rootless container cannot leave its user namespace"),
];
pub(crate) const NO_NUMBERS: &str = "no process gets a number of our choice here";
pub(crate) const NO_SET_USER_ID: &str =
    "set-user-ID programs stay who they are in the folder of temporary files";
pub(crate) const NO_GROUPS: &str = "this machine lets us make no control groups";
pub(crate) const NO_ADMINISTRATOR: &str = "this process lacks CAP_SYS_ADMIN";
pub(crate) const IN_USER_NAMESPACE: &str =
    "this test runs in a user namespace, where 65534 is nobody in particular";

#[test]
fn not_every_reason_will_do() {
    assert!(ALLOWED.iter().all(|(why, because)| is_allowed(why) && !because.is_empty()));
    assert!(!is_allowed("only root can start processes of other users"));
    assert!(!is_allowed("not allowed on this machine: unshare"));
}

/// Whether tests may become other users and make namespaces.
pub(crate) fn is_root() -> bool {
    let is = rustix::process::geteuid().is_root();
    if !is {
        skip("only root can start processes of other users");
    }
    is
}

/// Whether root may do what root may (capabilities(7)), and not only be called so.
pub(crate) fn is_administrator() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(effective, 16).unwrap() & (1 << CAP_SYS_ADMIN) != 0
}

const CAP_SYS_ADMIN: u32 = 21;

/// The program that plays.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn play<'a>(command: &'a mut Command, steps: &str) -> &'a mut Command {
    command.args(["peer::tests::actor::plays", "--exact", "--test-threads=1"]).env("STEPS", steps);
    command.stdout(Stdio::null())
}

/// What the processes run. In the test program itself there are no steps, and nothing happens.
#[test]
#[expect(clippy::zombie_processes, reason = "a child that outlives its parent is what is played")]
fn plays() {
    let Ok(steps) = std::env::var("STEPS") else { return };
    let mut connection: Option<Connection> = None;
    for step in steps.split(';').map(str::trim) {
        let (verb, rest) = step.split_once(':').unwrap_or((step, ""));
        let held = || connection.as_ref().unwrap();
        match verb {
            "connect" => connection = Some(Connection::connect(std::env::var("STAGE").unwrap()).unwrap()),
            "adopt" => {
                let input = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
                connection = Some(Connection::from(input));
            }
            "send" => held().write_all(rest.as_bytes()).unwrap(),
            "await" => std::io::stdin().read_exact(&mut [0]).unwrap(),
            "linger" => while held().read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {},
            "start" => {
                let mut command = Command::new(program());
                let steps = format!("adopt; {}", rest.replace(',', ";"));
                play(&mut command, &steps).stdin(Stdio::from(handed_on(held()))).spawn().unwrap();
            }
            "become" => {
                let (path, steps) = rest.split_once(':').unwrap();
                let steps = format!("adopt; {}", steps.replace(',', ";"));
                let mut command = Command::new(path);
                panic!("{}", play(&mut command, &steps).stdin(Stdio::from(handed_on(held()))).exec());
            }
            other => panic!("no such step: {other}"),
        }
    }
}

fn handed_on(connection: &Connection) -> OwnedFd {
    connection.as_fd().try_clone_to_owned().unwrap()
}
