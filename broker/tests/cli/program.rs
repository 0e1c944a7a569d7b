//! Runs the program, and makes data folders for it.

use deputize_call::{claims::PolicyRef, digest::Digest};
use deputize_issuer::{
    entry::Draft,
    log::{CheckpointSigner, Class, Log, LogConfig},
    record::{AwsSession, Entry, Kind, SvidEntry, SvidKind},
    revocation::Revoked,
};
use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use uuid::Uuid;

/// How the program ended and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Checks the exit code, and that a failure says what to do next.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            code == 0 || format!("{}{}", self.stdout, self.stderr).contains("next:") || code == 2,
            "{self:?}"
        );
        self
    }
}

/// The program with arguments, in an empty environment but for its own variables.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deputize"));
    command.args(arguments).env_remove("DEPUTIZE_CONFIG").current_dir(std::env::temp_dir());
    command
}

pub fn run(arguments: &[&str]) -> Ran {
    ran(command(arguments).stdin(Stdio::null()).output().unwrap())
}

pub fn run_with_input(arguments: &[&str], input: &str) -> Ran {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ran(child.wait_with_output().unwrap())
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A file that its owner alone may read.
pub fn write_private(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// A data folder with a log.
pub struct Data {
    pub folder: TempDir,
    pub verifier_key: String,
}

pub const ORIGIN: &str = "broker.example/log/0a1b2c3d";

impl Data {
    /// With these records, closed properly.
    pub fn with(entries: &[Entry]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        let pkcs8 = CheckpointSigner::generate_pkcs8().unwrap();
        write_private(&folder.path().join("keys/checkpoint.p8"), &pkcs8);
        let signer = CheckpointSigner::from_pkcs8(ORIGIN, &pkcs8).unwrap();
        let verifier_key = signer.verifier().to_string();
        let data = Self { folder, verifier_key };
        data.append(signer, entries);
        data
    }

    /// Opens the log again and adds to it.
    pub fn append_more(&self, entries: &[Entry]) {
        let pkcs8 =
            zeroize::Zeroizing::new(std::fs::read(self.folder.path().join("keys/checkpoint.p8")).unwrap());
        self.append(CheckpointSigner::from_pkcs8(ORIGIN, &pkcs8).unwrap(), entries);
    }

    fn append(&self, signer: CheckpointSigner, entries: &[Entry]) {
        let config = LogConfig {
            folder: self.folder.path().join("log"),
            origin: ORIGIN.to_owned(),
            anchor: Some(self.anchor()),
            segment_bytes: 1 << 20,
            reserve_bytes: 0,
        };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (log, _) = Log::open(config, signer).unwrap();
            for entry in entries {
                log.append(Class::Vital, entry.to_bytes().unwrap()).await.unwrap();
            }
            log.close().await.unwrap();
        });
    }

    pub fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    pub fn anchor(&self) -> PathBuf {
        self.folder.path().join("anchor-elsewhere")
    }

    pub fn only_segment(&self) -> PathBuf {
        let files =
            std::fs::read_dir(self.folder.path().join("log")).unwrap().map(|file| file.unwrap().path());
        let mut segments: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|ending| ending == "seg" || ending == "log"))
            .collect();
        assert_eq!(segments.len(), 1, "{segments:?}");
        segments.remove(0)
    }
}

pub fn decision(number: u128) -> Uuid {
    // 2026-11-21T09:30:00Z in milliseconds, version 7, then the number.
    Uuid::from_u128(1_795_253_400_000_u128 << 80 | 0x7000 << 64 | 0x8000 << 48 | number)
}

pub const AT_MS: u64 = 1_795_253_400_000;

/// An intent, as the broker writes one for the call of a tool.
pub fn intent(number: u128) -> Entry {
    Entry {
        decision: Some(decision(number)),
        tenant: Some("acme".to_owned()),
        client: Some("support-bot".to_owned()),
        sub: Some("user:acme:idp:alice".to_owned()),
        issuer: Some("https://idp.example".to_owned()),
        actors: vec!["spiffe://acme.example/agent/support".to_owned()],
        txn: Some(format!("txn-{number}")),
        jti: Some(format!("jti-{number}")),
        exp: Some(AT_MS / 1000 + 60),
        server: Some("https://crm.example/mcp".to_owned()),
        tool: Some("refund_payment".to_owned()),
        level: Some("L3".to_owned()),
        tier: Some("medium".to_owned()),
        policy: Some(PolicyRef { digest: "set-digest".to_owned(), ids: vec!["support.refund".to_owned()] }),
        risk: Some(40),
        risk_reasons: vec!["tier_medium".to_owned(), "writes".to_owned()],
        ..Entry::new(Kind::Intent, AT_MS + number as u64)
    }
}

