//! The ready file of `deputize dev`, as far as the agent's side needs it.

use deputize_call::{json::Object, sign::SigningKey};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use zeroize::Zeroizing;

use super::{exit::CommandError, input};

#[derive(Deserialize)]
pub(super) struct Ready {
    pub(super) issuer: String,
    /// The identity provider.
    pub(super) idp: String,
    pub(super) client: ReadyClient,
    user_tokens: BTreeMap<String, String>,
    servers: Vec<ReadyServer>,
}

#[derive(Deserialize)]
pub(super) struct ReadyClient {
    pub(super) client_id: String,
    private_jwk: Object,
}

#[derive(Deserialize)]
pub(super) struct ReadyServer {
    /// Its URI at the broker.
    pub(super) resource: String,
    /// Where MCP requests go.
    pub(super) guard_url: String,
    tools: Vec<ReadyTool>,
}

#[derive(Deserialize)]
struct ReadyTool {
    name: String,
    #[serde(default)]
    example_arguments: Value,
}

impl Ready {
    pub(super) fn read(file: &Path) -> Result<Self, CommandError> {
        serde_json::from_str(&input::file_text(file)?).map_err(|error| {
            CommandError::failure(
                format!("{}: no ready file: {error}", file.display()),
                "start `deputize dev --ready-file FILE` and wait until it says that it is ready",
            )
        })
    }

    pub(super) fn key(&self) -> Result<SigningKey, CommandError> {
        input::key_from(&self.client.private_jwk).map_err(|error| {
            CommandError::failure(format!("the ready file's key: {error}"), "start `deputize dev` again")
        })
    }

    pub(super) fn user_token(&self, user: &str) -> Result<Zeroizing<String>, CommandError> {
        self.user_tokens.get(user).map(|token| Zeroizing::new(token.clone())).ok_or_else(|| {
            let known: Vec<&str> = self.user_tokens.keys().map(String::as_str).collect();
            CommandError::usage(format!("--user: no {user}"), format!("one of {}", known.join(", ")))
        })
    }

    /// The server that has the tool; the first one for listing.
    pub(super) fn resource(&self, tool: Option<&str>) -> Result<&str, CommandError> {
        let has = |server: &&ReadyServer| {
            tool.is_none_or(|tool| server.tools.iter().any(|known| known.name == tool))
        };
        self.servers.iter().find(has).map(|server| server.resource.as_str()).ok_or_else(|| {
            let tools = self.servers.iter().flat_map(|server| &server.tools);
            let known: Vec<&str> = tools.map(|tool| tool.name.as_str()).collect();
            CommandError::usage(
                "--tool: no server of the ready file has it",
                format!("one of {}", known.join(", ")),
            )
        })
    }

    /// The server at this place in the list.
    pub(super) fn server(&self, index: usize) -> Result<&ReadyServer, CommandError> {
        self.servers.get(index).ok_or_else(|| {
            CommandError::usage(
                format!("--server: the ready file has no server {index}"),
                format!("from 0 to {}", self.servers.len().saturating_sub(1)),
            )
        })
    }

    pub(super) fn example_arguments(&self, tool: &str) -> Option<Value> {
        let mut tools = self.servers.iter().flat_map(|server| &server.tools);
        tools
            .find(|known| known.name == tool)
            .map(|known| &known.example_arguments)
            .filter(|value| value.is_object())
            .cloned()
    }
}
