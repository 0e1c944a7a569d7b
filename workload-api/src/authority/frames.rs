//! The frames of HTTP/2 as they come in, and the `:authority` of the requests in them.

use super::hpack::{self, Decoder, Field};
use bytes::{BufMut, Bytes, BytesMut};

/// Follows what a client sends, and repairs it.
///
/// INVARIANT: what comes out is, byte for byte, what went in, up to the first request whose authority needs a repair.
/// From then on each block of headers is written anew, field by field in the same order, without any table: the next
/// reader's table no longer changes, so it cannot come to differ from the sender's.
pub(super) struct Repair {
    at: At,
    decoder: Decoder,
    rewrites: bool,
}

/// Where in the stream of frames we are.
enum At {
    /// Within the connection preface (RFC 9113 §3.4), after so many bytes of it.
    Preface(usize),
    /// Within the head of a frame (RFC 9113 §4.1).
    Head(Vec<u8>),
    /// Within a frame that is none of ours, before so many bytes of it.
    Frame(usize),
    /// Within a block of headers.
    Block(Block),
    /// Nothing is looked at any more: the next reader finds what is wrong.
    Through,
}

/// A HEADERS frame with its CONTINUATION frames (RFC 9113 §6.2, §6.10), as far as they have come.
struct Block {
    raw: Vec<u8>,
    /// Where the last frame begins.
    frame_at: usize,
    /// How many bytes there must be before there is something to decide.
    due: usize,
}

impl Repair {
    pub(super) fn new() -> Self {
        Self { at: At::Preface(0), decoder: Decoder::new(), rewrites: false }
    }

    /// Whether everything goes through unseen from now on.
    pub(super) fn is_through(&self) -> bool {
        matches!(self.at, At::Through)
    }

    /// Takes what came in; puts out what the next reader gets.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut BytesMut) {
        while !input.is_empty() {
            input = self.step(input, out);
        }
    }

    /// Nothing more comes in: puts out what was kept back.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        match std::mem::replace(&mut self.at, At::Through) {
            At::Head(head) => out.extend_from_slice(&head),
            At::Block(block) => out.extend_from_slice(&block.raw),
            At::Preface(_) | At::Frame(_) | At::Through => {}
        }
    }

    fn step<'i>(&mut self, input: &'i [u8], out: &mut BytesMut) -> &'i [u8] {
        match std::mem::replace(&mut self.at, At::Through) {
            At::Through => {
                out.extend_from_slice(input);
                &[]
            }
            At::Preface(seen) => {
                let expected = PREFACE.get(seen..).unwrap_or_default();
                let (here, rest) = split(input, expected.len());
                out.extend_from_slice(here);
                if expected.starts_with(here) {
                    let is_whole = here.len() == expected.len();
                    self.at = if is_whole { At::Head(Vec::new()) } else { At::Preface(seen + here.len()) };
                }
                rest
            }
            At::Head(mut head) => {
                let (here, rest) = split(input, HEAD_BYTES - head.len());
                head.extend_from_slice(here);
                self.at = match head.first_chunk().map(Head::read) {
                    None => At::Head(head),
                    Some(read) => self.begin(&read, head, out),
                };
                rest
            }
            At::Frame(left) => {
                let (here, rest) = split(input, left);
                out.extend_from_slice(here);
                let left = left - here.len();
                self.at = if left == 0 { At::Head(Vec::new()) } else { At::Frame(left) };
                rest
            }
            At::Block(mut block) => {
                let (here, rest) = split(input, block.due - block.raw.len());
                block.raw.extend_from_slice(here);
                self.at = self.advance(block, out);
                rest
            }
        }
    }

    /// What follows the head of a frame.
    fn begin(&mut self, head: &Head, raw: Vec<u8>, out: &mut BytesMut) -> At {
        if head.kind == HEADERS && head.length <= MAX_FRAME_BYTES {
            return self.advance(Block { due: HEAD_BYTES + head.length, raw, frame_at: 0 }, out);
        }
        out.extend_from_slice(&raw);
        match head.length {
            _ if head.kind == HEADERS => At::Through,
            0 => At::Head(Vec::new()),
            left => At::Frame(left),
        }
    }

    /// Decides what there is to decide about a block.
    fn advance(&mut self, mut block: Block, out: &mut BytesMut) -> At {
        while block.raw.len() == block.due {
            match block.next() {
                Next::Wait => {}
                Next::Broken => return self.give_up(&block.raw, out),
                Next::Whole => return self.hand_over(&block.raw, out),
            }
        }
        At::Block(block)
    }

    fn hand_over(&mut self, raw: &[u8], out: &mut BytesMut) -> At {
        let request = Request::read(raw);
        let fields = request.as_ref().and_then(|request| self.decoder.decode(&request.block, MAX_LIST_BYTES));
        let (Some(request), Some(mut fields)) = (request, fields) else { return self.give_up(raw, out) };
        let is_repaired = repair(&mut fields);
        if is_repaired || self.rewrites {
            self.rewrites = true;
            request.write(&hpack::encode(&fields), out);
        } else {
            out.extend_from_slice(raw);
        }
        At::Head(Vec::new())
    }

    /// The next reader finds what is wrong with it. Where its table is no longer the sender's, it might find something
    /// else instead, so it gets what nobody can read: the index 0 (RFC 7541 §6.1).
    fn give_up(&self, raw: &[u8], out: &mut BytesMut) -> At {
        match raw.first_chunk().map(Head::read) {
            Some(head) if self.rewrites => {
                Head { length: UNREADABLE.len(), flags: END_HEADERS, ..head }.write(out);
                out.extend_from_slice(UNREADABLE);
            }
            Some(_) | None => out.extend_from_slice(raw),
        }
        At::Through
    }
}

