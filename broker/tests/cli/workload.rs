//! The Workload API of a running `serve`: entries, SVIDs, and what every command says of them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Stdio},
};
use tempfile::TempDir;

use crate::program::{Ran, command, run};

#[test]
fn an_entry_that_is_made_reaches_an_open_stream_and_one_that_is_deleted_ends_it() {
    let broker = Broker::start(SPIFFE);
    let nothing = broker.run(&["svid", "fetch"]).expect(3);
    assert!(nothing.stderr.contains("--explain"), "{nothing:?}");

    let made = broker.create("first", "spiffe://example.org/first", &own_uid());
    assert!(made.stdout.contains("spiffe://example.org/first"), "{made:?}");
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/first"]);
    broker.create("second", "spiffe://example.org/second", &own_uid());
    assert_eq!(watch.ids(), ["spiffe://example.org/first", "spiffe://example.org/second"]);
    // One that is for others changes nothing here: the next message is that of the deletion.
    broker.create("others", "spiffe://example.org/others", "unix:uid:4294967290");
    broker.run(&["entry", "delete", "first"]).expect(0);
    assert_eq!(watch.ids(), ["spiffe://example.org/second"]);
    broker.run(&["entry", "delete", "second"]).expect(0);
    let said = watch.end();
    assert_eq!(said.0, 3, "{said:?}");
    assert!(said.1.contains("PermissionDenied"), "{said:?}");
    broker.run(&["svid", "fetch"]).expect(3);

    let kinds = broker.run(&["audit", "query", "--kind", "registration", "-o", "json"]).expect(0).lines();
    let kinds: Vec<_> = kinds
        .iter()
        .map(|record| {
            let entry = &record["entry"];
            (entry["result"].as_str().unwrap(), entry["registration"]["id"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("created", "first"),
        ("created", "second"),
        ("created", "others"),
        ("deleted", "first"),
        ("deleted", "second"),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn an_svid_is_fetched_written_explained_and_on_record() {
    let broker = Broker::start(SPIFFE);
    broker.create("agent", "spiffe://example.org/agent", &own_uid());
    let files = broker.folder.path().join("written");
    let written =
        broker.run(&["svid", "fetch", "--write", files.to_str().unwrap(), "-o", "json"]).expect(0).json();
    assert_eq!(written["svids"][0]["spiffe_id"], "spiffe://example.org/agent");
    let mode = |name: &str| std::fs::metadata(files.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("svid.pem"), mode("key.pem"), mode("bundle.pem")), (0o644, 0o600, 0o644));
    let text = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
    assert!(text("svid.pem").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(text("key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let key = text("key.pem").lines().nth(1).unwrap().to_owned();
    assert!(
        !broker.run(&["svid", "fetch", "-o", "json"]).expect(0).stdout.contains(&key),
        "keys are not printed"
    );

    let jwt = ["svid", "fetch", "--audience", "https://crm.example", "-o", "json"];
    let jwt = broker.run(&jwt).expect(0).json();
    let token = jwt[0]["token"].as_str().unwrap();
    let part = |at: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "ES256");
    assert_eq!(part(1)["sub"], "spiffe://example.org/agent");
    assert_eq!(part(1)["iss"], "https://broker.example/spiffe");
    broker.run(&["svid", "fetch", "--audience", "sts.amazonaws.com"]).expect(2);
    broker.run(&["svid", "fetch", "--spiffe-id", "spiffe://example.org/other"]).expect(3);

    let keys = broker.get("/spiffe/jwks");
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == part(0)["kid"]), "{keys}");
    assert_eq!(
        broker.get("/spiffe/.well-known/openid-configuration")["issuer"],
        "https://broker.example/spiffe"
    );
    let bundle = broker.get("/spiffe/bundle");
    let uses: Vec<_> =
        bundle["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);

    let records = broker.run(&["audit", "query", "--kind", "intent", "-o", "json"]).expect(0).lines();
    let of_jwt = records.iter().find(|record| record["entry"]["spiffe"]["svid"] == "jwt").unwrap();
    assert_eq!(of_jwt["entry"]["spiffe"]["audiences"][0], "https://crm.example");
    let decision = of_jwt["entry"]["decision"].as_str().unwrap();
    let story = broker.run(&["explain", decision]).expect(0).stdout;
    for part in ["✔ granted", "JWT-SVID", "spiffe://example.org/agent", "https://crm.example", "by entry"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    let lines = broker.run(&["audit", "query", "--kind", "intent"]).expect(0).stdout;
    assert!(lines.contains("svid=X.509-SVID entry=agent spiffe_id=spiffe://example.org/agent"), "{lines}");
}

#[test]
fn it_is_explained_what_an_entry_lacks_of_a_process() {
    let broker = Broker::start(SPIFFE);
    broker.create("elsewhere", "spiffe://example.org/elsewhere", "unix:path:/nowhere");
    let pid = std::process::id().to_string();
    let explained = ["svid", "fetch", "--explain", "--pid", &pid];
    let why = broker.run(&explained).expect(3).stdout;
    assert!(why.contains("✖ elsewhere") && why.contains("the process is not unix:path:/nowhere"), "{why}");
    assert!(why.contains(&format!("is {}", own_uid())), "{why}");
    broker.run(&["doctor", "--workload-api", "--pid", &pid]).expect(1);
    broker.create("here", "spiffe://example.org/here", &own_uid());
    assert!(broker.run(&explained).expect(0).stdout.contains("✔ here"));
    let well = broker.run(&["doctor", "--workload-api"]).expect(0).stdout;
    assert!(well.contains("spiffe://example.org/here"), "{well}");
    broker.run(&["svid", "fetch", "--explain", "--pid", "2000000000"]).expect(1);
}

#[test]
fn entries_of_files_and_of_administration_live_side_by_side_and_outlive_a_restart() {
    let mut broker = Broker::start(SPIFFE);
    let of_file =
        |id: &str| format!("id: {id}\nspiffe_id: spiffe://example.org/{id}\nselectors: ['{}']\n", own_uid());
    broker.write("entries/a.yaml", &of_file("of-file"));
    broker.create("made", "spiffe://example.org/made", &own_uid());
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/made"]);
    broker.signal(Signal::HUP);
    assert_eq!(watch.ids(), ["spiffe://example.org/made", "spiffe://example.org/of-file"]);

    let listed = broker.run(&["entry", "ls"]).expect(0).stdout;
    assert!(listed.contains("administration") && listed.contains("a.yaml"), "{listed}");
    let refused = broker.run(&["entry", "delete", "of-file"]).expect(3);
    assert!(refused.stderr.contains("a.yaml"), "{refused:?}");
    let taken = broker.run(&[
        "entry",
        "create",
        "--id",
        "of-file",
        "--spiffe-id",
        "spiffe://example.org/x",
        "--selector",
        "unix:uid:1",
    ]);
    assert!(taken.expect(1).stderr.contains("a.yaml has an entry of this id already"));
    broker.run(&["entry", "show", "of-file"]).expect(0);
    broker.run(&["entry", "show", "nothing"]).expect(1);
    broker.run(&["entry", "delete", "nothing"]).expect(1);

    broker.restart();
    drop(watch);
    let ids: Vec<Value> =
        broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().clone();
    let ids: Vec<_> = ids.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["made", "of-file"]);
    broker.run(&["entry", "delete", "made"]).expect(0);
    broker.restart();
    assert_eq!(broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn an_entry_that_was_deleted_under_a_files_does_not_come_back_with_a_reload() {
    let broker = Broker::start(SPIFFE);
    let text = format!("id: both\nspiffe_id: spiffe://example.org/file\nselectors: ['{}']\n", own_uid());
    broker.create("both", "spiffe://example.org/made", &own_uid());
    let mut watch = broker.watch();
    assert_eq!(watch.ids(), ["spiffe://example.org/made"]);
    broker.write("entries/a.yaml", &text);
    broker.signal(Signal::HUP);
    assert_eq!(watch.ids(), ["spiffe://example.org/file"]);

    let listed = broker.run(&["entry", "ls"]).expect(0).stdout;
    let hidden = listed.lines().find(|line| line.contains("spiffe://example.org/made")).unwrap();
    assert!(hidden.contains("does not hold") && hidden.contains("a.yaml"), "{listed}");
    let listed = broker.run(&["entry", "ls", "-o", "json"]).expect(0).json();
    assert_eq!(listed[0]["shadows"]["spiffe_id"], "spiffe://example.org/made");
    assert!(broker.run(&["entry", "show", "both"]).expect(0).stdout.contains("spiffe://example.org/made"));

    let deleted = broker.run(&["entry", "delete", "both"]).expect(0).stdout;
    assert!(deleted.contains("a.yaml still holds"), "{deleted}");
    let records = broker.run(&["audit", "query", "--kind", "registration", "-o", "json"]).expect(0).lines();
    let last = &records.last().unwrap()["entry"];
    assert_eq!(
        (&last["result"], &last["registration"]["spiffe_id"]),
        (&"deleted".into(), &"spiffe://example.org/made".into())
    );
    broker.run(&["entry", "delete", "both"]).expect(3);
    broker.run(&["svid", "fetch"]).expect(0);

    std::fs::remove_file(broker.folder.path().join("entries/a.yaml")).unwrap();
    broker.signal(Signal::HUP);
    assert_eq!(watch.end().0, 3, "nothing is left");
    broker.run(&["entry", "delete", "both"]).expect(1);
}

#[test]
fn what_cannot_be_an_entry_is_refused_and_says_why() {
    let broker = Broker::start(SPIFFE);
    for (id, selector, said) in [
        ("spiffe://elsewhere.example/a", "unix:uid:1", "not in our trust domain"),
        ("spiffe://example.org", "unix:uid:1", "it has a path"),
        ("spiffe://example.org/deputize/node/a", "unix:uid:1", "those of the broker"),
        ("spiffe://example.org/%2e", "unix:uid:1", "spiffe_id"),
        ("spiffe://example.org/a", "uid", "selector"),
        ("spiffe://example.org/u/{unix:user}", "k8s:ns:a", "no template"),
    ] {
        let refused = broker.run(&["entry", "create", "--spiffe-id", id, "--selector", selector]).expect(1);
        assert!(refused.stderr.contains(said), "{id}: {refused:?}");
    }
    broker.run(&["entry", "create", "--spiffe-id", "spiffe://example.org/a"]).expect(2);
    assert_eq!(broker.run(&["entry", "ls", "-o", "json"]).expect(0).json().as_array().unwrap().len(), 0);
}

#[test]
fn without_spiffe_there_is_none_of_it() {
    let broker = Broker::start("");
    broker.run(&["entry", "ls"]).expect(5);
    broker.run(&["svid", "fetch"]).expect(5);
    assert_eq!(broker.get("/spiffe/bundle")["error"], "not_found");
    let gone = broker.folder.path().join("nothing.sock");
    broker.run(&["svid", "fetch", "--socket", gone.to_str().unwrap()]).expect(6);
    broker.run(&["svid", "fetch", "--socket", "tcp://127.0.0.1:1"]).expect(2);
}

/// A broker under `serve`; it ends with this.
struct Broker {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Broker {
    fn start(spiffe: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["registry", "entries", "anchor", "run"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let text = format!(
            "issuer: https://broker.example\ndata_dir: data\n\
             listen: {{ address: '127.0.0.1:0', behind_proxy: true }}\naudit: {{ anchor: anchor/checkpoint }}\n\
             registry: {{ folder: registry, unsigned_approvals: allow }}\npolicies: {}\n{spiffe}",
            policies.display()
        );
        std::fs::write(folder.path().join("deputize.yaml"), text).unwrap();
        let (child, address) = serve(&folder.path().join("deputize.yaml"));
        Self { child, address, folder }
    }

    fn restart(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
        (self.child, self.address) = serve(&self.config());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("deputize.yaml")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config();
        run(&[arguments, &["--config", config.to_str().unwrap()]].concat())
    }

    fn create(&self, id: &str, spiffe_id: &str, selector: &str) -> Ran {
        self.run(&["entry", "create", "--id", id, "--spiffe-id", spiffe_id, "--selector", selector]).expect(0)
    }

    fn watch(&self) -> Watch {
        let mut child = command(&["svid", "watch", "-o", "json", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }

    /// What the public door answers.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: broker.example\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker and waits until it takes requests; where it does.
fn serve(config: &Path) -> (Child, String) {
    let mut child = command(&["serve", "--log-format", "json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = address_of(&mut lines);
    // Who writes must not wait for who reads.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn address_of(lines: &mut Lines<BufReader<ChildStderr>>) -> String {
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        let is_ready = line.contains("\"ready\"");
        if let Some((_, rest)) = line.split_once("127.0.0.1:").filter(|_| is_ready) {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return format!("127.0.0.1:{port}");
        }
        said.push(line);
    }
    panic!("serve did not start: {said:?}");
}

/// A `svid watch` that runs.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// The identities of the next message.
    fn ids(&mut self) -> Vec<String> {
        let line = self.lines.next().unwrap().unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        let svids = message["svids"].as_array().unwrap();
        svids.iter().map(|svid| svid["spiffe_id"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it ends by itself; its exit code, and what it said.
    fn end(&mut self) -> (i32, String) {
        assert!(self.lines.next().is_none(), "nothing more comes");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is true of every process of this test.
fn own_uid() -> String {
    format!("unix:uid:{}", std::fs::metadata("/proc/self").unwrap().uid())
}

const SPIFFE: &str =
    "spiffe: { trust_domain: example.org, socket: run/workload-api.sock, entries: entries }\n";
