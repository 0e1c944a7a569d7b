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

/// Which broker.
#[derive(Debug, Clone, clap::Args)]
pub struct BrokerArgs {
    /// Admin socket of the broker [default: that of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Configuration of the broker
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
    config: PathBuf,
}

impl BrokerArgs {
    /// The socket of its administration.
    ///
    /// # Errors
    /// If none was given, and the configuration cannot be read.
    pub fn find(&self) -> Result<AdminSocket, CommandError> {
        AdminSocket::find(self.socket.as_deref(), &self.config)
    }
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
            Ok(Ok((status, answer))) => Err(Part::of(path).refused(status, &answer)),
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

/// A part of the administration, which a broker has or has not.
struct Part {
    /// What a broker is without it, and how it gets it.
    absent: [&'static str; 2],
    /// Lists what there is.
    list: &'static str,
}

impl Part {
    fn of(path: &str) -> &'static Self {
        if path.starts_with("/admin/nodes") { &NODES } else { &WORKLOAD_API }
    }

    fn refused(&self, status: StatusCode, answer: &Value) -> CommandError {
        let said = answer.get("error_description").and_then(Value::as_str);
        let said = said.map_or_else(|| format!("the broker answers {status}"), str::to_owned);
        let [absent, next] = self.absent;
        match status.as_u16() {
            // A path that is not there says so without words of ours.
            404 if said.starts_with("there is nothing at this path") => {
                CommandError::configuration(absent, next)
            }
            503 => CommandError::unreachable(said, "try again"),
            404 => CommandError::failure(said, format!("`{}` lists them", self.list)),
            409 => CommandError::new(Exit::Denied, said, ""),
            _ => CommandError::failure(said, "correct it and try again"),
        }
    }
}

const WORKLOAD_API: Part = Part {
    absent: [
        "this broker serves no Workload API",
        "add `spiffe:` to its configuration and restart it (docs/workload-api.md)",
    ],
    list: "deputize entry ls",
};
const NODES: Part = Part {
    absent: [
        "this broker has no nodes but its own",
        "add `spiffe.nodes` to its configuration and restart it (docs/agent.md)",
    ],
    list: "deputize node ls",
};

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
