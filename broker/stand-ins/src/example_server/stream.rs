//! What an example server says unasked: that its tools changed.

use super::ExampleServer;
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// A stream of server-sent events, until its reader leaves or the server stops. Of the stateless version it answers a
/// subscription with this id; of the older ones it belongs to no request.
pub(super) fn open(
    server: &Arc<ExampleServer>,
    subscription: Option<&Value>,
    stop: watch::Receiver<bool>,
) -> Response {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let meta = subscription.map(|id| json!({ SUBSCRIPTION_ID: id }));
    // From here on no change is missed.
    let changes = server.changes.subscribe();
    tokio::spawn(async move {
        // The reader is gone: so is whoever would have to know.
        let _ = run(meta, changes, sender, stop).await;
    });
    let mut response = Response::new(Body::new(Events(receiver)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

async fn run(
    meta: Option<Value>,
    mut changes: watch::Receiver<u64>,
    sender: mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    if meta.is_some() {
        let honoured = json!({ "_meta": meta, "notifications": { "toolsListChanged": true } });
        sender.send(event("notifications/subscriptions/acknowledged", honoured)).await?;
    }
    let mut silence = tokio::time::interval(KEEP_ALIVE_EVERY);
    silence.reset();
    loop {
        let piece = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => {
                    let params = meta.as_ref().map_or_else(|| json!({}), |meta| json!({ "_meta": meta }));
                    event("notifications/tools/list_changed", params)
                }
                Err(_) => return Ok(()),
            },
            _ = silence.tick() => Bytes::from_static(b": alive\n\n"),
            () = sender.closed() => return Ok(()),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        sender.send(piece).await?;
    }
}

/// JSON has no line breaks of its own, so each message is one line.
fn event(method: &str, params: Value) -> Bytes {
    let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    format!("data: {message}\n\n").into()
}

/// The body of a stream.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
const EVENTS_AHEAD: usize = 16;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
