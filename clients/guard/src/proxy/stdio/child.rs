//! One process, spoken to line by line.

use super::routes::{Routes, cancelled};
use crate::{
    message::{AWS_META, CALL_META},
    proxy::{
        failure::Failure,
        handover::{AUTHORIZATION_HEADER, URI_HEADER},
        process::{self, Line, Lines, Running},
        server::{Answer, CALL_HEADER, Channel, Messages, Outgoing, Said, Trace},
        settings::StdioUpstream,
    },
};
use async_trait::async_trait;
use deputize_call::json::Object;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// A process. Dropped, it ends, and everything that it started.
pub(super) struct Child {
    stdin: tokio::sync::Mutex<Option<ChildStdin>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    routes: Arc<Mutex<Routes>>,
    is_shared: bool,
    answer_timeout: Duration,
    itself: Weak<Child>,
}

impl Child {
    pub(super) fn start(
        upstream: &StdioUpstream,
        is_shared: bool,
        at_end: impl FnOnce(bool) + Send + 'static,
    ) -> Result<Arc<Self>, Failure> {
        let Running { stdin, stdout, stop } = process::start(&upstream.program, at_end)?;
        let routes = Arc::new(Mutex::new(Routes::new(is_shared)));
        let child = Arc::new_cyclic(|itself| Self {
            stdin: tokio::sync::Mutex::new(Some(stdin)),
            stop: Mutex::new(Some(stop)),
            routes: Arc::clone(&routes),
            is_shared,
            answer_timeout: upstream.answer_timeout,
            itself: Weak::clone(itself),
        });
        tokio::spawn(read(stdout, upstream.max_answer_bytes, routes, Arc::downgrade(&child)));
        Ok(child)
    }

    /// Whether it still runs, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        let is_stopped = self.stop.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        !is_stopped && !routes(&self.routes).is_closed()
    }

    async fn write(&self, message: &Value) -> Result<(), Failure> {
        // JSON as it is written here holds no line end.
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        let written = timeout(WRITE_TIMEOUT, async {
            let mut stdin = self.stdin.lock().await;
            let stdin = stdin.as_mut().ok_or(Failure::UnknownSession)?;
            let written = async {
                stdin.write_all(&line).await?;
                stdin.flush().await
            };
            written.await.map_err(|_| Failure::Unreachable)
        });
        match written.await {
            Ok(written) => written,
            Err(_) => {
                // Half a line may be written: nothing more can be said to it.
                self.stop();
                Err(Failure::TimedOut)
            }
        }
    }

    fn stop(&self) {
        routes(&self.routes).close();
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            // Whoever no longer listens has ended already.
            let _ = stop.send(());
        }
    }
}

#[async_trait]
impl Channel for Child {
    async fn send(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        let mut message: Object =
            serde_json::from_slice(&outgoing.body).map_err(|_| Failure::Broken("a fault of the guard"))?;
        // There are no headers here: whose call it is stands in the message itself.
        let header = |sought: &str| {
            outgoing.headers.iter().find(|(name, _)| *name == sought).map(|(_, value)| value.as_str())
        };
        if let Some(token) = header(CALL_HEADER) {
            hand_over(&mut message, CALL_META, token.into())?;
        }
        if let (Some(uri), Some(authorization)) = (header(URI_HEADER), header(AUTHORIZATION_HEADER)) {
            hand_over(&mut message, AWS_META, json!({ "uri": uri, "authorization": authorization }))?;
        }
        if outgoing.id.is_none() {
            self.write(&Value::Object(message)).await?;
            return Ok(Answer::Accepted);
        }
        let (key, receiver) = routes(&self.routes).expect(&mut message)?;
        let itself = Weak::clone(&self.itself);
        let mut lines = ChildMessages { first: None, receiver, _wait: Some(Wait { key, child: itself }) };
        self.write(&Value::Object(message)).await?;
        let first = timeout(self.answer_timeout, lines.receiver.recv()).await;
        let first = first.map_err(|_| Failure::TimedOut)?.ok_or(Failure::Unreachable)?;
        match first.message {
            Some(response) if !response.contains_key("method") => Ok(Answer::One(response)),
            _ => {
                lines.first = Some(first);
                Ok(Answer::Many(Box::new(lines)))
            }
        }
    }

    async fn listen(&self, cursor: Option<&str>, _: &Trace) -> Result<Box<dyn Messages>, Failure> {
        if cursor.is_some() {
            return Err(Failure::UnknownSession);
        }
        let receiver = routes(&self.routes).listen()?;
        Ok(Box::new(ChildMessages { first: None, receiver, _wait: None }))
    }

    fn settle_version(&self, _: &str) {
        // On this transport no message says its version.
    }

    async fn end(&self) {
        routes(&self.routes).close();
        // The end of its stdin asks it to go; who does not is made to.
        drop(self.stdin.lock().await.take());
        self.stop();
    }
}

/// The messages of one request, or those said unasked.
struct ChildMessages {
    first: Option<Said>,
    receiver: mpsc::Receiver<Said>,
    /// Dropped with the rest, it tells that nobody waits any more.
    _wait: Option<Wait>,
}

/// A request that waits for its response.
struct Wait {
    key: String,
    child: Weak<Child>,
}

#[async_trait]
impl Messages for ChildMessages {
    async fn next(&mut self) -> Option<Result<Said, Failure>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.receiver.recv().await.map(Ok),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(child) = self.child.upgrade() else { return };
        let still_waits = routes(&child.routes).forget(&self.key);
        // In versions with sessions a lost connection is no cancellation; in the stateless one it is.
        if still_waits && child.is_shared {
            let cancelled = cancelled(&self.key);
            tokio::spawn(async move {
                // A process that is gone has nothing to cancel.
                let _ = child.write(&cancelled).await;
            });
        }
    }
}

/// Puts something of the guard's own into `_meta` of a call. What the caller said there is gone since the message was read.
fn hand_over(message: &mut Object, member: &str, value: Value) -> Result<(), Failure> {
    let params = message.get_mut("params").and_then(Value::as_object_mut);
    let params = params.ok_or(Failure::Broken("a fault of the guard"))?;
    let meta = params.entry("_meta").or_insert_with(|| Value::Object(Object::new()));
    let meta = meta.as_object_mut().ok_or(Failure::Broken("a fault of the guard"))?;
    meta.insert(member.to_owned(), value);
    Ok(())
}

async fn read(stdout: ChildStdout, max_bytes: usize, routed: Arc<Mutex<Routes>>, child: Weak<Child>) {
    let mut lines = Lines::new(BufReader::new(stdout), max_bytes);
    while let Some(line) = lines.next().await {
        match line {
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(line) => match serde_json::from_slice::<Object>(&line) {
                Ok(message) => routes(&routed).route(message),
                // MCP, stdio: nothing else may stand there. Some print a greeting all the same.
                Err(_) => tracing::warn!("program says what is no message"),
            },
            Line::Cut(_) => {
                // Whose answer it is cannot be known any more: everyone's is lost.
                tracing::warn!("program says more than its guard lets through");
                break;
            }
        }
    }
    routes(&routed).close();
    // Who says nothing more is of no use, whether it runs on or not.
    if let Some(child) = child.upgrade() {
        child.stop();
    }
}

fn routes(routed: &Mutex<Routes>) -> std::sync::MutexGuard<'_, Routes> {
    routed.lock().unwrap_or_else(PoisonError::into_inner)
}

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
