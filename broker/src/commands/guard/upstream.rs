//! The server behind a guard: where it is or how it is started, and how the guard proves itself to it.

use deputize_guard::proxy::{HttpUpstream, LaunchedProgram, Program, StdioUpstream, UpstreamKind};
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
        (Some(url), command) => {
            let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let parsed = parsed.ok_or_else(|| wrong_setting("upstream: give an http or https URL"))?;
            if parsed.scheme() == "http" && !is_loopback(&parsed) {
                tracing::warn!("the way to the server is not encrypted");
            }
            let mut server = format!("{parsed} (Streamable HTTP)");
            let is_here = is_loopback(&parsed);
            let mut upstream = HttpUpstream::new(parsed);
            (upstream.answer_timeout, upstream.max_answer_bytes) = (answer_timeout, max_answer_bytes);
            upstream.secret = secret(raw)?;
            if !command.is_empty() {
                if !is_here {
                    return Err(wrong_setting("upstream: a server that the guard starts is on loopback"));
                }
                launch(raw, &mut upstream)?;
                server = format!("{server}, started as {}", command.join(" "));
            }
            upstream.ca_pem = raw.upstream_ca.as_deref().map(bytes).transpose()?.map(|pem| pem.to_vec());
            upstream.identity_pem = identity_pem(raw)?;
            Ok((UpstreamKind::Http(upstream), server))
        }
        (None, [path, arguments @ ..]) => {
            let mut upstream = StdioUpstream::new(program(raw, path, arguments)?);
            (upstream.answer_timeout, upstream.max_answer_bytes) = (answer_timeout, max_answer_bytes);
            upstream.max_processes = limits.processes.unwrap_or(upstream.max_processes);
            Ok((UpstreamKind::Stdio(upstream), format!("{} (stdio)", raw.command.join(" "))))
        }
        (None, []) => Err(CommandError::usage(
            "there is no server to stand before",
            "give --upstream URL, or -- and the command that starts it",
        )),
    }
}

/// Lets the guard start the server. It accepts only its guard, which has told it a secret of this start.
fn launch(raw: &Raw, upstream: &mut HttpUpstream) -> Result<(), CommandError> {
    if upstream.secret.is_some() {
        return Err(wrong_setting(
            "upstream_secret_file: a server that the guard starts is told a secret by the guard",
        ));
    }
    // A keeper stands in between: where the guard is killed, it ends the program.
    let keeper = std::env::current_exe().map_err(|error| CommandError::failure(error, "start again"))?;
    let mut arguments = vec!["keep".to_owned(), "--".to_owned()];
    arguments.extend(raw.command.iter().cloned());
    let program = Program { path: keeper, arguments, ..program(raw, "", &[])? };
    let (secret_variable, secret_header) = (SECRET_VARIABLE.to_owned(), secret_header(raw)?);
    upstream.program = Some(LaunchedProgram { program, secret_variable, secret_header });
    Ok(())
}

fn program(raw: &Raw, path: &str, arguments: &[String]) -> Result<Program, CommandError> {
    let mut program = Program::new(path.into(), arguments.to_vec());
    program.folder.clone_from(&raw.folder);
    program.environment = environment(raw)?;
    Ok(program)
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
    Ok(Some((secret_header(raw)?, secret)))
}

fn secret_header(raw: &Raw) -> Result<String, CommandError> {
    let header = raw.upstream_secret_header.clone().unwrap_or_else(|| SECRET_HEADER.to_owned());
    match http::HeaderName::from_bytes(header.as_bytes()) {
        Ok(_) => Ok(header),
        Err(_) => Err(wrong_setting("upstream_secret_header: no name of a header")),
    }
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
/// The variable in which a server that the guard starts finds the secret.
const SECRET_VARIABLE: &str = "DEPUTIZE_GUARD_SECRET";
/// What programs need to run, and no secret is in.
const USUAL: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];
const DEFAULT_ANSWER_KIB: usize = 8 * 1024;
