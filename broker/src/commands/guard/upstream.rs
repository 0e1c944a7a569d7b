//! The server behind a guard: where it is or how it is started, and how the guard proves itself to it.

use deputize_guard::proxy::{HttpUpstream, StdioUpstream, UpstreamKind};
use std::{collections::BTreeMap, time::Duration};
use url::Url;
use zeroize::Zeroizing;

use super::settings::{DEFAULT_ANSWER_SECONDS, Raw, bytes, is_loopback, wrong_setting};
use crate::commands::{exit::CommandError, input};

/// The server, and how it is called among people.
pub(super) fn resolve(raw: &Raw) -> Result<(UpstreamKind, String), CommandError> {
    let limits = &raw.limits;
    let answer_timeout = Duration::from_secs(limits.answer_seconds.unwrap_or(DEFAULT_ANSWER_SECONDS));
    let max_answer_bytes = limits.answer_kib.unwrap_or(DEFAULT_ANSWER_KIB).saturating_mul(1024);
    match (&raw.upstream, raw.command.as_slice()) {
        (Some(url), []) => {
            let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let parsed = parsed.ok_or_else(|| wrong_setting("upstream: give an http or https URL"))?;
            if parsed.scheme() == "http" && !is_loopback(&parsed) {
                tracing::warn!("the way to the server is not encrypted");
            }
            let server = format!("{parsed} (Streamable HTTP)");
            let mut upstream = HttpUpstream::new(parsed);
            (upstream.answer_timeout, upstream.max_answer_bytes) = (answer_timeout, max_answer_bytes);
            upstream.secret = secret(raw)?;
            upstream.ca_pem = raw.upstream_ca.as_deref().map(bytes).transpose()?.map(|pem| pem.to_vec());
            upstream.identity_pem = identity_pem(raw)?;
            Ok((UpstreamKind::Http(upstream), server))
        }
        (None, [program, arguments @ ..]) => {
            let mut upstream = StdioUpstream::new(program.into(), arguments.to_vec());
            (upstream.answer_timeout, upstream.max_answer_bytes) = (answer_timeout, max_answer_bytes);
            upstream.max_processes = limits.processes.unwrap_or(upstream.max_processes);
            upstream.folder = raw.folder.clone();
            upstream.environment = environment(raw)?;
            Ok((UpstreamKind::Stdio(upstream), format!("{} (stdio)", raw.command.join(" "))))
        }
        (Some(_), [_, ..]) => {
            Err(wrong_setting("upstream and command: there is one server, give one of them"))
        }
        (None, []) => Err(CommandError::usage(
            "there is no server to stand before",
            "give --upstream URL, or -- and the command that starts it",
        )),
    }
}

/// All that the program is given: what every program needs to run, and what is named.
fn environment(raw: &Raw) -> Result<Vec<(String, Zeroizing<String>)>, CommandError> {
    let from_here = |name: &str| std::env::var(name).ok().map(|value| (name.to_owned(), value.into()));
    let mut all: BTreeMap<String, Zeroizing<String>> =
        USUAL.iter().filter_map(|name| from_here(name)).collect();
    for name in &raw.pass_env {
        let (name, value) = from_here(name).ok_or_else(|| {
            CommandError::configuration(format!("--env {name}: not set here"), "set it, or give NAME=VALUE")
        })?;
        all.insert(name, value);
    }
    all.extend(raw.env.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    Ok(all.into_iter().collect())
}

fn secret(raw: &Raw) -> Result<Option<(String, Zeroizing<String>)>, CommandError> {
    let Some(file) = &raw.upstream_secret_file else { return Ok(None) };
    let secret = Zeroizing::new(input::file_text(file)?.trim().to_owned());
    if secret.len() < MIN_SECRET_CHARS || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("{}: no secret", file.display());
        let next = "put at least 16 visible ASCII characters into it, such as `openssl rand -hex 32` prints";
        return Err(CommandError::configuration(message, next));
    }
    let header = raw.upstream_secret_header.clone().unwrap_or_else(|| SECRET_HEADER.to_owned());
    if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
        return Err(wrong_setting("upstream_secret_header: no name of a header"));
    }
    Ok(Some((header, secret)))
}

fn identity_pem(raw: &Raw) -> Result<Option<Zeroizing<Vec<u8>>>, CommandError> {
    match (&raw.upstream_cert, &raw.upstream_key) {
        (Some(certificate), Some(key)) => {
            let mut pem = bytes(certificate)?;
            pem.push(b'\n');
            pem.extend_from_slice(&bytes(key)?);
            Ok(Some(pem))
        }
        (None, None) => Ok(None),
        _ => Err(wrong_setting("upstream_cert and upstream_key: give both or neither")),
    }
}

const MIN_SECRET_CHARS: usize = 16;
const SECRET_HEADER: &str = "deputize-guard";
/// What programs need to run, and no secret is in.
const USUAL: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];
const DEFAULT_ANSWER_KIB: usize = 8 * 1024;
