//! Reads `text/event-stream` (HTML, "Server-sent events") as it comes, within a bound.

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// `event`.
    pub(super) event: String,
    /// `data`, its lines joined.
    pub(super) data: String,
}

/// A message is longer than it may be, or not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What came and was not yet a whole message.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    /// Where to go on looking for the end of a line.
    looked: usize,
    message: Option<Message>,
}

impl Reader {
    /// Takes what came.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Result<(), Unreadable> {
        let held = self.message.as_ref().map_or(0, |message| message.data.len());
        if held + self.bytes.len() + chunk.len() > MAX_MESSAGE_BYTES {
            return Err(Unreadable);
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole message, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Unreadable> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if let Some(message) = self.message.take() {
                    return Ok(Some(message));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            let empty = Message { event: String::new(), data: String::new() };
            match field {
                "event" => value.clone_into(&mut self.message.get_or_insert(empty).event),
                "data" => {
                    let data = &mut self.message.get_or_insert(empty).data;
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                // Comments, and fields that we have no use for.
                _ => {}
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<String>, Unreadable> {
        let rest = self.bytes.get(self.looked..).unwrap_or_default();
        let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
            self.looked = self.bytes.len();
            return Ok(None);
        };
        let mut line: Vec<u8> = self.bytes.drain(..self.looked + at + 1).collect();
        self.looked = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map(Some).map_err(|_| Unreadable)
    }
}

/// The largest snapshot, its quotes escaped.
const MAX_MESSAGE_BYTES: usize = 40 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Message> {
        let mut reader = Reader::default();
        let mut messages = Vec::new();
        for chunk in chunks {
            reader.feed(chunk).unwrap();
            while let Some(message) = reader.next().unwrap() {
                messages.push(message);
            }
        }
        messages
    }

    fn message(event: &str, data: &str) -> Message {
        Message { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let text = b"event: snapshot\ndata: {\"a\":1}\n\n: a comment\r\nid: 7\r\nevent: alive\r\ndata: {}\r\n\r\nevent: x\ndata: 1\ndata: 2\n\nevent: unfinished\n";
        let expected = [message("snapshot", "{\"a\":1}"), message("alive", "{}"), message("x", "1\n2")];
        assert_eq!(read(&[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_not_read() {
        let mut reader = Reader::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..100).find(|_| reader.feed(&chunk).is_err());
        assert_eq!(refused, Some(MAX_MESSAGE_BYTES / chunk.len()));
        let mut reader = Reader::default();
        reader.feed(b"data: \xff\n").unwrap();
        assert_eq!(reader.next(), Err(Unreadable));
    }
}