/// Puts a name that every reader takes in place of an authority that none may (RFC 9113 §8.3.1: it has no use here,
/// for a socket has no host). Clients send the path of the socket, percent-encoded or not, or nothing.
fn repair(fields: &mut [Field]) -> bool {
    let mut is_repaired = false;
    for field in fields.iter_mut().filter(|field| field.name == ":authority") {
        if http::uri::Authority::try_from(field.value.as_ref()).is_err() {
            field.value = Bytes::from_static(AUTHORITY.as_bytes());
            is_repaired = true;
        }
    }
    is_repaired
}

enum Next {
    Wait,
    Whole,
    Broken,
}

impl Block {
    /// What is due next, now that everything is here that was.
    fn next(&mut self) -> Next {
        let frame = self.raw.get(self.frame_at..).unwrap_or_default();
        let Some(head) = frame.first_chunk().map(Head::read) else { return Next::Broken };
        let end = self.frame_at + HEAD_BYTES + head.length;
        if self.frame_at > 0 && frame.len() == HEAD_BYTES {
            // Nothing but CONTINUATION may follow here, of no other stream.
            let stream = self.raw.first_chunk().map(|first| Head::read(first).stream);
            let is_next = head.kind == CONTINUATION && Some(head.stream) == stream;
            if !is_next || head.length > MAX_FRAME_BYTES || end > MAX_BLOCK_BYTES {
                return Next::Broken;
            }
        }
        if self.raw.len() < end {
            self.due = end;
            return Next::Wait;
        }
        if head.flags & END_HEADERS != 0 {
            return Next::Whole;
        }
        if end + HEAD_BYTES > MAX_BLOCK_BYTES {
            return Next::Broken;
        }
        self.frame_at = end;
        self.due = end + HEAD_BYTES;
        Next::Wait
    }
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn read(&[l1, l2, l3, kind, flags, s1, s2, s3, s4]: &[u8; HEAD_BYTES]) -> Self {
        let length = usize::from(l1) << 16 | usize::from(l2) << 8 | usize::from(l3);
        // RFC 9113 §4.1: the highest bit of the stream is reserved, and ignored.
        Self { length, kind, flags, stream: [s1 & 0x7f, s2, s3, s4] }
    }

    fn write(&self, out: &mut BytesMut) {
        let [.., l1, l2, l3] = self.length.to_be_bytes();
        out.put_slice(&[l1, l2, l3, self.kind, self.flags]);
        out.put_slice(&self.stream);
    }
}

/// What a whole block says.
struct Request {
    head: Head,
    /// The deprecated priority fields (RFC 9113 §6.2), as they came.
    priority: Vec<u8>,
    block: Vec<u8>,
}

impl Request {
    fn read(raw: &[u8]) -> Option<Self> {
        let (head, mut payload, mut rest) = frame(raw)?;
        if head.flags & PADDED != 0 {
            let (padding, after) = payload.split_first()?;
            payload = after.get(..after.len().checked_sub(usize::from(*padding))?)?;
        }
        let priority_bytes = if head.flags & PRIORITY == 0 { 0 } else { 5 };
        let (priority, fragment) = payload.split_at_checked(priority_bytes)?;
        let (priority, mut block) = (priority.to_vec(), fragment.to_vec());
        while !rest.is_empty() {
            let (_, fragment, after) = frame(rest)?;
            block.extend_from_slice(fragment);
            rest = after;
        }
        Some(Self { head, priority, block })
    }

    /// The same frame with another block, split where it is too long for one.
    fn write(&self, block: &[u8], out: &mut BytesMut) {
        let (mut here, mut rest) = split(block, MAX_FRAME_BYTES - self.priority.len());
        let mut flags = self.head.flags & (END_STREAM | PRIORITY);
        let (mut kind, mut before) = (HEADERS, self.priority.as_slice());
        loop {
            flags |= if rest.is_empty() { END_HEADERS } else { 0 };
            Head { length: before.len() + here.len(), kind, flags, stream: self.head.stream }.write(out);
            out.put_slice(before);
            out.put_slice(here);
            if rest.is_empty() {
                return;
            }
            (kind, flags, before) = (CONTINUATION, 0, &[]);
            (here, rest) = split(rest, MAX_FRAME_BYTES);
        }
    }
}

/// The first frame of these bytes: head, payload, and what follows it.
fn frame(raw: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let (head, rest) = raw.split_first_chunk()?;
    let head = Head::read(head);
    let (payload, rest) = rest.split_at_checked(head.length)?;
    Some((head, payload, rest))
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What an authority becomes that is none.
pub(super) const AUTHORITY: &str = "localhost";
/// A block of headers that is none.
const UNREADABLE: &[u8] = &[0x80];
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2) as it is where nobody sets it: this server does not.
const MAX_FRAME_BYTES: usize = 16_384;
/// Of a block with its frames' heads: four times what the server takes as headers.
pub(super) const MAX_BLOCK_BYTES: usize = 64 * 1024;
const MAX_LIST_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
