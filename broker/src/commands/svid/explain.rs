//! Why a process is entitled to what it is: each entry, and what it lacks.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::commands::{admin_socket::AdminSocket, exit::CommandError, output::clean};

/// What the broker sees of a process, and what each entry says of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explained {
    pid: u32,
    node: String,
    /// What is true of it.
    selectors: Vec<String>,
    /// Those that entitle it, then those that lack least.
    entries: Vec<Word>,
    /// How many entries there are in all.
    total: usize,
}

/// What one entry says.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    id: String,
    from: String,
    entitled: bool,
    spiffe_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    because: Vec<String>,
}

impl Explained {
    /// Asks the broker.
    ///
    /// # Errors
    /// If it cannot be reached, or cannot attest the process.
    pub async fn ask(broker: &AdminSocket, pid: u32) -> Result<Self, CommandError> {
        let answer =
            broker.ask(Method::POST, "/admin/workloads/explain", Some(&json!({ "pid": pid }))).await?;
        serde_json::from_value(answer).map_err(|error| {
            CommandError::failure(
                format!("the broker's answer is not understood: {error}"),
                "use the `deputize` of the broker's version",
            )
        })
    }

    /// Whether any entry entitles it.
    pub fn is_entitled(&self) -> bool {
        self.entries.iter().any(|entry| entry.entitled)
    }

    /// The IDs that it is entitled to.
    pub fn entitled(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| entry.entitled).map(|entry| entry.spiffe_id.as_str())
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("process {} on {}\n", self.pid, clean(&self.node));
        for selector in &self.selectors {
            text.push_str(&format!("  is {}\n", clean(selector)));
        }
        for entry in &self.entries {
            let mark = if entry.entitled { '✔' } else { '✖' };
            let (id, spiffe_id, from) = (clean(&entry.id), clean(&entry.spiffe_id), clean(&entry.from));
            text.push_str(&format!("{mark} {id}: {spiffe_id} (from {from})\n"));
            for reason in &entry.because {
                text.push_str(&format!("    {}\n", clean(reason)));
            }
        }
        match self.total.saturating_sub(self.entries.len()) {
            0 => {}
            more => text.push_str(&format!("  and {more} entries that lack more\n")),
        }
        if !self.is_entitled() {
            text.push_str("  next: `deputize entry create` with selectors that are true of it\n");
        }
        text
    }
}
