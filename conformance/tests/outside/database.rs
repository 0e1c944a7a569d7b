//! A database behind a server behind a guard: PostgreSQL's own log says for whom each statement ran.

use crate::third_party::{definitions, python, repository};
use deputize_client::Detail;
use deputize_conformance::live_guard::{LiveGuard, call, free_port, messages};
use serde_json::{Value, json};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_databases_own_log_names_user_agent_and_transaction() {
    let database = tokio::task::block_in_place(Postgres::start);
    let script = repository().join("clients/python/examples/postgres_server.py");
    let port = free_port();
    let (server, url) = (format!("PORT={port}"), format!("http://127.0.0.1:{port}/mcp"));
    let (python, script) = (python().to_str().unwrap().to_owned(), script.to_str().unwrap().to_owned());
    let tools = tokio::task::block_in_place(|| listed(&python, &script));
    let place = format!("DATABASE_URL={}", database.url());
    let command = ["--upstream", &url, "--env", &server, "--env", &place, "--", &python, &script];
    let guarded = LiveGuard::start(&tools, &command).await;

    // One of the users' notes tries to be a statement, and to end the line of the log.
    let hostile = "'); DROP TABLE notes; --\nLOG: forged";
    let alice = called_by(&guarded, "alice", hostile).await;
    let bob = called_by(&guarded, "bob", "called").await;
    assert_ne!(alice, bob, "each has a transaction");

    let log = database.log();
    let agent = guarded.dev.text("/client/client_id");
    for (user, transaction) in [("alice", &alice), ("bob", &bob)] {
        let name = inserted(&log, transaction);
        assert!(name.starts_with(&format!("{transaction} {user}/")) && name.len() <= 63, "{name:?}");
        let acting = name.rsplit_once('/').unwrap().1;
        assert!(!acting.is_empty(), "{name:?} of {agent}");
    }
    let notes = database.ask("SELECT written_by, note FROM notes ORDER BY written_by");
    let whole = |user: &str| notes.contains(&format!(":{user}|"));
    assert!(whole("alice") && whole("bob") && notes.contains("DROP TABLE"), "{notes}");
    assert!(!log.lines().any(|line| line.starts_with("LOG: forged")), "{log}");
}

/// A note of this user's; the transaction of his call.
async fn called_by(guarded: &LiveGuard, user: &str, text: &str) -> String {
    let arguments = json!({ "customer_id": "cus_17", "text": text });
    let detail = Detail::Call {
        name: "add_note".to_owned(),
        arguments: arguments.clone(),
        input_responses: None,
        request_state: None,
    };
    let token = guarded.token(user, &guarded.url, detail).await;
    let answer = guarded.say(&token, &[], &call("add_note", &arguments)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = messages(&answer).pop().unwrap();
    assert_eq!(said["result"]["structuredContent"]["text"], text, "{said}");
    token.transaction_id().to_owned()
}

/// The `application_name` under which the note of a transaction was written.
fn inserted(log: &str, transaction: &str) -> String {
    let lines = log.lines().filter(|line| line.contains("INSERT INTO notes") && line.contains(transaction));
    let names: Vec<&str> = lines.filter_map(|line| line.split('|').next()).collect();
    let [name] = names.as_slice() else { panic!("not one line of {transaction}: {log}") };
    (*name).to_owned()
}

/// What the server lists. It asks for its guard's secret, which nobody tells it here.
fn listed(python: &str, script: &str) -> Vec<Value> {
    let code = "import sys; sys.path.insert(0, sys.argv[1]); from postgres_server import server; \
                server.run(show_banner=False)";
    let folder = Path::new(script).parent().unwrap().to_str().unwrap().to_owned();
    definitions(&json!({ "command": python, "args": ["-c", code, folder] }))
}

/// A server of the system's own PostgreSQL, with a log that shows `application_name`.
struct Postgres {
    process: Child,
    port: u16,
    folder: TempDir,
    programs: PathBuf,
}

impl Postgres {
    fn start() -> Self {
        let (folder, programs, port) = (tempfile::tempdir().unwrap(), programs(), free_port());
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        // It refuses to run as root: then it runs as the user that its package made.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let owner = is_root().then(|| id(&["-u", "postgres"]).parse().unwrap());
        chown(&data, owner, None).unwrap();
        let text = data.to_str().unwrap();
        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb.args(["-D", text, "-A", "trust", "-U", "deputize", "-E", "UTF8", "--no-sync", "--locale=C"]);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = unprivileged(&programs.join("postgres"));
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "log_statement=all",
            "log_line_prefix=%a|",
            "fsync=off",
        ] {
            server.args(["-c", setting]);
        }
        server.args(["-D", text, "-p", &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        server.stderr(File::create(folder.path().join("log")).unwrap());
        let process = server.spawn().expect("postgres starts");
        let database = Self { process, port, folder, programs };
        database.wait();
        database
    }

    fn wait(&self) {
        for _ in 0..6000 {
            let mut asked = Command::new(self.programs.join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if asked.status().expect("pg_isready runs").success() {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        panic!("it does not take connections: {}", self.log());
    }

    fn url(&self) -> String {
        format!("postgresql://deputize@127.0.0.1:{}/postgres", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn ask(&self, statement: &str) -> String {
        let mut asked = Command::new(self.programs.join("psql"));
        let answer = asked.args(["-At", "-d", &self.url(), "-c", statement]).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It ends at once, and its children with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the newest version of Debian's package is.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.pop().expect("PostgreSQL is missing: run ./test, which installs it")
}

fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    id(&["-u"]) == "0"
}

fn id(arguments: &[&str]) -> String {
    let said = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}
