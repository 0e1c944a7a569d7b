//! `deputize node`: nodes of a running broker, over the socket of its administration.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use super::{
    admin_socket::{AdminSocket, BrokerArgs},
    exit::{CommandError, CommandResult, Exit},
    output::{Columns, Facts, Output, note},
};
use crate::moment;

/// Join tokens for machines, and which machines are nodes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a join token: whoever brings it becomes this node, once
    #[command(after_help = "Examples:
  deputize node token edge-1 --write token && scp token edge-1:
  deputize node token edge-1 --ttl 1h

It is shown this once; the broker keeps its digest alone. On the machine: deputize agent --join-token-file token …
Then name the node in entries: deputize entry create --node spiffe://example.org/deputize/node/edge-1 …")]
    Token {
        /// Name of the node: its SPIFFE ID will be spiffe://TRUST-DOMAIN/deputize/node/NAME
        name: String,
        /// For how long it is good: 90s, 15m, 2h
        #[arg(long, value_name = "SPAN", default_value = "10m")]
        ttl: String,
        /// Write it to a new file that this user alone can read, instead of showing it
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// List them
    Ls {
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// Show one whole
    Show {
        /// Its SPIFFE ID, or its name
        node: String,
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// Keep one from being a node, at once and until that is lifted
    #[command(
        after_help = "Its stream ends, its requests are refused, and it cannot attest itself anew: a node of a cluster
under no UID of its name, a machine with no certificate of its public key. SVIDs that its processes have stay valid until
they expire. What vouches for it must be told too: it would vouch for another name or another key."
    )]
    Ban {
        /// Its SPIFFE ID, or its name; it may never have been seen
        node: String,
        /// It may be a node again
        #[arg(long)]
        lift: bool,
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// Forget one: it has to attest itself anew
    Evict {
        /// Its SPIFFE ID, or its name
        node: String,
        #[command(flatten)]
        broker: BrokerArgs,
    },
}

/// A node, as the broker lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    state: String,
    #[serde(default)]
    attested: Option<Attested>,
    #[serde(default)]
    banned_at: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Attested {
    attestation: String,
    at: u64,
    serial: String,
    not_after: u64,
    #[serde(flatten)]
    evidence: serde_json::Map<String, Value>,
}

/// Runs it.
///
/// # Errors
/// If the broker cannot be reached, or refuses.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Token { name, ttl, write, broker } => {
            token((&name, &ttl, write), &broker.find()?, output).await
        }
        Command::Ls { broker } => list(&broker.find()?, output).await,
        Command::Show { node, broker } => show(&node, &broker.find()?, output).await,
        Command::Ban { node, lift, broker } => {
            let (path, done) = if lift { ("lift", "may be a node again") } else { ("ban", "is banned") };
            order((path, &node, done), &broker.find()?, output).await
        }
        Command::Evict { node, broker } => {
            order(("evict", &node, "has to attest itself anew"), &broker.find()?, output).await
        }
    }
}

async fn token(
    (name, ttl, write): (&str, &str, Option<PathBuf>),
    broker: &AdminSocket,
    output: Output,
) -> CommandResult {
    let ttl_seconds =
        moment::parse_span(ttl).map_err(|problem| CommandError::usage(problem, "correct --ttl"))?;
    let order = json!({ "node": name, "ttl_seconds": ttl_seconds });
    let mut made = broker.ask(Method::POST, "/admin/nodes/token", Some(&order)).await?;
    let text =
        |made: &Value, member: &str| made.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (token, node) = (text(&made, "join_token"), text(&made, "node"));
    if let Some(file) = &write {
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        written.and_then(|mut file| file.write_all(format!("{token}\n").as_bytes())).map_err(|error| {
            CommandError::failure(format!("{}: {error}", file.display()), "give a file that is not there yet")
        })?;
        if let Some(members) = made.as_object_mut() {
            members.insert("join_token".to_owned(), Value::Null);
            members.insert("file".to_owned(), file.display().to_string().into());
        }
    }
    let ends = made.get("expires_at").and_then(Value::as_u64).map(moment::format_seconds).unwrap_or_default();
    output.show(&made, || match &write {
        None => format!("{token}\n"),
        Some(file) => format!("{}: a join token for {node}, good once, until {ends}\n", file.display()),
    })?;
    if write.is_none() && output.is_for_people() {
        note(&format!("for {node}, good once, until {ends}; it is not shown again"));
    }
    Ok(Exit::Ok)
}

async fn all(broker: &AdminSocket) -> Result<Vec<Value>, CommandError> {
    let answer = broker.ask(Method::GET, "/admin/nodes", None).await?;
    Ok(answer.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default())
}

