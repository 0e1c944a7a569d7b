//! The user's token as a command prints it.

use super::{UserToken, UserTokenError, UserTokens};
use crate::{Clock, TokenType};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::{process::Stdio, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt as _, process::Command, sync::Mutex};
use zeroize::Zeroizing;

/// Runs a command of the shell and remembers what it prints, in memory, until shortly before it expires.
pub struct TokenCommand {
    command: String,
    kind: TokenType,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: UserToken,
    until: Duration,
}

impl TokenCommand {
    /// The token that `command` prints. It runs with this program's environment; what it says on stderr is shown.
    pub fn new(command: &str, kind: TokenType, clock: Arc<dyn Clock>) -> Self {
        Self { command: command.to_owned(), kind, clock, held: Mutex::default() }
    }

    async fn run(&self) -> Result<UserToken, UserTokenError> {
        let fail = |problem: String| UserTokenError::new(problem, CORRECT_THE_COMMAND);
        let mut child = Command::new("/bin/sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| fail(format!("the token command does not start: {error}")))?;
        let mut printed = Zeroizing::new(String::new());
        let run = async {
            if let Some(stdout) = child.stdout.take() {
                stdout.take(MAX_OUTPUT_BYTES).read_to_string(&mut printed).await?;
            }
            child.wait().await
        };
        let status = tokio::time::timeout(TIMEOUT, run).await;
        let status =
            status.map_err(|_| fail(format!("the token command takes more than {} s", TIMEOUT.as_secs())))?;
        let status = status.map_err(|error| fail(format!("the token command cannot be read: {error}")))?;
        if !status.success() {
            return Err(fail(format!("the token command ended with {status}")));
        }
        UserToken::new(&printed, self.kind)
            .map_err(|error| fail(format!("what the token command prints is of no use: {error}")))
    }

    /// How long a token serves: until a minute before it expires, where it says when.
    fn serves_for(&self, token: &UserToken) -> Duration {
        match expiry_seconds(token.expose()) {
            Some(expiry) => {
                Duration::from_secs(expiry.saturating_sub(self.clock.now_seconds())).saturating_sub(MARGIN)
            }
            None => WITHOUT_EXPIRY,
        }
    }
}

#[async_trait]
impl UserTokens for TokenCommand {
    async fn current(&self) -> Result<UserToken, UserTokenError> {
        // Held while the command runs: who comes meanwhile waits for the same token.
        let mut held = self.held.lock().await;
        if let Some(present) = held.as_ref().filter(|present| self.clock.uptime() < present.until) {
            return Ok(present.token.clone());
        }
        *held = None;
        let token = self.run().await?;
        let until = self.clock.uptime().saturating_add(self.serves_for(&token));
        *held = Some(Held { token: token.clone(), until });
        Ok(token)
    }

    async fn refused(&self, token: &UserToken) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|present| present.token.expose() == token.expose()) {
            *held = None;
        }
    }
}

impl std::fmt::Debug for TokenCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCommand").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// `exp` of a JWT, read without verifying it: it only says when to ask for another.
pub(crate) fn expiry_seconds(token: &str) -> Option<u64> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&payload).ok()?.get("exp")?.as_u64()
}

const CORRECT_THE_COMMAND: &str = "run the command by hand: it has to print one token and end with 0";
const TIMEOUT: Duration = Duration::from_secs(60);
const MARGIN: Duration = Duration::from_secs(60);
const WITHOUT_EXPIRY: Duration = Duration::from_secs(60);
const MAX_OUTPUT_BYTES: u64 = 128 * 1024;
