//! What Envoy reads: PEM (RFC 7468). Private keys leave no copies behind.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use std::iter;
use zeroize::Zeroizing;

/// Certificates that stand one after another as DER.
pub(super) fn certificates(der: &[u8]) -> Bytes {
    let mut text = Vec::new();
    for certificate in each(der) {
        write(&mut text, "CERTIFICATE", certificate);
    }
    text.into()
}

/// A private key (PKCS#8 DER).
pub(super) fn private_key(der: &[u8]) -> Bytes {
    // Reserved whole: what grows leaves its old place behind.
    let lines = der.len() / BYTES_OF_A_LINE + 3;
    let mut text = Zeroizing::new(Vec::with_capacity(lines * (CHARACTERS_OF_A_LINE + 1)));
    write(&mut text, "PRIVATE KEY", der);
    Bytes::from_owner(text)
}

fn write(text: &mut Vec<u8>, label: &str, der: &[u8]) {
    text.extend(format!("-----BEGIN {label}-----\n").into_bytes());
    for part in der.chunks(BYTES_OF_A_LINE) {
        let mut line = Zeroizing::new([0; CHARACTERS_OF_A_LINE]);
        let length = STANDARD.encode_slice(part, line.as_mut_slice()).unwrap_or_default();
        text.extend_from_slice(line.get(..length).unwrap_or_default());
        text.push(b'\n');
    }
    text.extend(format!("-----END {label}-----\n").into_bytes());
}

/// Each SEQUENCE, as long as it says that it is (X.690 §8.1.3). What follows something else is not looked at.
fn each(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let (one, others) = rest.split_at_checked(length(rest)?)?;
        rest = others;
        Some(one)
    })
}

fn length(der: &[u8]) -> Option<usize> {
    let (&[0x30, first], rest) = der.split_first_chunk::<2>()? else { return None };
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let (bytes, _) =
        rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 3)?;
    let content = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some(2 + bytes.len() + content)
}

const BYTES_OF_A_LINE: usize = 48;
const CHARACTERS_OF_A_LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn certificates_are_told_apart_and_written_in_lines() {
        let short = [0x30, 3, 1, 2, 3];
        let long: Vec<u8> = [0x30, 0x81, 200].into_iter().chain([7; 200]).collect();
        let longer: Vec<u8> = [0x30, 0x82, 1, 44].into_iter().chain([8; 300]).collect();
        let pem = certificates(&[&short[..], &long, &longer].concat());
        let parts: Vec<&str> = text(&pem).split("-----END CERTIFICATE-----\n").collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[0], "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n");
        assert!(text(&pem).lines().all(|line| line.len() <= 64));
        for (part, der) in parts[1..].iter().zip([&long, &longer]) {
            let lines: String = part.lines().skip(1).collect();
            assert_eq!(STANDARD.decode(lines).unwrap(), *der);
        }
        for broken in
            [&[][..], &[0x30], &[0x31, 1, 0], &[0x30, 5, 1], &[0x30, 0x84, 0, 0, 0, 1, 0], &[0x30, 0x82, 1]]
        {
            assert!(certificates(broken).is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn a_key_is_written_without_growing() {
        for length in [1, 47, 48, 49, 138, 2400] {
            let pem = private_key(&vec![5; length]);
            assert!(text(&pem).starts_with("-----BEGIN PRIVATE KEY-----\n"));
            let lines: String = text(&pem).lines().filter(|line| !line.starts_with('-')).collect();
            assert_eq!(STANDARD.decode(lines).unwrap(), vec![5; length]);
            let reserved = (length / BYTES_OF_A_LINE + 3) * (CHARACTERS_OF_A_LINE + 1);
            assert!(pem.len() <= reserved, "{length}");
        }
    }
}
