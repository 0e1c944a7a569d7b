//! Lines on their way to an agent: one of each stream, and of all streams together not more bytes than there is room for.

use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

use super::super::places::{Place, Places};

/// Where lines are put that an agent is to read. Dropped, it ends the stream: with what is not read of a line goes its room,
/// whatever the connection still waits for.
pub(super) struct Outbox {
    /// Whose bytes they are.
    node: String,
    room: Arc<Places>,
    stream: Arc<Stream>,
}

/// The body of a stream (`application/x-ndjson`).
#[derive(Debug)]
pub struct Lines {
    stream: Arc<Stream>,
}

/// The agent is gone, or does not read.
#[derive(Debug)]
pub(super) struct Unread;

/// A line was not read in time: there is no rest of it. The stream is reset (RFC 9113 §8.1), lest a part looks whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent did not read its stream in time")]
pub struct CutOff;

#[derive(Debug, Default)]
struct Stream {
    waiting: Mutex<Waiting>,
    /// Told of each line that is taken whole, and of the end of the body.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    line: Option<Line>,
    /// None as long as lines may come.
    end: Option<Result<(), CutOff>>,
    /// Nobody reads any more.
    is_left: bool,
    reader: Option<Waker>,
}

/// A line, which has its room until its last byte is taken.
#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    taken: usize,
    _room: Option<Place>,
}

/// Room for the lines of all streams, in bytes, and for those of one node.
pub fn room() -> Arc<Places> {
    Places::new(MAX_BYTES, MAX_BYTES_OF_A_NODE)
}

impl Outbox {
    /// One for this node, and the body that its lines come out of.
    pub(super) fn new(node: String, room: Arc<Places>) -> (Self, Lines) {
        let stream = Arc::<Stream>::default();
        (Self { node, room, stream: Arc::clone(&stream) }, Lines { stream })
    }

    /// Puts a line in.
    ///
    /// # Errors
    /// [`Unread`] where the one before it is not read, or too much waits for this node or for all of them: the stream ends, and
    /// the agent comes back for the state as it is by then.
    pub(super) async fn put(&self, text: Vec<u8>) -> Result<(), Unread> {
        // However long it is, one line of a node may wait: else it would never hear of its state.
        let room = self.room.enter_with(&self.node, text.len());
        let room = room.or_else(|| self.room.enter_alone(&self.node, text.len())).ok_or(Unread)?;
        self.send(Line { text, taken: 0, _room: Some(room) }).await
    }

    /// Puts a line in that is so short that it needs no room: what others leave unread takes it from nobody.
    ///
    /// # Errors
    /// [`Unread`] where the line before it is not read.
    pub(super) async fn put_short(&self, text: Vec<u8>) -> Result<(), Unread> {
        self.send(Line { text, taken: 0, _room: None }).await
    }

    async fn send(&self, line: Line) -> Result<(), Unread> {
        let unread = self.stream.lock().line.as_ref().map_or(0, Line::unread);
        // A long line takes its time, on a slow way too.
        let slow = Duration::from_secs(u64::try_from(unread).unwrap_or(u64::MAX) / LEAST_BYTES_PER_SECOND);
        timeout(PATIENCE.saturating_add(slow), self.stream.emptied()).await.map_err(|_| Unread)?;
        let mut waiting = self.stream.lock();
        if waiting.is_left {
            return Err(Unread);
        }
        waiting.line = Some(line);
        waiting.wake();
        Ok(())
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        loop {
            let told = self.stream.taken.notified();
            if self.stream.lock().is_left {
                return;
            }
            told.await;
        }
    }
}

