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
    /// Whether it answers what the client asked: then nothing follows for that request.
    pub(super) answers: bool,
}

impl Outbox {
    /// A way, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Word>) {
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
        (Self(sender), receiver)
    }

    /// Says something beside the answer. To a client that is gone nothing can be said.
    pub(super) async fn say(&self, text: String) {
        let _ = self.0.send(Word { text, answers: false }).await;
    }

    /// Says the answer.
    pub(super) async fn answer(&self, text: String) {
        let _ = self.0.send(Word { text, answers: true }).await;
    }

    /// Returns once the client is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

const WAITING_MESSAGES: usize = 64;
