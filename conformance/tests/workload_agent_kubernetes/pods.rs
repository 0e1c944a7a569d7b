//! A stand-in for a kubelet, and processes in the control groups of pods.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use deputize_conformance::{
    node_lab::shown,
    process::binary,
    trust::{Authority, write_private},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

/// A kubelet with its files.
pub(crate) struct Kubelet {
    says: Arc<Mutex<Says>>,
    folder: TempDir,
    port: u16,
}

/// What it answers.
struct Says {
    status: u16,
    pods: Value,
    token: String,
}

impl Kubelet {
    /// One with these pods.
    pub(crate) async fn start(pods: Value) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("stranger.pem"), Authority::new().pem()).unwrap();
        let says = Arc::new(Mutex::new(Says { status: 200, pods, token: String::new() }));
        let router = Router::new().route("/pods", get(tell)).with_state(Arc::clone(&says));
        let port = crate::serve(&authority, router).await;
        let kubelet = Self { says, folder, port };
        kubelet.renews_token("first");
        kubelet
    }

    /// The token that it takes from now on, and that lies there for who asks it.
    pub(crate) fn renews_token(&self, token: &str) {
        self.says.lock().unwrap().token = format!("Bearer {token}");
        write_private(&self.file("token"), token);
    }

    pub(crate) fn says(&self, status: u16) {
        self.says.lock().unwrap().status = status;
    }

    /// The pods that it lists from now on.
    pub(crate) fn lists(&self, pods: Value) {
        self.says.lock().unwrap().pods = pods;
    }

    /// What an agent is told of it; who vouches for it is in this file.
    pub(crate) fn arguments(&self, authority: &str) -> Vec<String> {
        vec![
            format!("--kubelet-address=127.0.0.1:{}", self.port),
            format!("--kubelet-ca={}", shown(&self.file(authority))),
            format!("--kubelet-token-file={}", shown(&self.file("token"))),
        ]
    }

    /// The same, as the broker's configuration has it.
    pub(crate) fn configured(&self, authority: &str) -> Value {
        json!({
            "address": format!("127.0.0.1:{}", self.port), "ca_file": self.file(authority),
            "token_file": self.file("token"),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn tell(State(says): State<Arc<Mutex<Says>>>, headers: HeaderMap) -> Response {
    let says = says.lock().unwrap();
    let status = match headers.get(header::AUTHORIZATION) {
        Some(shown) if shown.as_bytes() == says.token.as_bytes() => says.status,
        _ => 401,
    };
    let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": says.pods });
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::from_u16(status).unwrap(), headers, list.to_string()).into_response()
}

/// A pod of one container, as a kubelet tells of it.
pub(crate) fn pod((uid, container): (&str, &str), namespace: &str, account: &str) -> Value {
    json!({
        "metadata": { "uid": uid, "name": "bot-0", "namespace": namespace, "labels": { "app": "bot" } },
        "spec": { "serviceAccountName": account, "nodeName": "worker-1", "containers": [{ "name": "main" }] },
        "status": {
            "phase": "Running",
            "containerStatuses": [{ "name": "main", "containerID": format!("containerd://{container}") }],
        },
    })
}

/// Set where tests must not pass because they could not be run.
const REQUIRED: &str = "DEPUTIZE_TESTS_NEED_CONTROL_GROUPS";

/// The control group of a container of a pod; taken away in the end.
pub(crate) struct ContainerGroup {
    folder: PathBuf,
    made: Vec<PathBuf>,
}

impl ContainerGroup {
    /// Makes one, as the kubelet does; none where this machine does not let us, which is said.
    #[expect(clippy::print_stderr, reason = "that something is not tested has to be seen")]
    pub(crate) fn make((uid, container): (&str, &str)) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let mut group = Self { folder: root.unwrap_or_default(), made: Vec::new() };
        for segment in ["kubepods", "burstable", &format!("pod{uid}"), container] {
            group.folder.push(segment);
            if !group.folder.exists() {
                group.made.push(group.folder.clone());
            }
        }
        // Another test may just have taken away what they have in common.
        let made = (0..10).map(|_| std::fs::create_dir_all(&group.folder)).find(Result::is_ok);
        if made.is_none() {
            assert!(std::env::var_os(REQUIRED).is_none(), "{} cannot be made", group.folder.display());
            eprintln!("NOT TESTED: {} cannot be made on this machine", group.folder.display());
        }
        made.map(|_| group)
    }

    /// Runs the program there to its end: its exit code, and what it printed.
    pub(crate) fn deputize(&self, arguments: &[&str]) -> (i32, String) {
        let ran = self.command(&binary()).args(arguments).output().unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// A process that stays there until it is killed.
    pub(crate) fn sleeper(&self) -> Child {
        let mut sleeper =
            self.command(Path::new("cat")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It echoes once it runs there.
        std::io::Write::write_all(sleeper.stdin.as_mut().unwrap(), b".").unwrap();
        std::io::Read::read_exact(sleeper.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        sleeper
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let place = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        command.args(["-c", place]).arg(&self.folder).arg(program).stdin(Stdio::null());
        command
    }
}

impl Drop for ContainerGroup {
    fn drop(&mut self) {
        for folder in self.made.iter().rev() {
            // One that others are in stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}
