//! HTTP/2 by hand (RFC 9113), for what no client library would send.

use std::path::Path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// What came back on a connection, until a message, the end of a stream or the end of the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// A message.
    Message,
    /// A stream's end without one, or of the connection.
    End,
}

/// The opening of a connection, and a request for the X.509-SVIDs of whoever sends it, its header block in frames of
/// so many bytes: HEADERS, then CONTINUATION (§6.10).
pub fn request(block: &[u8], frame_bytes: usize) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let parts: Vec<_> = block.chunks(frame_bytes).collect();
    for (number, part) in parts.iter().enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let flags = if number + 1 == parts.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags, 1, part));
    }
    bytes.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
    bytes
}

/// The header block of that request, and these headers besides (RFC 7541 §6.2.2: literals, nothing compressed).
pub fn block(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("workload.spiffe.io", "true"),
    ];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.extend(length(text.len()));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Sends this and looks at what comes back.
pub async fn send(socket: &Path, bytes: &[u8]) -> Came {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // Whoever is closed upon may be writing still.
    let _ = stream.write_all(bytes).await;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Came::End;
        }
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return Came::End;
        }
        match kind {
            DATA if !payload.is_empty() => return Came::Message,
            HEADERS if flags & END_STREAM != 0 => return Came::End,
            RST_STREAM | GOAWAY => return Came::End,
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length.to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// RFC 7541 §5.1, with a prefix of seven bits and no Huffman code.
fn length(length: usize) -> Vec<u8> {
    let Some(mut rest) = length.checked_sub(127) else { return vec![length as u8] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
