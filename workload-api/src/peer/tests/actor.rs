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
        self.listener.accept().await.unwrap().0
    }

    pub(crate) fn own_ids(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    pub(crate) fn start(&self, steps: &str) -> Actor {
        self.start_as(&mut Command::new(program()), steps)
    }

    /// A second copy of this program: another file with the same bytes and one more.
    pub(crate) fn other_program(&self) -> PathBuf {
        let path = self.folder().join("other-program");
        std::fs::copy(program(), &path).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
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
