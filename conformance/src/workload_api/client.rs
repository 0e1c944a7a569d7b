//! gRPC over a Unix socket, as little as is needed and as bare as possible: what a server does must be seen as it is,
//! and a request must be able to be wrong.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::{fmt, marker::PhantomData, path::Path, time::Duration};
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

/// A connection to the endpoint. It ends with this value.
pub struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// What comes back for one request: messages, then how it ended.
pub struct Answers<A> {
    /// Whether the answer is one of gRPC: status 200 and its media type.
    pub is_grpc: bool,
    body: Incoming,
    early: Option<Status>,
    buffer: BytesMut,
    message: PhantomData<A>,
}

/// A gRPC status other than OK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub code: i32,
    /// What it says.
    pub message: String,
}

/// Why there is no message, or none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The server said so.
    With(Status),
    /// Something is wrong with the transport.
    Broken(String),
    /// Nothing came in time.
    Silent,
}

/// Connects to a socket. Where the queue of those who are not let in yet is full, the kernel lets who may block wait;
/// here it says `EAGAIN`, at once.
///
/// # Errors
/// If nobody listens there.
pub async fn join_queue(socket: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens there, or whoever listens speaks no HTTP/2.
    pub async fn open(socket: &Path) -> Result<Self, Ended> {
        let stream = timeout(PATIENCE, join_queue(socket)).await.map_err(|_| Ended::Silent)?;
        let stream = TokioIo::new(stream.map_err(broken)?);
        let hands = http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) =
            timeout(PATIENCE, hands).await.map_err(|_| Ended::Silent)?.map_err(broken)?;
        // What goes wrong with it is seen by each request.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Asks a method of the Workload API, with this value of the security header, if any.
    ///
    /// # Errors
    /// [`Ended`], before any message.
    pub async fn ask<A: Message + Default>(
        &self,
        method: &str,
        header: Option<&str>,
        question: &impl Message,
    ) -> Result<Answers<A>, Ended> {
        self.ask_at(&format!("/SpiffeWorkloadAPI/{method}"), header, question).await
    }

    /// Asks a method by its path.
    ///
    /// # Errors
    /// [`Ended`], before any message.
    pub async fn ask_at<A: Message + Default>(
        &self,
        path: &str,
        header: Option<&str>,
        question: &impl Message,
    ) -> Result<Answers<A>, Ended> {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(question.encoded_len()).map_err(broken)?);
        question.encode(&mut frame).map_err(broken)?;
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(value) = header {
            request = request.header(SECURITY_HEADER, value);
        }
        let request = request.body(Full::new(frame.freeze())).map_err(broken)?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(broken)?;
        let response = timeout(PATIENCE, sender.send_request(request)).await.map_err(|_| Ended::Silent)?;
        let (head, body) = response.map_err(broken)?.into_parts();
        let media = head.headers.get("content-type").map(http::HeaderValue::as_bytes).unwrap_or_default();
        Ok(Answers {
            is_grpc: head.status == 200 && media.starts_with(b"application/grpc"),
            body,
            early: Status::of(&head.headers),
            buffer: BytesMut::new(),
            message: PhantomData,
        })
    }

    /// The only message of a method of the Workload API that answers with one.
    ///
    /// # Errors
    /// [`Ended`]; also if there is none, or more than one.
    pub async fn ask_once<A: Message + Default>(
        &self,
        method: &str,
        header: Option<&str>,
        question: &impl Message,
    ) -> Result<A, Ended> {
        let mut answers = self.ask(method, header, question).await?;
        let Some(answer) = answers.next().await? else {
            return Err(Ended::Broken("ended without a message".to_owned()));
        };
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(Ended::Broken("more than one message".to_owned())),
        }
    }

    /// The first message of a stream, which is then left.
    ///
    /// # Errors
    /// [`Ended`]; also if it ends before it.
    pub async fn first<A: Message + Default>(&self, method: &str, header: Option<&str>) -> Result<A, Ended> {
        let mut answers = self.ask(method, header, &super::messages::Nothing {}).await?;
        answers.next().await?.ok_or_else(|| Ended::Broken("ended without a message".to_owned()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<A: Message + Default> Answers<A> {
    /// The next message; none once the server has ended with OK.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next(&mut self) -> Result<Option<A>, Ended> {
        self.next_within(PATIENCE).await
    }

    /// As [`Answers::next`], for so long.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next_within(&mut self, patience: Duration) -> Result<Option<A>, Ended> {
        timeout(patience, self.read()).await.map_err(|_| Ended::Silent)?
    }

    async fn read(&mut self) -> Result<Option<A>, Ended> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            let ended = match self.body.frame().await {
                None => self.early.take(),
                Some(frame) => match frame.map_err(broken)?.into_data() {
                    Ok(data) => {
                        self.buffer.extend_from_slice(&data);
                        continue;
                    }
                    Err(frame) => frame.trailers_ref().and_then(Status::of),
                },
            };
            return match ended {
                None => Err(Ended::Broken("ended without a gRPC status".to_owned())),
                Some(Status { code: 0, .. }) => Ok(None),
                Some(status) => Err(Ended::With(status)),
            };
        }
    }

    fn buffered(&mut self) -> Result<Option<A>, Ended> {
        let Some((&[compressed, ref length @ ..], _)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if compressed != 0 || length > MAX_MESSAGE_BYTES {
            return Err(Ended::Broken("a message is compressed, or over 4 MiB".to_owned()));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        A::decode(self.buffer.split_to(length)).map(Some).map_err(broken)
    }
}

impl Status {
    fn of(headers: &http::HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = text("grpc-status")?.parse().ok()?;
        Some(Self { code, message: text("grpc-message").unwrap_or_default().to_owned() })
    }

    /// Its name, as gRPC's documentation has it.
    pub fn name(&self) -> &'static str {
        usize::try_from(self.code).ok().and_then(|code| CODES.get(code)).unwrap_or(&"an unknown status")
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::With(status) => write!(f, "{} ({})", status.name(), status.message),
            Self::Broken(why) => write!(f, "{why}"),
            Self::Silent => write!(f, "nothing came for {} seconds", PATIENCE.as_secs()),
        }
    }
}

impl Ended {
    /// The status, where the server gave one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::With(status) => Some(status.code),
            Self::Broken(_) | Self::Silent => None,
        }
    }
}

fn broken(error: impl fmt::Display) -> Ended {
    Ended::Broken(error.to_string())
}

/// SPIFFE Workload Endpoint §3.
pub const SECURITY_HEADER: &str = "workload.spiffe.io";
/// gRPC's numbers of the statuses that the specifications name.
pub const INVALID_ARGUMENT: i32 = 3;
/// As above.
pub const PERMISSION_DENIED: i32 = 7;
/// As above.
pub const UNIMPLEMENTED: i32 = 12;
/// As above.
pub const UNAUTHENTICATED: i32 = 16;

const CODES: [&str; 17] = [
    "OK",
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const PATIENCE: Duration = Duration::from_secs(10);
const QUEUE_PAUSE: Duration = Duration::from_millis(1);
const PREFIX_BYTES: usize = 5;
const MAX_MESSAGE_BYTES: usize = 4 << 20;