async fn list(broker: &AdminSocket, output: Output) -> CommandResult {
    let nodes = all(broker).await?;
    output.show(&nodes, || {
        let mut columns = Columns::new(&["NODE", "STATE", "BY", "SINCE", "SVID UNTIL"]);
        for node in nodes.iter().filter_map(|node| serde_json::from_value::<Listed>(node.clone()).ok()) {
            let (by, since, until) = node.attested.map_or_else(Default::default, |it| {
                (it.attestation, moment::format_seconds(it.at), moment::format_seconds(it.not_after))
            });
            columns.row(&[&node.id, &node.state, &by, &since, &until]);
        }
        columns.to_string()
    })?;
    if nodes.is_empty() {
        note("there are none yet; `deputize node token NAME` lets a machine become one");
    }
    Ok(Exit::Ok)
}

async fn show(node: &str, broker: &AdminSocket, output: Output) -> CommandResult {
    let nodes = all(broker).await?;
    let is_meant = |found: &&Value| {
        let id = found.get("id").and_then(Value::as_str).unwrap_or_default();
        id == node || id.split_once("/deputize/node/").is_some_and(|(_, name)| name == node)
    };
    let found = nodes.iter().find(is_meant).ok_or_else(|| {
        CommandError::failure(format!("there is no node {node}"), "`deputize node ls` lists them")
    })?;
    output.show(found, || to_text(found))?;
    Ok(Exit::Ok)
}

async fn order(
    (path, node, done): (&str, &str, &str),
    broker: &AdminSocket,
    output: Output,
) -> CommandResult {
    let answer =
        broker.ask(Method::POST, &format!("/admin/nodes/{path}"), Some(&json!({ "node": node }))).await?;
    let id = answer.get("id").and_then(Value::as_str).unwrap_or(node).to_owned();
    let is_seen = answer.get("attested").is_some_and(|attested| !attested.is_null());
    let besides = if path == "ban" { besides(&id, is_seen) } else { Vec::new() };
    output.show(&answer, || {
        let more: String = besides.iter().map(|line| format!("{line}\n")).collect();
        format!("{id} {done}\n{more}")
    })?;
    Ok(Exit::Ok)
}

/// What whoever banned a node has to know and do besides: a ban holds by what is known of it.
fn besides(id: &str, is_seen: bool) -> Vec<&'static str> {
    let name = id.split_once("/deputize/node/").map_or(id, |(_, name)| name);
    let seen = match name.split('/').collect::<Vec<_>>().as_slice() {
        ["x509pop", "key", _] | ["kubernetes", _, _] => None,
        ["x509pop", _] if !is_seen => Some(
            "it was not seen here: only this certificate is banned, not another one of its public key (x509pop/key/SHA-256)",
        ),
        _ => (!is_seen).then_some("it was not seen here: see that this is its name"),
    };
    let others = match name.split('/').next() {
        Some("x509pop") => Some(
            "withdraw its certificates at their authority too: with another key it is another node, and entries for \
             x509pop/* are for it",
        ),
        Some("kubernetes") => Some(
            "every UID of that name is banned; take the machine out of its cluster too: under another name it is another \
             node, and entries for all nodes of the cluster are for it",
        ),
        _ => None,
    };
    seen.into_iter().chain(others).collect()
}

fn to_text(node: &Value) -> String {
    let Ok(listed) = serde_json::from_value::<Listed>(node.clone()) else { return node.to_string() };
    let mut facts = Facts::default();
    facts.add("node", &listed.id).add("state", &listed.state);
    if let Some(attested) = listed.attested {
        facts.add("attested by", &attested.attestation).add("since", moment::format_seconds(attested.at));
        for (name, value) in attested.evidence.iter().filter(|(name, _)| *name != "previous") {
            facts.add(&name.replace('_', " "), value.as_str().unwrap_or_default());
        }
        facts.add("serial", &attested.serial).add("SVID until", moment::format_seconds(attested.not_after));
    }
    facts.add_some("banned since", listed.banned_at.map(moment::format_seconds));
    facts.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ban_does_not_do_is_said() {
        let said = |name: &str, is_seen: bool| {
            besides(&format!("spiffe://example.org/deputize/node/{name}"), is_seen).join("\n")
        };
        assert_eq!(said("edge-1", true), "");
        assert!(said("edge-1", false).contains("not seen here"));
        assert!(said("kubernetes/prod/worker-1/0b1c", true).contains("out of its cluster"));
        assert!(!said("kubernetes/prod/worker-1", false).contains("not seen"), "its UIDs may have been");
        for (name, is_seen) in [("x509pop/ab", true), ("x509pop/ab", false), ("x509pop/key/ab", false)] {
            assert!(said(name, is_seen).contains("at their authority"), "{name}");
            assert_eq!(
                said(name, is_seen).contains("only this certificate"),
                name == "x509pop/ab" && !is_seen
            );
        }
    }
}