/// A session of an AWS role for the call of another intent.
pub fn role_session(number: u128, of: u128) -> Entry {
    Entry {
        client: Some("ops-guard".to_owned()),
        pjti: Some(format!("jti-{of}")),
        jti: None,
        txn: Some(format!("txn-{of}")),
        aws: Some(AwsSession {
            template: "restart-instance".to_owned(),
            template_hash: Digest::from_bytes([7; 32]),
            account: "111122223333".to_owned(),
            region: "eu-central-1".to_owned(),
            role: "arn:aws:iam::111122223333:role/deputize/restart-instance".to_owned(),
            session_name: decision(number).to_string(),
            source_identity: "alice".to_owned(),
            window_end: AT_MS / 1000 + 300,
        }),
        ..intent(number)
    }
}

/// An X.509-SVID that is about to be minted.
pub fn x509_svid(number: u128) -> Entry {
    let svid = SvidEntry {
        serial: Some("5e41a1".to_owned()),
        authority: Some("4f1c2b9e".to_owned()),
        dns_names: vec!["support.example.org".to_owned()],
        ..svid(SvidKind::X509)
    };
    Entry {
        decision: Some(decision(number)),
        spiffe: Some(svid),
        ..Entry::new(Kind::Intent, AT_MS + number as u64)
    }
}

/// A JWT-SVID that is about to be minted.
pub fn jwt_svid(number: u128) -> Entry {
    let svid = SvidEntry { audiences: vec!["https://db.example".to_owned()], ..svid(SvidKind::Jwt) };
    Entry {
        decision: Some(decision(number)),
        jti: Some(format!("svid-jti-{number}")),
        key: Some("kid-of-jwt-svids".to_owned()),
        spiffe: Some(svid),
        ..Entry::new(Kind::Intent, AT_MS + number as u64)
    }
}

fn svid(kind: SvidKind) -> SvidEntry {
    SvidEntry {
        svid: Some(kind),
        entry: Some("support".to_owned()),
        spiffe_id: Some("spiffe://example.org/support".to_owned()),
        node: "spiffe://example.org/deputize/node/local".to_owned(),
        attested: None,
        asked_by: vec!["unix:uid:1001".to_owned(), "unix:path:/usr/bin/agent".to_owned()],
        reported_by_node: false,
        serial: None,
        authority: None,
        audiences: Vec::new(),
        dns_names: Vec::new(),
        not_after: Some(AT_MS / 1000 + 3600),
    }
}

/// A process that was refused what no entry entitles it to.
pub fn svid_denial(number: u128) -> Entry {
    let svid =
        SvidEntry { svid: None, entry: None, spiffe_id: None, not_after: None, ..svid(SvidKind::X509) };
    Entry {
        decision: Some(decision(number)),
        reason: Some("no_entry".to_owned()),
        spiffe: Some(svid),
        ..Entry::new(Kind::Denial, AT_MS + number as u64)
    }
}

/// What administration did with the entry `support`.
pub fn registration(number: u128, result: &str) -> Entry {
    let draft = Draft {
        id: "support".to_owned(),
        spiffe_id: "spiffe://example.org/support".to_owned(),
        selectors: vec!["unix:uid:1000".to_owned(), "unix:path:/usr/bin/agent".to_owned()],
        ..Draft::default()
    };
    Entry {
        decision: Some(decision(number)),
        by: Some("admin".to_owned()),
        result: Some(result.to_owned()),
        registration: Some(draft),
        ..Entry::new(Kind::Registration, AT_MS + number as u64)
    }
}

pub fn outcome(number: u128, index: u64) -> Entry {
    Entry {
        decision: Some(decision(number)),
        intent: Some(index),
        result: Some("minted".to_owned()),
        ..Entry::new(Kind::Outcome, AT_MS + number as u64)
    }
}

pub fn denial(number: u128, reason: &str) -> Entry {
    Entry {
        decision: Some(decision(number)),
        tenant: Some("acme".to_owned()),
        client: Some("support-bot".to_owned()),
        tool: Some("delete_account".to_owned()),
        server: Some("https://crm.example/mcp".to_owned()),
        reason: Some(reason.to_owned()),
        detail: Some("policies: baseline.no_deletes; errors: ".to_owned()),
        ..Entry::new(Kind::Denial, AT_MS + number as u64)
    }
}

pub fn redemption(number: u128) -> Entry {
    Entry {
        client: Some("crm-guard".to_owned()),
        jti: Some(format!("jti-{number}")),
        txn: Some(format!("txn-{number}")),
        ..Entry::new(Kind::Redemption, AT_MS + number as u64 + 5)
    }
}

pub fn revocation(what: Revoked) -> Entry {
    Entry { by: Some("admin".to_owned()), revoked: vec![what], ..Entry::new(Kind::Revocation, AT_MS + 9) }
}
