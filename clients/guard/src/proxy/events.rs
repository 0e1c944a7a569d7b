//! Events for the caller (WHATWG HTML §9.2): those of the server, written anew.

use deputize_client::sse::Event;

/// The event as it goes over the wire. Its data is one line: JSON as the guard writes it.
pub(super) fn to_bytes(event: &Event) -> Vec<u8> {
    let mut text = String::with_capacity(event.data.len() + 64);
    if let Some(id) = &event.id {
        text.push_str(&format!("id: {id}\n"));
    }
    if let Some(retry_ms) = event.retry_ms {
        text.push_str(&format!("retry: {retry_ms}\n"));
    }
    for line in event.data.lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    if event.data.is_empty() {
        text.push_str("data:\n");
    }
    text.push('\n');
    text.into_bytes()
}

/// Says that the stream is alive; it is no event.
pub(super) const KEEP_ALIVE: &[u8] = b": alive\n\n";

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_client::sse::Reader;

    #[test]
    fn what_is_written_is_read_back() {
        for data in ["", "{}", "{\"text\":\"é\"}"] {
            let event =
                Event { id: Some("7".into()), data: data.into(), retry_ms: Some(3), ..Event::default() };
            assert_eq!(Reader::new(100).take_in(&to_bytes(&event)).unwrap(), [event]);
        }
        assert_eq!(Reader::new(100).take_in(KEEP_ALIVE).unwrap(), []);
    }
}
