//! Frames of HTTP/2 as clients write them that are not made of the same parts as the server.

use crate::client::{next, open_with_entry};
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

pub const HEADERS: u8 = 1;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;

/// A connection on which every byte is the test's.
pub struct Raw(pub UnixStream);

impl Raw {
    pub async fn connect(path: &Path) -> Self {
        let mut raw = Self(UnixStream::connect(path).await.unwrap());
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.frame(SETTINGS, 0, 0, &[]).await.unwrap();
        raw
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await
    }

    /// An empty message of gRPC, and the end.
    pub async fn message(&mut self, stream: u32) {
        self.frame(DATA, END_STREAM, stream, &[0; 5]).await.unwrap();
    }

    /// Reads frames until one of this kind on this stream: its payload. `None` if the server ends the connection
    /// before, or the stream (RST_STREAM) or everything (GOAWAY).
    pub async fn until(&mut self, kind: u8, stream: u32) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                found if found == kind && of == stream => return Some(payload),
                3 | 7 => return None,
                _ => {}
            }
        }
    }

    /// Waits until the server has ended the connection, which must be soon.
    pub async fn ends(&mut self) {
        let mut bytes = Vec::new();
        let rest = self.0.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(20), rest).await.expect("the connection goes on");
    }

    pub async fn data(&mut self, stream: u32) -> Option<Vec<u8>> {
        self.until(DATA, stream).await
    }
}

/// A literal with its name, put into the table (RFC 7541 §6.2.1) or not (§6.2.2).
pub fn literal(name: &str, value: &str, is_indexed: bool) -> Vec<u8> {
    let mut field = vec![if is_indexed { 0x40 } else { 0 }];
    for text in [name, value] {
        match u8::try_from(text.len()).unwrap() {
            length @ 0..127 => field.push(length),
            length => field.extend([127, length - 127]),
        }
        field.extend(text.bytes());
    }
    field
}

/// The headers of a call as gRPC C-core orders them, everything put into the table.
pub fn call(authority: &str) -> Vec<u8> {
    let fields = [
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("user-agent", "grpc-python/1.66.1 grpc-c/43.0.0 (linux; chttp2)"),
        ("workload.spiffe.io", "true"),
    ];
    // :scheme http and :method POST, of the static table.
    let mut block = vec![0x86, 0x83];
    block.extend(fields.iter().flat_map(|(name, value)| literal(name, value, true)));
    block
}

/// The same headers again, all of them from the table: the youngest has index 62.
pub fn same_call() -> Vec<u8> {
    let mut block = vec![0x86, 0x83];
    block.extend((62..=68).rev().map(|index| 0x80 | index));
    block
}

#[tokio::test]
async fn c_core_is_served() {
    let door = open_with_entry();
    let path = door.path.to_str().unwrap().to_owned();
    for authority in
        [path.replace('/', "%2F"), path.clone(), format!("unix:{path}"), String::new(), "localhost".into()]
    {
        let mut raw = Raw::connect(&door.path).await;
        raw.frame(HEADERS, END_HEADERS, 1, &call(&authority)).await.unwrap();
        raw.message(1).await;
        let message = raw.data(1).await.unwrap();
        let holds = |text: &str| message.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("spiffe://example.org/web") && holds("key 1"), "{authority}");
        // The second call says the same in nine bytes: the tables of both sides are still one.
        raw.frame(HEADERS, END_HEADERS, 3, &same_call()).await.unwrap();
        raw.message(3).await;
        assert_eq!(raw.data(3).await.unwrap(), message, "{authority}");
    }
}

#[tokio::test]
async fn headers_may_be_split_anywhere() {
    let door = open_with_entry();
    let block = call("%2Frun%2Fapi.sock");
    for size in [1, 2, 7, 100] {
        let mut raw = Raw::connect(&door.path).await;
        let mut pieces: Vec<&[u8]> = block.chunks(size).collect();
        let last = pieces.pop().unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            raw.frame(if number == 0 { HEADERS } else { CONTINUATION }, 0, 1, piece).await.unwrap();
        }
        raw.frame(CONTINUATION, END_HEADERS, 1, last).await.unwrap();
        raw.message(1).await;
        assert!(raw.data(1).await.is_some(), "{size}");
    }
}

#[tokio::test]
async fn headers_of_a_mebibyte_end_the_connection_and_nothing_else() {
    let door = open_with_entry();
    for authority in ["localhost", "%2Frun%2Fapi.sock"] {
        let mut raw = Raw::connect(&door.path).await;
        let mut is_sent = raw.frame(HEADERS, 0, 1, &call(authority)).await.is_ok();
        // Fields of 16 KiB each.
        let mut field = vec![0, 6];
        field.extend(b"x-long");
        field.extend([127, 0x81, 0x7e]);
        field.resize(16_384, b'v');
        for _ in 0..64 {
            is_sent = is_sent && raw.frame(CONTINUATION, 0, 1, &field).await.is_ok();
        }
        if is_sent {
            let _ = raw.frame(CONTINUATION, END_HEADERS, 1, &[]).await;
        }
        assert_eq!(raw.data(1).await, None);
        next(&mut door.x509().await).await.unwrap();
    }
    assert_eq!(door.source.made(), 1);
}

#[tokio::test]
async fn what_is_not_http2_is_ended() {
    let door = open_with_entry();
    let mut first = UnixStream::connect(&door.path).await.unwrap();
    first
        .write_all(b"POST /SpiffeWorkloadAPI/FetchX509SVID HTTP/1.1\r\nworkload.spiffe.io: true\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // The end, or a reset: no answer of HTTP/1.
    let _ = first.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1"));
    // A block that is none ends it too.
    let mut raw = Raw::connect(&door.path).await;
    raw.frame(HEADERS, END_HEADERS, 1, &[0x80]).await.unwrap();
    assert_eq!(raw.data(1).await, None);
    next(&mut door.x509().await).await.unwrap();
}
