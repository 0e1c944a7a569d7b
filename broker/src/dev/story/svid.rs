//! The steps at the Workload API's socket: a process proves who it is by being itself, and loses that with its life.

use super::{Told, Trouble, steps::Stage};
use crate::dev::layout::{AGENT, TRUST_DOMAIN};
use rustls::{RootCertStore, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use serde_json::Value;
use spiffe::X509Svid;
use std::{path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A process that holds an SVID, and is told when there is a newer one. It ends with this value.
pub(super) struct Agent {
    process: Child,
    pid: u32,
}

impl Stage<'_> {
    /// A process without any secret asks at the socket, and has an identity that whoever knows the trust domain's
    /// authorities can verify.
    pub(super) async fn svid_fetched(&self) -> Result<Told<Agent>, Trouble> {
        let socket = &self.environment.ready.workload_api_socket;
        let files = self.environment.files.folder.join("agent");
        let mut process = Command::new(std::env::current_exe()?)
            .args(["svid", "watch", "--output", "json", "--socket", socket, "--write"])
            .arg(&files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().ok_or_else(|| Trouble::new("the agent ended at once"))?;
        let said = process.stdout.take().ok_or_else(|| Trouble::new("the agent says nothing"))?;
        let first = tokio::time::timeout(PATIENCE, BufReader::new(said).lines().next_line()).await??;
        let told: Value = serde_json::from_str(&first.unwrap_or_default())?;
        let spiffe_id = told.pointer("/svids/0/spiffe_id").and_then(Value::as_str).unwrap_or_default();
        if spiffe_id != AGENT {
            return Err(Trouble::new(format!("it was given {told} instead of {AGENT}")));
        }
        let authorities =
            verify(&files, UnixTime::since_unix_epoch(Duration::from_millis(self.clock.now_ms())))?;
        Ok(Told::new(
            Agent { process, pid },
            "a process asked at a socket: no secret, no password, an identity",
        )
        .fact("SPIFFE ID", spiffe_id)
        .fact("attested", format!("process {pid}, by the kernel's word"))
        .fact("verified", format!("with {authorities} authority of {TRUST_DOMAIN}, by rustls")))
    }

    /// The process is killed: nobody gets what it would have got.
    pub(super) async fn svid_lost_on_kill(&self, mut agent: Agent) -> Result<Told<()>, Trouble> {
        if self.open_streams().await? != 1 {
            return Err(Trouble::new("the agent has no open stream"));
        }
        agent.process.start_kill()?;
        let killed = self.clock.uptime();
        loop {
            if self.open_streams().await? == 0 {
                break;
            }
            if self.clock.uptime().saturating_sub(killed) > PATIENCE {
                return Err(Trouble::new("the agent is dead and its stream is open still"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = self.clock.uptime().saturating_sub(killed).as_secs_f64() * 1e3;
        agent.process.wait().await?;
        Ok(Told::new((), format!("process {} killed: its stream ended within {took:.0} ms", agent.pid)))
    }

    /// Calls at the Workload API at this moment, streams among them, as the broker counts them.
    async fn open_streams(&self) -> Result<u64, Trouble> {
        let metrics = self.wire.get_text(&format!("{}/metrics", self.environment.ready.admin_url)).await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("deputize_workload_calls "));
        Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
    }
}

/// Verifies the chain by the bundle, with a library that shares no code with ours, and that the key belongs to it; how
/// many authorities there are.
fn verify(files: &Path, now: UnixTime) -> Result<usize, Trouble> {
    let read = |name| {
        CertificateDer::pem_file_iter(files.join(name)).and_then(Iterator::collect::<Result<Vec<_>, _>>)
    };
    let (chain, bundle) = (read("svid.pem")?, read("bundle.pem")?);
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_file(files.join("key.pem"))?;
    let der: Vec<u8> = chain.iter().flat_map(|certificate| certificate.iter().copied()).collect();
    X509Svid::parse_from_der(&der, key.secret_pkcs8_der())?;
    let mut roots = RootCertStore::empty();
    for authority in &bundle {
        roots.add(authority.clone())?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let (leaf, intermediates) = chain.split_first().ok_or_else(|| Trouble::new("the chain is empty"))?;
    verifier.build()?.verify_client_cert(leaf, intermediates, now)?;
    Ok(bundle.len())
}

const PATIENCE: Duration = Duration::from_secs(10);
