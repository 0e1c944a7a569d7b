//! The Huffman code of HPACK (RFC 7541 §5.2, Appendix B). It is canonical: the codes follow from their lengths.

use std::sync::LazyLock;

/// Decodes a Huffman-coded string of at most `max` bytes. `None` if it is none (RFC 7541 §5.2: EOS inside, padding
/// that is not the beginning of EOS, or more than seven bits of it) or is longer.
pub(super) fn decode(coded: &[u8], max: usize) -> Option<Vec<u8>> {
    // The shortest code has five bits.
    let mut text = Vec::with_capacity((coded.len().saturating_mul(8) / 5).min(max));
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            if let Some(symbol) = symbol(code, length) {
                // EOS is symbol 256, no byte.
                text.push(u8::try_from(symbol).ok()?);
                (code, length) = (0, 0);
                if text.len() > max {
                    return None;
                }
            } else if length >= LONGEST_BITS {
                return None;
            }
        }
    }
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// The codes of one length: consecutive numbers, in the order of their symbols.
#[derive(Default)]
struct Row {
    first: u32,
    symbols: Vec<u16>,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows: Vec<Row> = Vec::new();
    let (mut first, mut count) = (0_u32, 0_u32);
    for bits in 0..=LONGEST_BITS {
        first = (first + count) << 1;
        let symbols: Vec<u16> = (0_u16..)
            .zip(LENGTHS)
            .filter(|(_, length)| usize::from(*length) == bits)
            .map(|(s, _)| s)
            .collect();
        count = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
        rows.push(Row { first, symbols });
    }
    rows
});

fn symbol(code: u32, length: usize) -> Option<u16> {
    let row = ROWS.get(length)?;
    row.symbols.get(usize::try_from(code.checked_sub(row.first)?).ok()?).copied()
}

const LONGEST_BITS: usize = 30;

/// How many bits each symbol's code has, from 0 to 255, then EOS (RFC 7541, Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes, for tests of the decoder.
    pub(in crate::authority) fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let row = &ROWS[length];
            let place = row.symbols.iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = row.first + u32::try_from(place).unwrap();
            bits.push_str(&format!("{code:0length$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn every_byte_has_its_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all), 256).unwrap(), all);
        assert_eq!(decode(&encode(&all), 255), None, "longer than allowed");
        // The first, the last and one of the longest codes of RFC 7541, Appendix B.
        assert_eq!(encode(b"0"), [0b0000_0111]);
        assert_eq!(encode(&[22]), [0xff, 0xff, 0xff, 0b1111_1011]);
        assert_eq!(encode(&[249]), [0xff, 0xff, 0xff, 0b1110_1111]);
    }

    #[test]
    fn padding_is_the_beginning_of_eos_and_short() {
        assert_eq!(decode(&[0b0000_0111], 9).unwrap(), b"0");
        assert_eq!(decode(&[0b0000_0110], 9), None, "other bits");
        assert_eq!(decode(&[0b0000_0111, 0xff], 9), None, "a whole byte of it");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], 9), None, "EOS itself");
        assert_eq!(decode(&[], 9).unwrap(), b"");
    }
}
