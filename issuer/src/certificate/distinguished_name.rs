//! A distinguished name, as people write it (RFC 4514) and as a certificate has it.

use std::{collections::BTreeSet, str::FromStr};
use x509_parser::x509::X509Name;

/// A distinguished name. Two are equal where every attribute is, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinguishedName {
    /// As in a certificate: the most general first. Of each, the OID and the value.
    parts: Vec<BTreeSet<(String, String)>>,
}

/// Why a text is no distinguished name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAName(&'static str);

impl DistinguishedName {
    /// That of a certificate; none where it has none, or one that cannot be written.
    pub(super) fn of(name: &X509Name<'_>) -> Option<Self> {
        let mut parts = Vec::new();
        for part in name.iter_rdn() {
            let attributes = part.iter().map(|attribute| {
                let value = attribute.as_str().ok()?;
                Some((attribute.attr_type().to_id_string(), value.to_owned()))
            });
            parts.push(attributes.collect::<Option<BTreeSet<_>>>()?);
        }
        (!parts.is_empty()).then_some(Self { parts })
    }
}

impl FromStr for DistinguishedName {
    type Err = NotAName;

    /// RFC 4514 §3: the most special first.
    fn from_str(text: &str) -> Result<Self, NotAName> {
        if text.len() > MAX_BYTES {
            return Err(NotAName("a name has 1024 bytes at most"));
        }
        let mut parts = Vec::new();
        for part in split(text, ',') {
            let mut attributes = BTreeSet::new();
            for attribute in split(part, '+') {
                let (kind, value) = attribute.split_once('=').ok_or(NotAName("write CN=agent,O=Example"))?;
                attributes.insert((oid(kind.trim())?, unescape(value)?));
            }
            parts.push(attributes);
        }
        parts.reverse();
        Ok(Self { parts })
    }
}

/// Splits where the separator is not escaped.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut rest, mut is_escaped) = (Vec::new(), text, false);
    for (place, c) in text.char_indices() {
        if c == separator && !is_escaped {
            let begin = text.len() - rest.len();
            parts.push(text.get(begin..place).unwrap_or_default());
            rest = text.get(place + c.len_utf8()..).unwrap_or_default();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    parts.push(rest);
    parts
}

fn oid(kind: &str) -> Result<String, NotAName> {
    let is_dotted = kind.starts_with(|c: char| c.is_ascii_digit())
        && kind.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let known = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)).map(|(_, oid)| *oid);
    let oid = known.or(is_dotted.then_some(kind)).map(str::to_owned);
    oid.ok_or(NotAName("an attribute is CN, O, OU, C, L, ST, STREET, DC, UID, serialNumber or a dotted OID"))
}

/// RFC 4514 §2.4, §3. What is not escaped has no spaces around it.
fn unescape(text: &str) -> Result<String, NotAName> {
    let refused = NotAName("a value has no \" ; < > that is not escaped, and does not begin with #");
    let text = text.trim_start_matches(' ');
    if text.is_empty() || text.starts_with('#') {
        return Err(refused);
    }
    let (mut bytes, mut kept, mut rest) = (Vec::new(), 0, text.chars());
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let mut ahead = rest.clone();
                let digits = [ahead.next(), ahead.next()].map(|digit| digit.and_then(|it| it.to_digit(16)));
                if let [Some(high), Some(low)] = digits {
                    bytes.push(u8::try_from(high << 4 | low).map_err(|_| refused)?);
                    rest = ahead;
                } else {
                    let escaped = rest.next().filter(|c| " \"#+,;<=>\\".contains(*c)).ok_or(refused)?;
                    bytes.extend(escaped.to_string().bytes());
                }
                kept = bytes.len();
            }
            '"' | ';' | '<' | '>' | '\0' => return Err(refused),
            c => {
                bytes.extend(c.to_string().bytes());
                if c != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).map_err(|_| refused)
}

/// RFC 4514 §3, RFC 4519 §2.
const KINDS: [(&str, &str); 10] = [
    ("CN", "2.5.4.3"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
];
const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Vec<(String, String)>> {
        let name: DistinguishedName = text.parse().unwrap();
        name.parts.into_iter().map(|part| part.into_iter().collect()).collect()
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let attribute = |oid: &str, value: &str| (oid.to_owned(), value.to_owned());
        // RFC 4514 §4.
        assert_eq!(
            parts("UID=jsmith,DC=example, DC=net"),
            [
                [attribute("0.9.2342.19200300.100.1.25", "net")],
                [attribute("0.9.2342.19200300.100.1.25", "example")],
                [attribute("0.9.2342.19200300.100.1.1", "jsmith")],
            ]
        );
        assert_eq!(
            parts("OU=Sales+CN=J.  Smith,DC=example").last().unwrap(),
            &[attribute("2.5.4.11", "Sales"), attribute("2.5.4.3", "J.  Smith")]
        );
        assert_eq!(
            parts(r#"CN=James \"Jim\" Smith\, III"#),
            [[attribute("2.5.4.3", r#"James "Jim" Smith, III"#)]]
        );
        assert_eq!(parts(r"CN=Before\0dAfter"), [[attribute("2.5.4.3", "Before\rAfter")]]);
        assert_eq!(parts(r"CN=Lu\C4\8Di\C4\87"), [[attribute("2.5.4.3", "Lučić")]]);
        assert_eq!(parts(r"2.5.4.3= a \  "), [[attribute("2.5.4.3", "a  ")]]);
        assert_eq!(parts("cn=a=b"), [[attribute("2.5.4.3", "a=b")]]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "agent", "CN=", "CN=a,", "XX=a", "CN=#0401", r"CN=a\", "CN=a;O=b", r"CN=\ff", "CN=<a>", "=a"]
        {
            assert!(text.parse::<DistinguishedName>().is_err(), "{text}");
        }
        assert!(format!("CN={}", "a".repeat(1022)).parse::<DistinguishedName>().is_err());
    }
}
