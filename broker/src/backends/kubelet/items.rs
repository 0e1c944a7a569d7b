//! The items of a list in JSON, one by one as they come, so that a large list is never held.
//!
//! It knows of JSON only where strings and brackets begin and end. What it takes out is read by a parser, and so is the
//! rest, in which `0` stands for each item: whatever is no JSON comes to light there.

use super::pods::NotPods;

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// The list without its items.
    frame: Vec<u8>,
    /// The item that is being read.
    item: Option<Item>,
    /// How many brackets are open.
    depth: usize,
    string: Text,
    /// The last string that stood in the list itself: the name of a member, where one begins. Its beginning alone.
    name: Vec<u8>,
    /// Whether `items` has begun, and not yet ended.
    is_in_items: bool,
    /// Those that are whole, and not taken yet.
    whole: Vec<Vec<u8>>,
    whole_bytes: usize,
    count: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

#[derive(Debug, Default)]
struct Item {
    text: Vec<u8>,
    is_too_large: bool,
}

impl Items {
    /// Reads on.
    ///
    /// # Errors
    /// [`NotPods`]: it is no JSON, or there is too much beside the items.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), NotPods> {
        bytes.iter().try_for_each(|byte| self.read(*byte))
    }

    /// The items that are whole by now. One that is larger than [`MAX_ITEM_BYTES`] is empty.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        self.whole_bytes = 0;
        std::mem::take(&mut self.whole)
    }

    /// How many bytes wait to be taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.whole_bytes
    }

    /// What is left of the list, and how many items it had.
    pub(super) fn into_frame(self) -> (Vec<u8>, usize) {
        (self.frame, self.count)
    }

    fn read(&mut self, byte: u8) -> Result<(), NotPods> {
        if self.string != Text::Outside {
            self.read_in_string(byte);
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.string = Text::Inside;
                if self.depth == LIST {
                    self.name.clear();
                }
                self.keep(byte)
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(byte),
            _ => self.keep(byte),
        }
    }

    fn read_in_string(&mut self, byte: u8) {
        self.string = match (&self.string, byte) {
            (Text::Escaped, _) => Text::Inside,
            (_, b'\\') => Text::Escaped,
            (_, b'"') => Text::Outside,
            _ => Text::Inside,
        };
        let is_name = self.depth == LIST && self.string != Text::Outside;
        if is_name && self.name.len() <= ITEMS.len() {
            self.name.push(byte);
        }
    }

    fn open(&mut self, byte: u8) -> Result<(), NotPods> {
        match self.depth {
            LIST => self.is_in_items = byte == b'[' && self.name == ITEMS,
            IN_ITEMS if self.is_in_items && byte == b'{' => {
                self.keep(b'0')?;
                self.item = Some(Item::default());
            }
            _ => {}
        }
        self.depth += 1;
        self.keep(byte)
    }

    fn close(&mut self, byte: u8) -> Result<(), NotPods> {
        self.keep(byte)?;
        self.depth = self.depth.checked_sub(1).ok_or(NotPods::Malformed)?;
        if self.depth == IN_ITEMS
            && let Some(Item { text, is_too_large }) = self.item.take()
        {
            let text = if is_too_large { Vec::new() } else { text };
            self.count += 1;
            self.whole_bytes += text.len();
            self.whole.push(text);
        }
        Ok(())
    }

    fn keep(&mut self, byte: u8) -> Result<(), NotPods> {
        match &mut self.item {
            Some(item) if item.is_too_large => Ok(()),
            Some(item) if item.text.len() == MAX_ITEM_BYTES => {
                *item = Item { text: Vec::new(), is_too_large: true };
                Ok(())
            }
            Some(item) => {
                item.text.push(byte);
                Ok(())
            }
            None if self.frame.len() == MAX_FRAME_BYTES => Err(NotPods::TooLarge),
            None => {
                self.frame.push(byte);
                Ok(())
            }
        }
    }
}

/// More than twice what Kubernetes stores of one object.
pub(super) const MAX_ITEM_BYTES: usize = 4 * 1024 * 1024;
const MAX_FRAME_BYTES: usize = 1024 * 1024;
const ITEMS: &[u8] = b"items";
/// So many brackets are open where members of the list stand.
const LIST: usize = 1;
/// So many where its items do.
const IN_ITEMS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// The items and the frame of this text, read in pieces of this size.
    fn read(text: &str, piece: usize) -> Option<(Vec<String>, String)> {
        let mut items = Items::default();
        text.as_bytes().chunks(piece).try_for_each(|piece| items.feed(piece)).ok()?;
        let found = items.take().into_iter().map(|item| String::from_utf8(item).unwrap()).collect();
        Some((found, String::from_utf8(items.into_frame().0).unwrap()))
    }

    #[test]
    fn items_are_taken_out_wherever_the_pieces_end() {
        for (text, items, frame) in [
            (
                r#"{"kind":"a\"[{","items":[{"a":"}]\\"}, {"b":[{"items":[{}]}]}],"x":[{}]}"#,
                vec![r#"{"a":"}]\\"}"#, r#"{"b":[{"items":[{}]}]}"#],
                r#"{"kind":"a\"[{","items":[0, 0],"x":[{}]}"#,
            ),
            (r#"{"items":{"items":[{}]}}"#, vec![], r#"{"items":{"items":[{}]}}"#),
            (r#"{"items1":[{}],"item":[{}]}"#, vec![], r#"{"items1":[{}],"item":[{}]}"#),
            (r#"{"items":["{}",[{}]]}"#, vec![], r#"{"items":["{}",[{}]]}"#),
            (r#"[[{}]]"#, vec![], r#"[[{}]]"#),
            (r#"{"items":[{"a":1]"#, vec![r#"{"a":1]"#], r#"{"items":[0"#),
        ] {
            for piece in [1, 2, 7, 1000] {
                let (found, left) = read(text, piece).unwrap();
                assert_eq!(
                    (found, left.as_str()),
                    (items.iter().map(|it| (*it).to_owned()).collect(), frame)
                );
            }
        }
        assert_eq!(read("]", 1), None);
    }

    #[test]
    fn what_is_too_large_is_not_held() {
        let large = format!(r#"{{"items":[{{"a":"{}"}},{{"b":1}}]}}"#, "x".repeat(MAX_ITEM_BYTES));
        let (found, frame) = read(&large, 4096).unwrap();
        assert_eq!(
            (found, frame.as_str()),
            (vec![String::new(), r#"{"b":1}"#.to_owned()], r#"{"items":[0,0]}"#)
        );
        assert_eq!(read(&" ".repeat(MAX_FRAME_BYTES + 1), 4096), None);
        let mut items = Items::default();
        items.feed(br#"{"items":[{"#).unwrap();
        (0..MAX_ITEM_BYTES).for_each(|_| items.feed(b"x").unwrap());
        assert!(items.item.is_some_and(|item| item.is_too_large && item.text.is_empty()));
    }
}
