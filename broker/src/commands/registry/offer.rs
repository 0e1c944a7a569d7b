//! Where tools come from: a live server, a saved answer, another record; with what a `server.json` says beside it.

use deputize_call::json::{self, Object};
use serde_json::Value;
use std::path::{Path, PathBuf};
use url::Url;

use super::{
    live::{self, Http, Listing, LiveError, Stdio, Way},
    server_json::ServerJson,
};
use crate::{
    commands::{exit::CommandError, input},
    config::read,
};

/// Where tools come from.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// A live server: its MCP endpoint (Streamable HTTP)
    #[arg(long, value_name = "URL", conflicts_with_all = ["tools", "command"])]
    url: Option<Url>,
    /// A file: a saved answer to `tools/list` (or `prompts/list`, `resources/list`), a list of definitions, or a record
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    tools: Option<PathBuf>,
    /// The `server.json` of an MCP registry: name, version, packages, remotes
    #[arg(long, value_name = "FILE")]
    server_json: Option<PathBuf>,
    /// Access token for a live server: as given, in a file (@FILE), or on stdin (-)
    #[arg(long)]
    token: Option<String>,
    /// Certification authorities (PEM) that a live server's certificate may be from, beside the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Environment variable that the command gets, beside PATH, HOME and LANG
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    command_environment: Vec<String>,
    /// Command that starts a live server on its standard streams
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What a source offers.
#[derive(Debug)]
pub struct Offer {
    /// Where it is from, in words.
    pub source: String,
    /// The tools, and what the server says of itself.
    pub listing: Listing,
    /// The endpoint, where there is one.
    pub endpoint: Option<String>,
    /// What a `server.json` says.
    pub described: ServerJson,
}

impl SourceArgs {
    /// Whether any source was named.
    pub fn is_given(&self) -> bool {
        self.url.is_some() || self.tools.is_some() || self.server_json.is_some() || !self.command.is_empty()
    }

    /// Gets the tools.
    ///
    /// # Errors
    /// If there is no source, or it gives none.
    pub async fn gather(&self) -> Result<Offer, CommandError> {
        let described = self.server_json.as_deref().map(ServerJson::read).transpose()?.unwrap_or_default();
        if let Some(file) = &self.tools {
            let listing = from_file(file)?;
            return Ok(Offer { source: file.display().to_string(), listing, endpoint: None, described });
        }
        if !self.command.is_empty() {
            let started =
                Stdio::start(&self.command, &self.command_environment).map_err(|error| failed(&error))?;
            let listing = live::list(Way::Stdio(Box::new(started))).await.map_err(|error| failed(&error))?;
            // Arguments may hold secrets: the program alone is named.
            let source = self.command.first().cloned().unwrap_or_default();
            return Ok(Offer { source, listing, endpoint: None, described });
        }
        let Some(url) = self.url.clone().or_else(|| described.endpoint()) else {
            return Err(CommandError::usage(
                "there are no tools to import",
                "give --url URL, --tools FILE, or -- COMMAND; a server.json alone does only if it names a \
                 streamable-http remote",
            ));
        };
        let token = self.token.as_deref().map(input::token).transpose()?;
        let http = Http::new(url.clone(), token, self.ca_file.as_deref()).map_err(|error| failed(&error))?;
        let listing = live::list(Way::Http(http)).await.map_err(|error| failed(&error))?;
        Ok(Offer { source: url.to_string(), listing, endpoint: Some(url.to_string()), described })
    }
}

/// A saved answer (whole or its result), a list of definitions, or a record.
fn from_file(file: &Path) -> Result<Listing, CommandError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        CommandError::failure(
            format!("{}: {problem}", file.display()),
            "give a saved answer to tools/list, a list of definitions, or a registry record",
        )
    };
    let text = input::file_text(file)?;
    let is_json = text.trim_start().starts_with(['{', '[']);
    let document: Value = if is_json {
        json::parse_value(text.as_bytes(), MAX_DEPTH).map_err(|error| wrong(&error))?
    } else {
        read::read_yaml(file).map_err(|error| wrong(&error))?
    };
    let meta = |document: &Value| {
        let signature = document.get("_meta")?.get(deputize_issuer::registry::publisher::SIGNATURE_MEMBER)?;
        signature.as_str().map(str::to_owned)
    };
    let document = document.get("result").cloned().unwrap_or(document);
    let signature = meta(&document);
    let mut members = match document {
        Value::Array(tools) => Object::from_iter([("tools".to_owned(), Value::Array(tools))]),
        Value::Object(members) => members,
        _ => Object::new(),
    };
    let mut take = |name: &str| match members.remove(name) {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    };
    let (tools, prompts, resources) = (take("tools"), take("prompts"), take("resources"));
    let definition = |tool: Value| -> Option<Object> {
        let Value::Object(mut tool) = tool else { return None };
        match tool.remove("definition") {
            Some(Value::Object(definition)) => Some(definition),
            Some(_) => None,
            None => Some(tool),
        }
    };
    if tools.is_none() && prompts.is_none() && resources.is_none() {
        return Err(wrong(&"there are no tools in it"));
    }
    let all = |items: Option<Vec<Value>>| -> Result<Vec<Object>, CommandError> {
        let items: Option<Vec<Object>> = items.unwrap_or_default().into_iter().map(definition).collect();
        items.ok_or_else(|| wrong(&"something in it is no object"))
    };
    let (tools, prompts, resources) = (all(tools)?, all(prompts)?, all(resources)?);
    Ok(Listing { tools, prompts, resources, signature, ..Listing::default() })
}

fn failed(error: &LiveError) -> CommandError {
    match error {
        LiveError::Unreachable(_) => {
            CommandError::unreachable(error, "check the address or the command, and the network")
        }
        LiveError::Unauthorized(_) => {
            CommandError::failure(error, "give --token @FILE with an access token for it")
        }
        LiveError::Protocol(_)
        | LiveError::Refused { .. }
        | LiveError::Version(_)
        | LiveError::TooMuch(_) => CommandError::failure(
            error,
            "check that it is an MCP server, or save its answer and give --tools FILE",
        ),
    }
}

const MAX_DEPTH: usize = 48;
