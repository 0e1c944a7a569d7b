//! HPACK (RFC 7541): a decoder with its dynamic table, and an encoder that needs none.

use super::{huffman, static_table::STATIC_TABLE};
use bytes::Bytes;
use std::collections::VecDeque;

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Bytes,
    pub(super) value: Bytes,
    /// Whether no one on the way may put it into a table (RFC 7541 §6.2.3).
    pub(super) never_indexed: bool,
}

/// Reads the header blocks of one direction of one connection, all of them and in order: each may change the table.
pub(super) struct Decoder {
    /// The youngest first (RFC 7541 §2.3.2).
    table: VecDeque<(Bytes, Bytes)>,
    table_bytes: usize,
    /// What the sender has set the table to, at most [`MAX_TABLE_BYTES`].
    table_limit: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), table_bytes: 0, table_limit: MAX_TABLE_BYTES }
    }

    /// The fields of one block. `None` if it is malformed, or if they are over `max_list_bytes` together (counted as
    /// RFC 9113 §6.5.2 does); the decoder is of no use then.
    pub(super) fn decode(&mut self, block: &[u8], max_list_bytes: usize) -> Option<Vec<Field>> {
        let (mut input, mut fields, mut list_bytes) = (block, Vec::new(), 0);
        while let Some(first) = input.first() {
            let field = match first.leading_zeros() {
                0 => {
                    let index = integer(&mut input, 7)?;
                    let (name, value) = self.entry(index)?;
                    Field { name, value, never_indexed: false }
                }
                1 => {
                    let field = self.literal(&mut input, 6)?;
                    self.insert(field.name.clone(), field.value.clone());
                    field
                }
                // RFC 7541 §4.2: only before the first field.
                2 if fields.is_empty() => {
                    self.resize(integer(&mut input, 5)?)?;
                    continue;
                }
                2 => return None,
                3 => Field { never_indexed: true, ..self.literal(&mut input, 4)? },
                _ => self.literal(&mut input, 4)?,
            };
            list_bytes += entry_bytes(&field.name, &field.value);
            if list_bytes > max_list_bytes {
                return None;
            }
            fields.push(field);
        }
        Some(fields)
    }

    fn literal(&self, input: &mut &[u8], prefix_bits: u32) -> Option<Field> {
        let name = match integer(input, prefix_bits)? {
            0 => string(input)?,
            index => self.entry(index)?.0,
        };
        Some(Field { name, value: string(input)?, never_indexed: false })
    }

    /// RFC 7541 §2.3.3: the static table, then the dynamic one.
    fn entry(&self, index: usize) -> Option<(Bytes, Bytes)> {
        let index = index.checked_sub(1)?;
        match STATIC_TABLE.get(index) {
            Some((name, value)) => {
                Some((Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes())))
            }
            None => self.table.get(index - STATIC_TABLE.len()).cloned(),
        }
    }

    /// RFC 7541 §4.4: an entry that is larger than the whole table empties it.
    fn insert(&mut self, name: Bytes, value: Bytes) {
        let bytes = entry_bytes(&name, &value);
        self.evict(self.table_limit.saturating_sub(bytes));
        if bytes <= self.table_limit {
            self.table_bytes += bytes;
            self.table.push_front((name, value));
        }
    }

    fn resize(&mut self, bytes: usize) -> Option<()> {
        if bytes > MAX_TABLE_BYTES {
            return None;
        }
        self.table_limit = bytes;
        self.evict(bytes);
        Some(())
    }

    fn evict(&mut self, down_to_bytes: usize) {
        while self.table_bytes > down_to_bytes
            && let Some((name, value)) = self.table.pop_back()
        {
            self.table_bytes -= entry_bytes(&name, &value);
        }
    }
}

/// Writes fields so that whoever reads them needs no table and gets none: each a literal with its name, not indexed
/// (RFC 7541 §6.2.2, §6.2.3), no Huffman code.
pub(super) fn encode(fields: &[Field]) -> Vec<u8> {
    let bytes = fields.iter().map(|field| field.name.len() + field.value.len() + 11).sum();
    let mut block = Vec::with_capacity(bytes);
    for field in fields {
        block.push(if field.never_indexed { 0x10 } else { 0 });
        for text in [&field.name, &field.value] {
            write_integer(&mut block, text.len(), 7);
            block.extend_from_slice(text);
        }
    }
    block
}

/// RFC 7541 §4.1.
fn entry_bytes(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

/// RFC 7541 §5.1; no integer that is due here has more than 28 bits.
fn integer(input: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let most = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(next(input)?) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next(input)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write_integer(block: &mut Vec<u8>, value: usize, prefix_bits: u32) {
    let most = (1_usize << prefix_bits) - 1;
    let Some(mut rest) = value.checked_sub(most) else {
        block.push(low_byte(value));
        return;
    };
    block.push(low_byte(most));
    while rest >= 0x80 {
        block.push(low_byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    block.push(low_byte(rest));
}

fn low_byte(value: usize) -> u8 {
    value.to_le_bytes().first().copied().unwrap_or_default()
}

/// RFC 7541 §5.2.
fn string(input: &mut &[u8]) -> Option<Bytes> {
    let is_coded = input.first()? & 0x80 != 0;
    let length = integer(input, 7)?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    if is_coded {
        return huffman::decode(text, MAX_STRING_BYTES).map(Bytes::from);
    }
    (length <= MAX_STRING_BYTES).then(|| Bytes::copy_from_slice(text))
}

fn next(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2) as it is where nobody sets it: this server does not.
const MAX_TABLE_BYTES: usize = 4096;
const MAX_STRING_BYTES: usize = 64 * 1024;

#[cfg(test)]
pub(super) mod tests;
