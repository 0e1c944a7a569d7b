//! A running broker, asked over the socket of its administration.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

use super::exit::{CommandError, Exit};
use crate::config::read;

/// The socket of a broker's administration.
#[derive(Debug, Clone)]
pub struct AdminSocket {
    path: PathBuf,
}

impl AdminSocket {
    /// The one that was given, else that of the configuration.
    ///
    /// # Errors
    /// If there is neither.
    pub fn find(given: Option<&Path>, config: &Path) -> Result<Self, CommandError> {
        if let Some(path) = given {
            return Ok(Self { path: path.to_owned() });
        }
        // Only what is needed is looked at, so that it works while the rest of the configuration is broken.
        let raw = read::read_config(config, std::env::vars()).map_err(|error| {
            CommandError::configuration(
                error,
                "give --config FILE of the broker, or the path of its admin socket",
            )
        })?;
        let folder = config.parent().unwrap_or(Path::new("."));
        let path = raw.admin.socket.unwrap_or_else(|| raw.data_dir.join("admin.sock"));
        Ok(Self { path: folder.join(path) })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// If the broker cannot be reached, or refuses; with its words.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CommandError> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(Ok((status, answer))) if status.is_success() => Ok(answer),
            Ok(Ok((status, answer))) => Err(refused(status, &answer)),
            Ok(Err(why)) => Err(self.unreachable(&why)),
            Err(_) => Err(self.unreachable("it does not answer")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), String> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // It ends with the sender.
        tokio::spawn(connection);
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let answer = answer.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, serde_json::from_slice(&answer).unwrap_or_default()))
    }

    fn unreachable(&self, why: &str) -> CommandError {
        CommandError::unreachable(
            format!("{}: {why}", self.path.display()),
            "start the broker (`deputize serve`), or name its admin socket; whoever asks must be its user",
        )
    }
}

fn refused(status: StatusCode, answer: &Value) -> CommandError {
    let said = answer.get("error_description").and_then(Value::as_str);
    let said = said.map_or_else(|| format!("the broker answers {status}"), str::to_owned);
    match status.as_u16() {
        // A path that is not there says so without words of ours: the broker has no `spiffe` section.
        404 if said.starts_with("there is nothing at this path") => CommandError::configuration(
            "this broker serves no Workload API",
            "add `spiffe:` to its configuration and restart it (docs/workload-api.md)",
        ),
        503 => CommandError::unreachable(said, "try again"),
        404 => CommandError::failure(said, "`deputize entry ls` lists them"),
        409 => CommandError::new(Exit::Denied, said, ""),
        _ => CommandError::failure(said, "correct it and try again"),
    }
}

/// One part of a path, with everything escaped that means something there (RFC 3986 §3.3).
pub fn path_segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

const PATIENCE: Duration = Duration::from_secs(30);
/// A thousand entries, each as long as it can be, are less.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
