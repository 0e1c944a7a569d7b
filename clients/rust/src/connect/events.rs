//! Server-sent events (WHATWG HTML §9.2), read within bounds.

use super::failure::Failure;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `id`: where a broken stream can be resumed.
    pub(super) id: Option<String>,
    /// `data`, its lines joined.
    pub(super) data: String,
    /// `retry`, in milliseconds.
    pub(super) retry_ms: Option<u64>,
}

/// Takes in a stream of events, however it is cut.
#[derive(Debug)]
pub(super) struct Reader {
    max_event_bytes: usize,
    line: Vec<u8>,
    event: Event,
    event_bytes: usize,
    has_data: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    returned: bool,
}

impl Reader {
    /// A reader of events of at most this size.
    pub(super) fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            event: Event::default(),
            event_bytes: 0,
            has_data: false,
            returned: false,
        }
    }

    /// Takes in a piece and gives back the events that it completes.
    pub(super) fn take_in(&mut self, piece: &[u8]) -> Result<Vec<Event>, Failure> {
        let mut complete = Vec::new();
        for byte in piece {
            let returned = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if returned => {}
                b'\n' | b'\r' => complete.extend(self.end_line()?),
                other => {
                    self.event_bytes += 1;
                    if self.event_bytes > self.max_event_bytes {
                        return Err(Failure::Broken("its answer is too large"));
                    }
                    self.line.push(*other);
                }
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self) -> Result<Option<Event>, Failure> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| Failure::Broken("its events are not UTF-8"))?;
        if line.is_empty() {
            self.event_bytes = 0;
            self.has_data = false;
            let event = std::mem::take(&mut self.event);
            return Ok((event != Event::default()).then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // It goes back in a header: what cannot stand there is no use.
            "id" if is_cursor(value) => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry_ms = value.parse().ok(),
            _ => {}
        }
        Ok(None)
    }
}

fn is_cursor(id: &str) -> bool {
    (1..=MAX_CURSOR_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

const MAX_CURSOR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let text = ": alive\n\nid: 7\ndata:\n\nevent: message\ndata: {\"a\":\ndata: 1}\nid: 8\n\nretry: 20\n\ndata: cut";
        let event = |id: Option<&str>, data: &str, retry_ms| Event {
            id: id.map(str::to_owned),
            data: data.to_owned(),
            retry_ms,
        };
        let expected = vec![
            event(Some("7"), "", None),
            event(Some("8"), "{\"a\":\n1}", None),
            event(None, "", Some(20)),
        ];
        for ending in ["\n", "\r\n", "\r"] {
            for size in [1, 3, 1000] {
                let mut reader = Reader::new(100);
                let stream = text.replace('\n', ending);
                let read: Vec<_> =
                    stream.as_bytes().chunks(size).flat_map(|piece| reader.take_in(piece).unwrap()).collect();
                assert_eq!(read, expected, "{ending:?} {size}");
            }
        }
    }

    #[test]
    fn an_event_that_does_not_end_is_refused() {
        let mut reader = Reader::new(12);
        reader.take_in(b"data: 12345\n\ndata: 12345\n\n").unwrap();
        assert!(reader.take_in(b"data: 1234567").is_err());
        assert!(Reader::new(12).take_in(b"data: \xff\n").is_err());
        assert_eq!(Reader::new(100).take_in(b"id: a b\n\n").unwrap(), [], "it could not be sent back");
    }
}
