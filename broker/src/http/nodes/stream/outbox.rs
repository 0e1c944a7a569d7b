//! Lines on their way to an agent: few of one stream, and of all streams together not more bytes than there is room for.

use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

use super::super::places::{Place, Places};

/// Where lines are put that an agent is to read.
pub(super) struct Outbox {
    /// Whose bytes they are.
    node: String,
    room: Arc<Places>,
    sender: mpsc::Sender<Bytes>,
}

/// The body of a stream (`application/x-ndjson`).
#[derive(Debug)]
pub struct Lines {
    lines: mpsc::Receiver<Bytes>,
}

/// The agent is gone, or does not read.
pub(super) struct Unread;

/// A line, which has its place for as long as anybody holds its bytes: the connection does until it is written.
struct Line {
    text: Vec<u8>,
    _place: Place,
}

/// Room for the lines of all streams, in bytes, and for those of one node.
pub fn room() -> Arc<Places> {
    Places::new(MAX_BYTES, MAX_BYTES_OF_A_NODE)
}

impl Outbox {
    /// One for this node, and the body that its lines come out of.
    pub(super) fn new(node: String, room: Arc<Places>) -> (Self, Lines) {
        let (sender, lines) = mpsc::channel(MAX_WAITING);
        (Self { node, room, sender }, Lines { lines })
    }

    /// Puts a line in.
    ///
    /// # Errors
    /// [`Unread`] where those before it are not read, or too much waits for this node or for all of them: the stream ends, and
    /// the agent comes back for the state as it is by then.
    pub(super) async fn put(&self, text: Vec<u8>) -> Result<(), Unread> {
        let place = self.room.enter_with(&self.node, text.len()).ok_or(Unread)?;
        let line = Bytes::from_owner(Line { text, _place: place });
        self.sender.send_timeout(line, PATIENCE).await.map_err(|_| Unread)
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines.poll_recv(context).map(|line| line.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// How long a reader may take for the lines that wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each is the whole state: what comes after the next one makes it old.
const MAX_WAITING: usize = 1;
/// Twice the longest line that an agent reads.
const MAX_BYTES_OF_A_NODE: usize = 128 * 1024 * 1024;
const MAX_BYTES: usize = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_left() {
        let (outbox, mut lines) = Outbox::new("a".to_owned(), room());
        assert!(outbox.put(b"one".to_vec()).await.is_ok());
        assert!(outbox.put(b"two".to_vec()).await.is_err(), "one waits, and nobody takes it");
        let read = lines.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&*read, b"one");
        assert!(outbox.put(b"three".to_vec()).await.is_ok());
        drop(lines);
        assert!(outbox.put(b"four".to_vec()).await.is_err());
        outbox.closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_unwritten_is_bounded_over_all_streams() {
        let room = Places::new(10, 6);
        let open = |node: &str| Outbox::new(node.to_owned(), Arc::clone(&room));
        let (one, mut lines) = open("a");
        assert!(one.put(vec![b'x'; 6]).await.is_ok());
        // Taken from the body, but not written yet: it counts.
        let held = lines.frame().await.unwrap().unwrap().into_data().unwrap();
        let (another, _read) = open("a");
        assert!(another.put(vec![b'x']).await.is_err(), "another stream of the same node");
        let (other, _read) = open("b");
        assert!(other.put(vec![b'x'; 5]).await.is_err(), "more than is left of all");
        assert!(other.put(vec![b'x'; 4]).await.is_ok());
        drop(held);
        assert!(another.put(vec![b'x'; 6]).await.is_ok(), "written");
    }
}
