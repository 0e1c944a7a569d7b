//! A connection that carries only what the process that opened it says.

use crate::peer::Peer;
use nix::{
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};

/// An accepted connection of which every byte read was written by the process that connected, and which ends with it.
///
/// A descriptor can be inherited and handed on: without this a child or any other process could go on in the name of
/// who connected. The kernel notes the sender of each piece (SCM_CREDENTIALS, unix(7)) and never joins pieces of
/// different senders. Descriptors that are sent along are not taken: they end the connection.
#[derive(Debug)]
pub struct PeerStream {
    stream: UnixStream,
    peer: Arc<Peer>,
    /// Where the kernel writes the sender: as large as that, so that no descriptor has room.
    control: Vec<u8>,
}

impl PeerStream {
    /// Reads and writes this connection as its peer's. The listener has been through
    /// [`crate::peer::demand_credentials`], or else early bytes have no sender and are refused.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn new(stream: UnixStream, peer: Arc<Peer>) -> io::Result<Self> {
        setsockopt(&stream, sockopt::PassCred, &true)?;
        Ok(Self { stream, peer, control: nix::cmsg_space!(UnixCredentials) })
    }

    /// Who connected.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            // Wakes the reader when the process ends, even while a child holds the connection open.
            if this.peer.poll_gone(context).is_ready() {
                return Poll::Ready(Err(gone()));
            }
            ready!(this.stream.poll_read_ready(context))?;
            let (stream, control) = (&this.stream, &mut this.control);
            let room = into.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(stream, control, room)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Received { bytes: 0, .. }) => return Poll::Ready(Ok(())),
                Ok(Received { bytes, sender }) => {
                    // The number is the connector's only while that one lives: so it is asked after the reading.
                    if sender != Some(this.peer.pid()) {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::PermissionDenied,
                            OTHER_SENDER,
                        )));
                    }
                    if this.peer.is_gone() {
                        return Poll::Ready(Err(gone()));
                    }
                    into.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.peer.is_gone() {
            return Poll::Ready(Err(gone()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.peer.is_gone() {
            return Poll::Ready(Err(gone()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

struct Received {
    bytes: usize,
    /// The process that wrote them, unless the kernel does not say.
    sender: Option<i32>,
}

fn receive(stream: &UnixStream, control: &mut [u8], room: &mut [u8]) -> io::Result<Received> {
    let mut slices = [IoSliceMut::new(room)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut *control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    // Descriptors had no room beside the sender: the kernel has closed them and says that something was cut.
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, DESCRIPTORS));
    }
    let mut notes = message.cmsgs()?;
    let sender = notes.find_map(|note| match note {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    Ok(Received { bytes: message.bytes, sender })
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the process that connected is gone")
}

const OTHER_SENDER: &str = "another process than the one that connected wrote to the connection";
const DESCRIPTORS: &str = "descriptors were sent along";

#[cfg(test)]
mod tests;
