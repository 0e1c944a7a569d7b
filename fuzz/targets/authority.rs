//! The repair of `:authority` in the byte stream of a connection, fed with whatever a client may send.
//!
//! What holds for every input: nothing panics, it does not matter in which pieces the input comes, and what was repaired
//! needs no second repair.
#![no_main]

// The module itself: it is the workload API's own, and nobody else's.
#[path = "../../workload-api/src"]
mod source {
    pub(crate) mod authority;
}

use libfuzzer_sys::fuzz_target;
use source::authority::Repaired;
use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, ReadBuf};

fuzz_target!(|input: &[u8]| {
    let [mode, piece, rest @ ..] = input else { return };
    let stream = match mode % 4 {
        0 => rest.to_vec(),
        1 => [PREFACE, rest].concat(),
        // As blocks of headers, whole or split, so that what is within them is reached at once.
        2 => in_frames(rest, usize::MAX),
        _ => in_frames(rest, 7),
    };
    let whole = repaired(&stream, usize::MAX);
    assert_eq!(repaired(&stream, usize::from(*piece).max(1)), whole, "pieces");
    assert_eq!(repaired(&whole, usize::MAX), whole, "a second repair");
});

/// What comes out of a connection on which this comes in, in pieces of so many bytes.
fn repaired(stream: &[u8], piece: usize) -> Vec<u8> {
    let mut connection = pin!(Repaired::new(Pieces { rest: stream, piece }));
    let mut context = Context::from_waker(Waker::noop());
    let mut out = Vec::new();
    loop {
        let mut buffer = [0; 509];
        let mut buffer = ReadBuf::new(&mut buffer);
        match connection.as_mut().poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return out,
            Poll::Ready(Ok(())) => out.extend_from_slice(buffer.filled()),
            other => panic!("{other:?}"),
        }
    }
}

/// Each part that ends with a zero byte is a block of headers, in frames of at most so many bytes.
fn in_frames(parts: &[u8], most: usize) -> Vec<u8> {
    let mut stream = PREFACE.to_vec();
    for (number, block) in parts.split(|byte| *byte == 0).enumerate() {
        let fragments: Vec<&[u8]> = block.chunks(most).collect();
        for (at, fragment) in fragments.iter().enumerate() {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let flags = if at + 1 == fragments.len() { END_HEADERS } else { 0 };
            stream.extend(&(fragment.len() as u32).to_be_bytes()[1..]);
            stream.extend([kind, flags]);
            stream.extend((2 * number as u32 + 1).to_be_bytes());
            stream.extend(*fragment);
        }
    }
    stream
}

/// A connection on which this comes in.
struct Pieces<'s> {
    rest: &'s [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (here, rest) = self.rest.split_at(self.piece.min(self.rest.len()).min(buffer.remaining()));
        buffer.put_slice(here);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
