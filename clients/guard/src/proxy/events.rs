//! Server-sent events (WHATWG HTML §9.2), read within bounds and written anew.

use super::failure::Failure;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `id`: the cursor with which a broken stream is resumed.
    pub(super) id: Option<String>,
    /// `data`, its lines joined.
    pub(super) data: String,
    /// `retry`, in milliseconds.
    pub(super) retry_ms: Option<u64>,
}

/// Reads a stream of events piece by piece.
#[derive(Debug)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// Bytes of the event that is being read.
    size: usize,
    max_event_bytes: usize,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
}

impl Parser {
    /// Reads events of at most this size.
    pub(super) fn new(max_event_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            size: 0,
            max_event_bytes,
            after_return: false,
        }
    }

    /// Takes in a piece; gives back the events that are whole now.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, Failure> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ => {
                    self.size += 1;
                    if self.size > self.max_event_bytes {
                        return Err(Failure::TooLarge);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, Failure> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| Failure::Broken("events that are not UTF-8"))?;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let whole = std::mem::take(&mut self.has_data) || event != Event::default();
            self.size = 0;
            return Ok(whole.then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // An id with NUL is ignored; one that no header could carry back is of no use.
            "id" if is_cursor(value) => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry_ms = value.parse().ok();
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Event {
    /// The event as it goes over the wire. Its data is one line: JSON as the guard writes it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(self.data.len() + 64);
        if let Some(id) = &self.id {
            text.push_str(&format!("id: {id}\n"));
        }
        if let Some(retry_ms) = self.retry_ms {
            text.push_str(&format!("retry: {retry_ms}\n"));
        }
        for line in self.data.lines() {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        if self.data.is_empty() {
            text.push_str("data:\n");
        }
        text.push('\n');
        text.into_bytes()
    }
}

/// Whether an event id can be a cursor: visible ASCII of bounded length.
pub(super) fn is_cursor(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_CURSOR_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Says that the stream is alive; it is no event.
pub(super) const KEEP_ALIVE: &[u8] = b": alive\n\n";
const MAX_CURSOR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> Vec<Event> {
        let mut parser = Parser::new(1000);
        text.as_bytes().chunks(piece).flat_map(|piece| parser.push(piece).unwrap()).collect()
    }

    #[test]
    fn events_are_read_however_they_are_cut_and_ended() {
        let event = |id: Option<&str>, data: &str, retry_ms| Event {
            id: id.map(str::to_owned),
            data: data.to_owned(),
            retry_ms,
        };
        let text = ": hello\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":\ndata:1}\nid: 2\n\nretry: 500\n\ndata: cut";
        let expected = vec![
            event(Some("1"), "", None),
            event(Some("2"), "{\"a\":\n1}", None),
            event(None, "", Some(500)),
        ];
        for piece in [1, 2, 7, 1000] {
            assert_eq!(read(text, piece), expected);
            assert_eq!(read(&text.replace('\n', "\r\n"), piece), expected);
            assert_eq!(read(&text.replace('\n', "\r"), piece), expected);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for data in ["", "{}", "{\"text\":\"é\"}"] {
            let event = Event { id: Some("7".into()), data: data.into(), retry_ms: Some(3) };
            let bytes = event.to_bytes();
            assert_eq!(Parser::new(100).push(&bytes).unwrap(), [event]);
        }
        assert_eq!(Parser::new(100).push(KEEP_ALIVE).unwrap(), []);
    }

    #[test]
    fn an_event_without_end_is_refused_and_so_is_a_cursor_that_breaks_lines() {
        let mut parser = Parser::new(10);
        assert!(parser.push(b"data: 1\n\ndata: 2\n\n").is_ok(), "the bound is on one event");
        assert!(matches!(parser.push(b"data: 123456"), Err(Failure::TooLarge)));
        assert!(Parser::new(10).push(b"data: \xff\n").is_err());
        assert_eq!(read("id: a b\n\n", 100), []);
        assert!(!is_cursor("") && !is_cursor("a\u{0}") && !is_cursor(&"x".repeat(513)) && is_cursor("a/1_2"));
    }
}