impl Stream {
    /// Until no line waits, or nobody reads any more.
    async fn emptied(&self) {
        loop {
            let told = self.taken.notified();
            let is_so = {
                let waiting = self.lock();
                waiting.line.is_none() || waiting.is_left
            };
            if is_so {
                return;
            }
            told.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Line {
    fn unread(&self) -> usize {
        self.text.len().saturating_sub(self.taken)
    }

    /// A copy: what the connection holds of it may wait for as long as the agent likes, and is all that may.
    fn take(&mut self) -> Bytes {
        let rest = self.text.get(self.taken..).unwrap_or_default();
        let piece = Bytes::copy_from_slice(rest.get(..PIECE_BYTES).unwrap_or(rest));
        self.taken += piece.len();
        piece
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut waiting = self.stream.lock();
        waiting.end = Some(if waiting.line.take().is_some() { Err(CutOff) } else { Ok(()) });
        waiting.wake();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut waiting = self.stream.lock();
        (waiting.line, waiting.is_left) = (None, true);
        drop(waiting);
        self.stream.taken.notify_one();
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let mut waiting = self.stream.lock();
        let Some(line) = &mut waiting.line else {
            return match waiting.end {
                Some(end) => Poll::Ready(end.err().map(Err)),
                None => {
                    waiting.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        };
        let piece = line.take();
        if line.unread() == 0 {
            waiting.line = None;
            self.stream.taken.notify_one();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// How long a reader may take for the line that waits, beyond the time that its length takes.
const PATIENCE: Duration = Duration::from_secs(10);
const LEAST_BYTES_PER_SECOND: u64 = 256 * 1024;
/// As long as frames of HTTP/2 are (RFC 9113 §6.5.2, `SETTINGS_MAX_FRAME_SIZE`).
const PIECE_BYTES: usize = 16 * 1024;
const MAX_BYTES: usize = 1024 * 1024 * 1024;
/// So many nodes at once leave what they are told unread before others hear nothing.
const MAX_BYTES_OF_A_NODE: usize = MAX_BYTES / 32;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn read(lines: &mut Lines) -> Option<Result<Bytes, CutOff>> {
        lines.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_left() {
        let (outbox, mut lines) = Outbox::new("a".to_owned(), room());
        assert!(outbox.put(b"one".to_vec()).await.is_ok());
        assert!(outbox.put(b"two".to_vec()).await.is_err(), "one waits, and nobody takes it");
        assert_eq!(read(&mut lines).await.unwrap().unwrap(), "one");
        assert!(outbox.put(b"three".to_vec()).await.is_ok());
        drop(lines);
        assert!(outbox.put(b"four".to_vec()).await.is_err());
        outbox.closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_left_unread_is_cut_off_and_its_room_is_free_whatever_its_body_holds() {
        let room = Places::new(100_000, 60_000);
        let (outbox, mut lines) = Outbox::new("a".to_owned(), Arc::clone(&room));
        assert!(outbox.put(vec![b'x'; 60_000]).await.is_ok());
        // What the connection has of it, and waits with.
        let held = read(&mut lines).await.unwrap().unwrap();
        assert_eq!(held.len(), PIECE_BYTES);
        assert!(outbox.put_short(b"{}\n".to_vec()).await.is_err());
        assert!(room.enter_with("a", 1).is_none(), "it waits still");
        drop(outbox);
        assert!(room.enter_with("a", 60_000).is_some(), "nothing of it is kept");
        assert_eq!(read(&mut lines).await, Some(Err(CutOff)), "reset, and not as if it were whole");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_was_read_ends_as_streams_do() {
        let (outbox, mut lines) = Outbox::new("a".to_owned(), room());
        let text: Vec<u8> = (0..100_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert!(outbox.put(text.clone()).await.is_ok());
        let mut all = Vec::new();
        while all.len() < text.len() {
            all.extend_from_slice(&read(&mut lines).await.unwrap().unwrap());
        }
        assert_eq!(all, text);
        drop(outbox);
        assert_eq!(read(&mut lines).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_unread_is_bounded_over_all_streams_and_keeps_no_sign_of_life_back() {
        let room = Places::new(10, 6);
        let open = |node: &str| Outbox::new(node.to_owned(), Arc::clone(&room));
        let (one, mut lines) = open("a");
        assert!(one.put(vec![b'x'; 6]).await.is_ok());
        let (another, _read) = open("a");
        assert!(another.put(vec![b'x']).await.is_err(), "another stream of the same node");
        let (other, mut of_other) = open("b");
        assert!(other.put(vec![b'x'; 5]).await.is_err(), "more than is left of all");
        assert!(other.put(vec![b'x'; 4]).await.is_ok());
        read(&mut of_other).await.unwrap().unwrap();
        let (third, mut of_third) = open("c");
        let full = room.enter_with("d", 4).unwrap();
        assert!(third.put(b"x".to_vec()).await.is_err(), "full");
        assert!(third.put_short(b"{}\n".to_vec()).await.is_ok());
        assert_eq!(read(&mut of_third).await.unwrap().unwrap(), "{}\n");
        drop(full);
        read(&mut lines).await.unwrap().unwrap();
        assert!(another.put(vec![b'x'; 6]).await.is_ok(), "read");
        let (long, _read) = open("e");
        assert!(long.put(vec![b'x'; 4]).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_of_a_node_may_wait_however_long_it_is() {
        let room = Places::new(10, 3);
        let (one, _read) = Outbox::new("a".to_owned(), Arc::clone(&room));
        assert!(one.put(vec![b'x'; 8]).await.is_ok());
        let (another, _read) = Outbox::new("a".to_owned(), Arc::clone(&room));
        assert!(another.put(vec![b'x']).await.is_err());
        let (other, _read) = Outbox::new("b".to_owned(), room);
        assert!(other.put(vec![b'x'; 3]).await.is_err(), "more than is left of all");
    }
}
