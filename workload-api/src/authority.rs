//! Repairs the `:authority` of requests before HTTP/2 sees it.
//!
//! A Unix socket has no host, so clients of gRPC put other things there: C-core (Python, C++, Ruby) and Java the path
//! of the socket, percent-encoded or not. RFC 9113 §8.3.1 lets a server refuse those, and h2 does; but every client is
//! to reach the Workload API.

mod frames;
mod hpack;
mod huffman;
mod static_table;

use bytes::BytesMut;
use frames::Repair;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose requests have an authority that HTTP/2 takes. Everything else goes through as it is.
pub(crate) struct Repaired<S> {
    stream: S,
    repair: Repair,
    /// What was read and repaired, and is not yet handed on.
    ready: BytesMut,
    has_ended: bool,
}

impl<S> Repaired<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, repair: Repair::new(), ready: BytesMut::new(), has_ended: false }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready.split_to(length));
        if self.ready.is_empty() {
            // An idle connection holds no memory for what has passed.
            self.ready = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Repaired<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.has_ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            if this.repair.is_through() {
                return Poll::Ready(Ok(()));
            }
            match buffer.filled().get(before..).unwrap_or_default() {
                [] => {
                    this.has_ended = true;
                    this.repair.finish(&mut this.ready);
                }
                read => this.repair.feed(read, &mut this.ready),
            }
            buffer.set_filled(before);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Repaired<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests;
