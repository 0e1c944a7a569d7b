//! The way to the local client.

use tokio::sync::mpsc;

/// Messages for the local client. Waits where the client does not read.
#[derive(Debug, Clone)]
pub(super) struct Outbox(mpsc::Sender<Word>);

/// One message.
#[derive(Debug)]
pub(super) struct Word {
    /// It, on one line.
    pub(super) text: String,
    /// The HTTP status with which it goes where it is the answer: then nothing follows for that request.
    pub(super) answers: Option<u16>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// It, on one line.
    pub(super) text: String,
    /// Its HTTP status.
    pub(super) status: u16,
}

impl Outbox {
    /// A way, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Word>) {
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
        (Self(sender), receiver)
    }

    /// Says something beside the answer. To a client that is gone nothing can be said.
    pub(super) async fn say(&self, text: String) {
        let _ = self.0.send(Word { text, answers: None }).await;
    }

    /// Says the answer.
    pub(super) async fn answer(&self, Reply { text, status }: Reply) {
        let _ = self.0.send(Word { text, answers: Some(status) }).await;
    }

    /// Returns once the client is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

const WAITING_MESSAGES: usize = 64;
