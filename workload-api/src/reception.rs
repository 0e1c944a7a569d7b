//! Who takes a connection in and says what is at its other end.

use async_trait::async_trait;
use deputize_issuer::workload::Workload;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::{
    attest::Attestor,
    peer::{NotAttested, Peer},
    peer_stream::PeerStream,
};

/// Looks at connections as they come.
pub trait Reception: Send + Sync + 'static {
    /// Takes a connection in.
    ///
    /// # Errors
    /// [`NotAttested`] if the kernel does not say who connected.
    fn receive(&self, stream: UnixStream) -> Result<Guest, NotAttested>;
}

/// A connection with the process that made it.
pub struct Guest {
    /// Who connected.
    pub process: Arc<dyn Process>,
    /// What it sends, and nobody else.
    pub stream: Box<dyn Stream>,
}

/// The process at the other end of a connection.
#[async_trait]
pub trait Process: Send + Sync + 'static {
    /// Its user, as the host counts: what rates and shares are kept by.
    fn user(&self) -> u32;

    /// What is true of it now.
    ///
    /// # Errors
    /// [`NotAttested`].
    async fn attest(&self) -> Result<Workload, NotAttested>;

    /// Waits until it has ended.
    async fn gone(&self);
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Asks the kernel.
pub struct Doorkeeper(Arc<Attestor>);

impl Doorkeeper {
    /// Has this attestor look at whoever connects.
    pub fn new(attestor: Attestor) -> Self {
        Self(Arc::new(attestor))
    }
}

impl Reception for Doorkeeper {
    fn receive(&self, stream: UnixStream) -> Result<Guest, NotAttested> {
        let peer = Arc::new(Peer::of(&stream)?);
        let stream = PeerStream::new(stream, Arc::clone(&peer))
            .map_err(|_| NotAttested::Unreadable("the kernel does not say who sends"))?;
        let process = Arc::new(Visitor { peer, attestor: Arc::clone(&self.0) });
        Ok(Guest { process, stream: Box::new(stream) })
    }
}

/// A process of this machine.
struct Visitor {
    peer: Arc<Peer>,
    attestor: Arc<Attestor>,
}

#[async_trait]
impl Process for Visitor {
    fn user(&self) -> u32 {
        self.peer.uid()
    }

    async fn attest(&self) -> Result<Workload, NotAttested> {
        self.attestor.attest(&self.peer).await
    }

    async fn gone(&self) {
        self.peer.gone().await;
    }
}
