//! The Workload API, asked as any process may ask it (SPIFFE Workload Endpoint).

use deputize_workload_api::proto::{
    Jwtsvid, JwtsvidRequest, X509svidRequest, X509svidResponse,
    spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::UnixStream;
use tonic::{Code, Request, Status, Streaming, body::Body, metadata::MetadataValue};
use uuid::Uuid;

use crate::{
    commands::exit::{CommandError, Exit},
    config::read,
};

/// Where the socket is.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointArgs {
    /// Socket of the Workload API, as a path or unix:///PATH [default: that of the configuration]
    #[arg(long, value_name = "PATH", env = "SPIFFE_ENDPOINT_SOCKET")]
    pub socket: Option<String>,
    /// Configuration of the broker
    #[arg(long, value_name = "FILE", env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
    pub config: PathBuf,
}

impl EndpointArgs {
    /// Finds it.
    ///
    /// # Errors
    /// If it was given in a way that is none, or the configuration has none.
    pub fn find(&self) -> Result<PathBuf, CommandError> {
        if let Some(given) = &self.socket {
            return address(given);
        }
        let raw = read::read_config(&self.config, std::env::vars()).map_err(|error| {
            CommandError::configuration(error, "give --socket PATH, or set SPIFFE_ENDPOINT_SOCKET")
        })?;
        let spiffe = raw.spiffe.ok_or_else(|| {
            CommandError::configuration(
                format!(
                    "{}: there is no `spiffe` section, so that no Workload API is served",
                    self.config.display()
                ),
                "add it (docs/workload-api.md), or give --socket PATH",
            )
        })?;
        let socket = spiffe.socket.ok_or_else(|| {
            CommandError::configuration(
                format!("{}: the broker has no socket of its own", self.config.display()),
                "give --socket PATH of this machine's agent",
            )
        })?;
        Ok(self.config.parent().unwrap_or(Path::new(".")).join(socket))
    }
}

/// SPIFFE Workload Endpoint §4: `unix:///PATH`. A bare path is taken too.
pub(in crate::commands) fn address(given: &str) -> Result<PathBuf, CommandError> {
    let path = match given.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => given,
    };
    if path.contains("://") || path.is_empty() || given.starts_with("tcp:") {
        return Err(CommandError::usage(
            format!("{given:?} is no socket's address"),
            "give unix:///run/deputize/workload-api.sock, or the path alone",
        ));
    }
    Ok(PathBuf::from(path))
}

/// A connection to the Workload API.
pub struct Endpoint {
    path: PathBuf,
    client: SpiffeWorkloadApiClient<Channel>,
}

impl Endpoint {
    /// Connects.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn connect(path: &Path) -> Result<Self, CommandError> {
        let connected = tokio::time::timeout(PATIENCE, Channel::connect(path)).await;
        let channel = connected.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        let channel = channel.map_err(|why| unreachable(path, &why))?;
        let client = SpiffeWorkloadApiClient::with_origin(channel, Uri::from_static("http://localhost"));
        Ok(Self { path: path.to_owned(), client: client.max_decoding_message_size(MAX_ANSWER_BYTES) })
    }

    /// X.509-SVIDs, all of them anew whenever something changes.
    ///
    /// # Errors
    /// As the endpoint says.
    pub async fn x509_svids(&mut self) -> Result<Streaming<X509svidResponse>, CommandError> {
        let asked = self.client.fetch_x509svid(with_header(X509svidRequest {})).await;
        asked.map(tonic::Response::into_inner).map_err(|status| self.refused(&status))
    }

    /// The SPIFFE IDs that this process gets.
    ///
    /// # Errors
    /// As the endpoint says.
    pub async fn identities(path: &Path) -> Result<Vec<String>, CommandError> {
        let mut endpoint = Self::connect(path).await?;
        let first = endpoint.first_svids().await?;
        Ok(first.svids.into_iter().map(|svid| svid.spiffe_id).collect())
    }

    /// The X.509-SVIDs of this moment.
    ///
    /// # Errors
    /// As the endpoint says.
    pub async fn first_svids(&mut self) -> Result<X509svidResponse, CommandError> {
        let asked = async {
            let mut stream = self.x509_svids().await?;
            match stream.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(unreachable(&self.path, "it ended the stream")),
                Err(status) => Err(self.refused(&status)),
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(CommandError::unreachable("the Workload API does not answer", "try again")),
        }
    }

    /// JWT-SVIDs for these audiences; of all identities, or of one.
    ///
    /// # Errors
    /// As the endpoint says.
    pub async fn jwt_svids(
        &mut self,
        audience: Vec<String>,
        spiffe_id: Option<&str>,
    ) -> Result<Vec<Jwtsvid>, CommandError> {
        let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.unwrap_or_default().to_owned() };
        let asked = tokio::time::timeout(PATIENCE, self.client.fetch_jwtsvid(with_header(request))).await;
        match asked {
            Ok(Ok(answer)) => Ok(answer.into_inner().svids),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => Err(unreachable(&self.path, "it does not answer")),
        }
    }

    /// What a status means for whoever typed the command.
    pub fn refused(&self, status: &Status) -> CommandError {
        let said = format!("the Workload API says {:?}: {}", status.code(), status.message());
        match status.code() {
            Code::PermissionDenied => CommandError::new(
                Exit::Denied,
                said,
                format!(
                    "no entry is for this process: `deputize svid fetch --explain` shows what the nearest ones lack{}",
                    on_record(status)
                ),
            ),
            Code::InvalidArgument => CommandError::usage(said, "correct --audience or --spiffe-id"),
            Code::Unavailable => unreachable(&self.path, &said),
            _ => CommandError::failure(said, "see the log of the broker or agent that serves the socket"),
        }
    }
}

/// Where a refusal is on record, if it says so.
fn on_record(status: &Status) -> String {
    let id = status.metadata().get("decision_id").and_then(|id| id.to_str().ok()?.parse::<Uuid>().ok());
    id.map(|id| format!("; `deputize explain {id}` on the broker tells what was true of it"))
        .unwrap_or_default()
}

/// SPIFFE Workload Endpoint §3: the header that no request has which somebody else was made to send.
pub(in crate::commands) fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

pub(in crate::commands) fn unreachable(path: &Path, why: &str) -> CommandError {
    CommandError::unreachable(
        format!("{}: {why}", path.display()),
        "start the broker with a `spiffe` section, or give --socket PATH",
    )
}

/// One HTTP/2 connection over a Unix socket, for the generated client.
pub struct Channel {
    sender: http2::SendRequest<Body>,
}

impl Channel {
    pub(in crate::commands) async fn connect(path: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // A socket stays open while whoever serves it stands still.
        builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
        let handshake = builder.keep_alive_while_idle(true).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self { sender })
    }
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
/// Servers written with gRPC for Go hang up on clients that ping more often than each five minutes.
const PING_EVERY: Duration = Duration::from_secs(330);
const PONG_WITHIN: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets_are_paths_or_unix_urls() {
        for (given, path) in [
            ("/run/a.sock", "/run/a.sock"),
            ("unix:///run/a.sock", "/run/a.sock"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("data/a.sock", "data/a.sock"),
        ] {
            assert_eq!(address(given).unwrap(), Path::new(path), "{given}");
        }
        for given in ["", "unix:", "unix://", "tcp://127.0.0.1:8081", "tcp:127.0.0.1:1", "http://a"] {
            assert_eq!(address(given).unwrap_err().exit, Exit::Usage, "{given}");
        }
    }
}
