//! `deputize entry`: registration entries of a running broker, over the socket of its administration.

mod create;

use http::Method;
use schemars::schema_for;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    admin_socket::{AdminSocket, BrokerArgs, path_segment},
    exit::{CommandError, CommandResult, Exit},
    explain::exchange_in_words,
    output::{Columns, Facts, Output, note},
};
use crate::config::raw::EntryFile;

/// Lists, makes and deletes registration entries: which processes are entitled to which SPIFFE ID.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them
    #[command(after_help = "Examples:
  deputize entry ls
  deputize entry ls --selector unix:uid:1000
  deputize entry ls --spiffe-id 'spiffe://example.org/agents/*' -o json")]
    Ls {
        /// Only those with this SPIFFE ID; one that ends in * fits whatever begins like it
        #[arg(long, value_name = "ID")]
        spiffe_id: Option<String>,
        /// Only those that ask for this selector; may be given again
        #[arg(long = "selector", value_name = "KIND:VALUE")]
        selectors: Vec<String>,
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// Show one whole
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        broker: BrokerArgs,
    },
    Create(Box<create::Args>),
    /// Print the JSON Schema of the files of entries, for editors
    Schema,
    /// Delete one that administration made; its processes lose their SVIDs' streams at once
    #[command(
        after_help = "SVIDs that were given out stay valid until they expire. An entry of a file is taken out of the
file; then send the broker SIGHUP. Where both have one of this id, the file's holds, and the other one is deleted."
    )]
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        broker: BrokerArgs,
    },
}

/// The JSON Schema of an entry, as it is committed.
fn print_schema(output: Output) -> CommandResult {
    let text = serde_json::to_string_pretty(&schema_for!(EntryFile));
    output.raw(&(text.map_err(|error| CommandError::failure(error, "report this"))? + "\n"))?;
    Ok(Exit::Ok)
}

/// An entry, as the broker lists it.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    from: String,
    #[serde(default)]
    ended: bool,
    #[serde(default)]
    shadows: Option<EntryFile>,
    #[serde(flatten)]
    entry: Value,
}

/// Some of them, and where to go on.
#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<Value>,
    next: Option<String>,
    total: u64,
}

/// Runs it.
///
/// # Errors
/// If the broker cannot be reached, or refuses.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Ls { spiffe_id, selectors, broker } => {
            list(&broker.find()?, (spiffe_id.as_deref(), &selectors), output).await
        }
        Command::Show { id, broker } => {
            let entry = broker.find()?.ask(Method::GET, &of(&id), None).await?;
            output.show(&entry, || {
                Shown::of(&entry).map_or_else(|| entry.to_string(), |shown| shown.to_text())
            })?;
            Ok(Exit::Ok)
        }
        Command::Create(args) => create::run(*args, output).await,
        Command::Schema => print_schema(output),
        Command::Delete { id, broker } => {
            let answer =
                broker.find()?.ask(Method::DELETE, &of(&id), None).await.map_err(|error| {
                    match error.exit {
                        Exit::Denied => {
                            CommandError { next: "edit that file, then `deputize lint`".to_owned(), ..error }
                        }
                        _ => error,
                    }
                })?;
            output.show(&answer, || match answer.get("still_in").and_then(Value::as_str) {
                None => format!("deleted {id}: its processes are entitled to it no longer\n"),
                Some(file) => format!(
                    "deleted the {id} that administration made; the one in {file} still holds: take it out there, and send the broker SIGHUP\n"
                ),
            })?;
            Ok(Exit::Ok)
        }
    }
}

fn of(id: &str) -> String {
    format!("{ENTRIES}/{}", path_segment(id))
}

