//! The way to the local client.

use tokio::sync::mpsc;

/// Messages for the local client, each on one line. Waits where the client does not read.
#[derive(Debug, Clone)]
pub(super) struct Outbox(mpsc::Sender<String>);

impl Outbox {
    /// A way, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
        (Self(sender), receiver)
    }

    /// Says it. To a client that is gone nothing can be said.
    pub(super) async fn say(&self, text: String) {
        let _ = self.0.send(text).await;
    }

    /// Returns once the client is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

const WAITING_MESSAGES: usize = 64;
