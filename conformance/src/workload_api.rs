//! Examines any server of the SPIFFE Workload API from outside, requirement by requirement. It shares no code with the
//! server of this project: nothing examines itself.

mod catalogue;
mod certificate;
mod client;
mod endpoint;
mod findings;
mod jwt;
mod messages;
mod spiffe_id;
mod validate;
mod x509;

pub use self::{
    catalogue::{Level, REQUIREMENTS, Requirement},
    client::{Answers, Connection, Ended, join_queue},
    findings::{Finding, Outcome, Report},
    messages::{
        JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest,
        ValidateJwtSvidResponse, X509BundlesResponse, X509SvidResponse,
    },
};
use self::{findings::Findings, x509::Told};
use crate::forge::now;
use std::{path::PathBuf, time::Duration};

/// What to examine, and how.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The socket.
    pub socket: PathBuf,
    /// The trust domain that the caller is of, where it is known beforehand.
    pub trust_domain: Option<String>,
    /// Whether the caller, this process, is entitled to something. Who is not gets nothing else to look at.
    pub entitled: bool,
    /// For how long a stream is watched for what comes after its first message.
    pub watch: Duration,
}

/// Examines it.
///
/// # Errors
/// If nobody listens there, or whoever does speaks no HTTP/2.
pub async fn examine(examination: &Examination) -> Result<Report, Ended> {
    let connection = Connection::open(&examination.socket).await?;
    let mut findings = Findings::default();
    endpoint::examine_header(&mut findings, &connection).await;
    endpoint::examine_profiles(&mut findings, &connection).await;
    endpoint::examine_reflection(&mut findings, &connection).await;
    if examination.entitled {
        findings.passed_over("WLAPI-5.2.1-9", "this process is said to have an identity");
        // What is missing is to be missed under the name that it should have.
        let domains = examination.trust_domain.iter().cloned().collect();
        let told = Told { domains, ..Told::default() };
        let watch = examination.watch;
        let told = x509::examine_svids(&mut findings, &connection, watch, seconds(), told).await;
        x509::examine_bundles(&mut findings, &connection, &told).await;
        jwt::examine(&mut findings, &connection, &told, seconds()).await;
    } else {
        endpoint::examine_unentitled(&mut findings, &connection).await;
    }
    Ok(findings.report(format!("unix://{}", examination.socket.display())))
}

fn seconds() -> u64 {
    u64::try_from(now()).unwrap_or_default()
}
