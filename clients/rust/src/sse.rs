//! Server-sent events (WHATWG HTML §9.2.6), read within bounds, however the stream is cut.

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `event`: its type; empty where none is named.
    pub kind: String,
    /// `id`: the cursor with which a broken stream is resumed.
    pub id: Option<String>,
    /// `data`, its lines joined.
    pub data: String,
    /// `retry`, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// An event is larger than it may be.
    #[error("an event is too large")]
    TooLarge,
    /// An event is not UTF-8.
    #[error("an event is not UTF-8")]
    NotText,
}

/// Reads a stream of events piece by piece.
#[derive(Debug)]
pub struct Reader {
    max_event_bytes: usize,
    line: Vec<u8>,
    event: Event,
    /// Bytes of the event that is being read.
    event_bytes: usize,
    has_data: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
}

impl Reader {
    /// A reader of events of at most this size.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            event: Event::default(),
            event_bytes: 0,
            has_data: false,
            after_return: false,
        }
    }

    /// Takes in a piece and gives back the events that it completes. One without `data` counts too if it has an `id`
    /// or `retry`: resumption needs them.
    ///
    /// # Errors
    /// [`Unreadable`]; nothing more can be read then.
    pub fn take_in(&mut self, piece: &[u8]) -> Result<Vec<Event>, Unreadable> {
        let mut complete = Vec::new();
        for &byte in piece {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => complete.extend(self.end_line()?),
                _ => {
                    self.event_bytes += 1;
                    if self.event_bytes > self.max_event_bytes {
                        return Err(Unreadable::TooLarge);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self) -> Result<Option<Event>, Unreadable> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| Unreadable::NotText)?;
        if line.is_empty() {
            self.event_bytes = 0;
            let event = std::mem::take(&mut self.event);
            let whole = std::mem::take(&mut self.has_data) || event.id.is_some() || event.retry_ms.is_some();
            return Ok(whole.then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // It goes back in a header: what cannot stand there is of no use.
            "id" if is_cursor(value) => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry_ms = value.parse().ok();
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Whether an event id can be a cursor: visible ASCII of bounded length.
pub fn is_cursor(id: &str) -> bool {
    (1..=MAX_CURSOR_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

const MAX_CURSOR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut_and_its_lines_ended() {
        let text = ": alive\n\nid: 7\ndata:\n\nevent: message\ndata: {\"a\":\ndata: 1}\nid: 8\n\nevent: nothing\n\n\
            retry: 20\n\ndata: cut";
        let event = |kind: &str, id: Option<&str>, data: &str, retry_ms| Event {
            kind: kind.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
            retry_ms,
        };
        let expected = vec![
            event("", Some("7"), "", None),
            event("message", Some("8"), "{\"a\":\n1}", None),
            event("", None, "", Some(20)),
        ];
        for ending in ["\n", "\r\n", "\r"] {
            for size in [1, 3, 7, 1000] {
                let mut reader = Reader::new(100);
                let stream = text.replace('\n', ending);
                let read: Vec<_> =
                    stream.as_bytes().chunks(size).flat_map(|piece| reader.take_in(piece).unwrap()).collect();
                assert_eq!(read, expected, "{ending:?} {size}");
            }
        }
    }

    #[test]
    fn an_event_that_does_not_end_is_refused_and_so_is_a_cursor_that_breaks_lines() {
        let mut reader = Reader::new(12);
        assert!(reader.take_in(b"data: 12345\n\ndata: 12345\n\n").is_ok(), "the bound is on one event");
        assert_eq!(reader.take_in(b"data: 1234567"), Err(Unreadable::TooLarge));
        assert_eq!(Reader::new(12).take_in(b"data: \xff\n"), Err(Unreadable::NotText));
        assert_eq!(Reader::new(100).take_in(b"id: a b\n\nretry: +1\n\n"), Ok(Vec::new()));
        assert!(!is_cursor("") && !is_cursor("a\u{0}") && !is_cursor(&"x".repeat(513)) && is_cursor("a/1_2"));
    }
}
