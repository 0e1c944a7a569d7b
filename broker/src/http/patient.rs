//! How long a connection may do nothing, and how many one address may hold: before a request is parsed, nothing
//! else counts who is there.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A stream that fails when its first bytes dawdle, or when nothing moves either way for too long.
pub struct Patient<S> {
    stream: S,
    /// Bytes of the protocol's preface still to come.
    preface: usize,
    deadline: Pin<Box<Sleep>>,
    idle: Duration,
}

impl<S> Patient<S> {
    /// Watches a fresh connection, which may be idle for [`IDLE_TIMEOUT`].
    pub fn new(stream: S) -> Self {
        Self::with_idle(stream, IDLE_TIMEOUT)
    }

    /// Watches a fresh connection, which may be idle for this long.
    pub fn with_idle(stream: S, idle: Duration) -> Self {
        Self { stream, preface: PREFACE_BYTES, deadline: Box::pin(sleep(PREFACE_TIMEOUT)), idle }
    }

    /// Something moved: the clock starts anew, but during the preface, which has one deadline for all of it.
    fn moved(&mut self, read: usize) {
        let waiting = self.preface > 0;
        self.preface = self.preface.saturating_sub(read);
        if !waiting || self.preface == 0 {
            self.deadline.set(sleep(self.idle));
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.moved(buffer.filled().len().saturating_sub(before));
                Poll::Ready(result)
            }
            Poll::Pending if self.expired(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(result) => {
                self.moved(0);
                Poll::Ready(result)
            }
            Poll::Pending if self.expired(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending if self.expired(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending if self.expired(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }
}

/// Counts the open connections of each address.
#[derive(Clone)]
pub struct Sources {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One open connection of an address; dropped when it closes.
pub struct Entered {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Sources {
    /// Each address may hold this many.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), open: Arc::default() }
    }

    /// Counts one more; `None` if the address holds its share already.
    pub fn enter(&self, address: IpAddr) -> Option<Entered> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let held = open.entry(address).or_default();
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Entered { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = open.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// HTTP/2's preface; no HTTP/1 request is shorter.
const PREFACE_BYTES: usize = 24;
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing that this broker answers takes longer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_and_a_dripping_preface_too() {
        let (_silent, server) = duplex(64);
        assert_eq!(Patient::new(server).read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let (mut client, server) = duplex(64);
        let mut server = Patient::new(server);
        let dripping = tokio::spawn(async move {
            while client.write_all(b"P").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let started = Instant::now();
        let mut bytes = [0; PREFACE_BYTES];
        assert_eq!(server.read_exact(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() <= PREFACE_TIMEOUT + Duration::from_secs(1));
        drop(server);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_reads_is_left() {
        let (_deaf, server) = duplex(64);
        let mut server = Patient::new(server);
        server.preface = 0;
        assert_eq!(server.write_all(&[0; 128]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_address_holds_its_share_and_no_more() {
        let sources = Sources::new(2);
        let [a, b] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let first = sources.enter(a).unwrap();
        let _second = sources.enter(a).unwrap();
        assert!(sources.enter(a).is_none());
        assert!(sources.enter(b).is_some(), "another address has its own share");
        drop(first);
        assert!(sources.enter(a).is_some());
    }
}
