//! A server that is a program of ours to start: one message a line, on its standard streams.

use deputize_call::json;
use serde_json::{Value, json};
use std::{process::Stdio as Streams, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{Answer, LiveError, MAX_MESSAGE_BYTES, MAX_MESSAGE_DEPTH, answer_in};

/// A running server. It and its children end with this value.
pub struct Stdio {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// What was read of a line when nobody waited for it any more.
    line: Vec<u8>,
    next_id: u64,
}

impl Stdio {
    /// Starts a command, with `PATH`, `HOME`, `LANG`, and what `environment` names of ours (`NAME`) or sets (`NAME=VALUE`):
    /// what else is in our environment is none of its business.
    ///
    /// # Errors
    /// [`LiveError::Unreachable`] if it cannot be started.
    pub fn start(command: &[String], environment: &[String]) -> Result<Self, LiveError> {
        let cannot = |problem: String| LiveError::Unreachable(problem);
        let (program, arguments) =
            command.split_first().ok_or_else(|| cannot("there is no command".to_owned()))?;
        let mut started = Command::new(program);
        started.args(arguments).env_clear().kill_on_drop(true).process_group(0);
        started.stdin(Streams::piped()).stdout(Streams::piped()).stderr(Streams::null());
        for name in ["PATH", "HOME", "LANG"].into_iter().chain(environment.iter().map(String::as_str)) {
            match name.split_once('=') {
                Some((name, value)) => drop(started.env(name, value)),
                None => drop(std::env::var_os(name).map(|value| started.env(name, value))),
            }
        }
        let mut child = started.spawn().map_err(|error| cannot(format!("{program}: {error}")))?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = streams.ok_or_else(|| cannot("it has no standard streams".to_owned()))?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), line: Vec::new(), next_id: 0 })
    }

    pub(super) async fn ask(&mut self, method: &str, params: Value) -> Result<Answer, LiveError> {
        self.next_id += 1;
        let id = self.next_id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
        // An older server may keep silent to what it does not know.
        let patience = if method == "server/discover" { PROBE } else { REQUEST };
        let heard = tokio::time::timeout(patience, self.hear(id)).await;
        heard.map_err(|_| LiveError::Unreachable(format!("it did not answer {method}")))?
    }

    pub(super) async fn tell(&mut self, method: &str) -> Result<(), LiveError> {
        self.write(&json!({ "jsonrpc": "2.0", "method": method })).await
    }

    /// Closes its input and waits; then ends it and whatever it started.
    pub(super) async fn end(self) {
        let Self { mut child, stdin, .. } = self;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        drop(stdin);
        let ended = tokio::time::timeout(FAREWELL, child.wait()).await.is_ok();
        if let Some(group) = group {
            // Children that outlive it keep the group; none left is no error of ours.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        if !ended {
            let _ = child.wait().await;
        }
    }

    async fn hear(&mut self, id: u64) -> Result<Answer, LiveError> {
        loop {
            let line = self.read_line().await?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            // Programs that print a greeting are wrong and many.
            let Ok(message) = json::parse_value(&line, MAX_MESSAGE_DEPTH) else {
                if line.trim_ascii_start().starts_with(b"{") {
                    return Err(LiveError::Protocol("a line that is not strict JSON".to_owned()));
                }
                continue;
            };
            self.decline(&message).await?;
            if let Some(answer) = answer_in(message, id) {
                return Ok(answer);
            }
        }
    }

    /// Older servers may ask in turn: we are there for nothing but their tools.
    async fn decline(&mut self, message: &Value) -> Result<(), LiveError> {
        let (Some(id), Some(method)) = (message.get("id"), message.get("method").and_then(Value::as_str))
        else {
            return Ok(());
        };
        let answer = if method == "ping" {
            json!({ "jsonrpc": "2.0", "id": id, "result": {} })
        } else {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "not supported" } })
        };
        self.write(&answer).await
    }

    async fn read_line(&mut self) -> Result<Vec<u8>, LiveError> {
        let room = MAX_MESSAGE_BYTES.saturating_sub(self.line.len()) as u64;
        let mut limited = (&mut self.stdout).take(room);
        limited.read_until(b'\n', &mut self.line).await.map_err(|error| lost(&error))?;
        match self.line.last() {
            Some(b'\n') => Ok(std::mem::take(&mut self.line)),
            _ if self.line.len() >= MAX_MESSAGE_BYTES => {
                Err(LiveError::TooMuch("a message of more than 8 MiB"))
            }
            _ => Err(LiveError::Protocol("it ended; run the command yourself to see why".to_owned())),
        }
    }

    async fn write(&mut self, message: &Value) -> Result<(), LiveError> {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|error| lost(&error))?;
        self.stdin.flush().await.map_err(|error| lost(&error))
    }
}

fn lost(error: &std::io::Error) -> LiveError {
    LiveError::Unreachable(error.to_string())
}

const PROBE: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(2);