async fn list(
    broker: &AdminSocket,
    (spiffe_id, selectors): (Option<&str>, &[String]),
    output: Output,
) -> CommandResult {
    let (mut found, mut after) = (Vec::new(), String::new());
    let total = loop {
        let path = format!("{ENTRIES}?after={}", path_segment(&after));
        let answer = broker.ask(Method::GET, &path, None).await?;
        let page: Page = serde_json::from_value(answer).map_err(not_understood)?;
        for entry in page.entries {
            let Some(shown) = Shown::of(&entry) else { return Err(not_understood("an entry")) };
            if shown.fits(spiffe_id, selectors) {
                found.push((shown, entry));
            }
        }
        match page.next {
            Some(next) => after = next,
            None => break page.total,
        }
    };
    let values: Vec<&Value> = found.iter().map(|(_, entry)| entry).collect();
    output.show(&values, || {
        let mut columns = Columns::new(&["ID", "SPIFFE ID", "SELECTORS", "FROM"]);
        for (shown, _) in &found {
            let from = if shown.ended { format!("{} (ended)", shown.from) } else { shown.from.clone() };
            columns.row(&[&shown.entry.id, &shown.entry.spiffe_id, &shown.entry.selectors.join(" "), &from]);
            if let Some(other) = &shown.shadows {
                let from = format!("{ADMINISTRATION} (does not hold: {} has this id)", shown.from);
                columns.row(&[&other.id, &other.spiffe_id, &other.selectors.join(" "), &from]);
            }
        }
        columns.to_string()
    })?;
    if found.is_empty() {
        note(&format!("none of {total} entries fits; `deputize entry create` makes one"));
    }
    Ok(Exit::Ok)
}

/// An entry for people.
#[derive(Debug)]
struct Shown {
    entry: EntryFile,
    from: String,
    ended: bool,
    /// What administration made under the same id.
    shadows: Option<EntryFile>,
}

impl Shown {
    fn of(value: &Value) -> Option<Self> {
        let listed: Listed = serde_json::from_value(value.clone()).ok()?;
        let entry = serde_json::from_value(listed.entry).ok()?;
        Some(Self { entry, from: listed.from, ended: listed.ended, shadows: listed.shadows })
    }

    fn fits(&self, spiffe_id: Option<&str>, selectors: &[String]) -> bool {
        let is_asked = |entry: &EntryFile, asked: &str| match asked.strip_suffix('*') {
            Some(beginning) => entry.spiffe_id.starts_with(beginning),
            None => entry.spiffe_id == asked,
        };
        [&self.entry].into_iter().chain(&self.shadows).any(|entry| {
            spiffe_id.is_none_or(|asked| is_asked(entry, asked))
                && selectors.iter().all(|asked| entry.selectors.contains(asked))
        })
    }

    fn to_text(&self) -> String {
        let entry = &self.entry;
        let seconds = |seconds: Option<u64>| seconds.map(|seconds| format!("{seconds} seconds"));
        let mut facts = Facts::default();
        facts.add("id", &entry.id).add("SPIFFE ID", &entry.spiffe_id);
        for selector in &entry.selectors {
            facts.add("selector", selector);
        }
        for node in &entry.nodes {
            facts.add("node", node);
        }
        facts.add_some("X.509-SVIDs live", seconds(entry.x509_svid_ttl_seconds));
        facts.add_some("JWT-SVIDs live", seconds(entry.jwt_svid_ttl_seconds));
        facts.add_some("hint", Some(&entry.hint).filter(|hint| !hint.is_empty()));
        for name in &entry.dns_names {
            facts.add("DNS name", name);
        }
        for domain in &entry.federates_with {
            facts.add("federates with", domain);
        }
        if let Some(exchange) = &entry.exchange {
            facts.add("exchanges", exchange_in_words(&exchange.clone().into()));
        }
        facts.add_some("ends", entry.expires_at.as_deref());
        facts.add("from", &self.from);
        if let Some(other) = &self.shadows {
            let said = format!("{} of {ADMINISTRATION}, until `deputize entry delete`", other.spiffe_id);
            facts.add("in place of", said);
        }
        facts.to_string()
    }
}

fn not_understood(what: impl std::fmt::Display) -> CommandError {
    CommandError::failure(
        format!("the broker's answer is not understood: {what}"),
        "use the `deputize` of the broker's version",
    )
}

const ENTRIES: &str = "/admin/entries";
const ADMINISTRATION: &str = "administration";
