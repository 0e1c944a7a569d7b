//! Which resources a registry entry names: one URI, or with `/*` at its end everything below.
//!
//! URIs are compared byte for byte (MCP has servers define their own schemes, so there is no normal form to rely on).
//! Below a prefix nothing is admitted that a server could read as leading out of it, or as what a narrower entry names.

use std::collections::BTreeMap;

/// The longest URI of a resource, in bytes.
pub const MAX_URI_BYTES: usize = 1024;

/// Whether a request may name this as a resource at all: an absolute URI of RFC 3986's characters, and none that is an
/// entry for everything below: in a token's scope it could be read so.
///
/// # Errors
/// What is wrong with it.
pub fn check_uri(uri: &str) -> Result<(), &'static str> {
    check_absolute(uri)?;
    if prefix_of(uri).is_some() { Err("ends with `/*`, which only an entry may") } else { Ok(()) }
}

fn check_absolute(uri: &str) -> Result<(), &'static str> {
    if uri.len() > MAX_URI_BYTES {
        return Err("is longer than 1024 bytes");
    }
    if !uri.bytes().all(is_uri_byte) {
        return Err("has characters that no URI has (RFC 3986 §2)");
    }
    // RFC 3986 §3.1.
    let Some((scheme, rest)) = uri.split_once(':') else { return Err("is not an absolute URI") };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if is_scheme && !rest.is_empty() { Ok(()) } else { Err("is not an absolute URI") }
}

/// Whether a registry entry may name resources like this.
///
/// # Errors
/// What is wrong with it.
pub fn check_entry(entry: &str) -> Result<(), &'static str> {
    check_absolute(entry)?;
    if authority(entry).is_some_and(|authority| authority.contains('@')) {
        return Err("must have no user info");
    }
    // INVARIANT: an entry is spelt as requests below a prefix have to be, where nothing is encoded. To a server that decodes
    // or folds case (RFC 3986 §6.2.2) another spelling would be the same thing, and to a wider entry one of its own.
    let scheme = entry.split(':').next().unwrap_or_default();
    if [Some(scheme), authority(entry)].into_iter().flatten().any(|part| part.contains(is_upper)) {
        return Err("must have its scheme and host in lower case");
    }
    let lower = entry.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c"].iter().any(|hidden| lower.contains(hidden)) {
        return Err("must have no dot, slash or backslash percent-encoded");
    }
    if entry.split('%').skip(1).any(|after| !is_needed_escape(after)) {
        return Err("must have percent-encoded only what a URI cannot have as it stands");
    }
    if entry.split(['/', '?', '#']).any(|segment| matches!(segment, "." | "..")) {
        return Err("must have no segment `.` or `..`");
    }
    let Some(prefix) = prefix_of(entry) else { return Ok(()) };
    if prefix.contains(['%', '?', '#', '*']) || prefix.contains("..") {
        return Err("must have none of `%`, `?`, `#`, `*` and `..` before its `/*`");
    }
    match prefix.split_once("://") {
        Some((_, below)) if !below.trim_matches('/').is_empty() => Ok(()),
        Some(_) => Err("names everything of its scheme: name a host or a folder before `/*`"),
        None => Err("must have `://` after its scheme, where it ends with `/*`"),
    }
}

/// The entry that decides about this URI, where it names it: the URI itself goes before a prefix, a longer prefix before
/// a shorter one. An entry that is switched off decides too, so `entries` must have it.
pub fn find<'e, T>(entries: &'e BTreeMap<String, T>, uri: &str) -> Option<(&'e str, &'e T)> {
    check_uri(uri).ok()?;
    if let Some((entry, value)) = entries.get_key_value(uri) {
        return Some((entry, value));
    }
    // INVARIANT: nothing is read by a wider entry that a server could take for what a narrower one is about. To many,
    // `…/drafts` and `…/drafts/` are one folder: who speaks of one of them, or of all that is in it, decides for both.
    if ["/", "/*"].iter().any(|end| entries.contains_key(&format!("{uri}{end}"))) {
        return None;
    }
    // The longest prefix decides: where it admits nothing, no shorter one does.
    let (entry, value) = prefixes(entries, uri).next()?;
    names(entry, uri).then_some((entry, value))
}

/// The wider entries that this entry lies below, the narrowest first.
pub fn around<'e, T>(entries: &'e BTreeMap<String, T>, entry: &str) -> impl Iterator<Item = &'e str> {
    prefixes(entries, entry).map(|(wider, _)| wider).filter(move |wider| *wider != entry)
}

/// Whether one entry names this URI, or what a narrower entry (`…/*`) names.
pub fn names(entry: &str, uri: &str) -> bool {
    check_absolute(uri).is_ok()
        && match prefix_of(entry) {
            None => entry == uri,
            Some(prefix) => uri.strip_prefix(prefix).is_some_and(is_below),
        }
}

/// The prefix that an entry with `/*` at its end stands for, slash included.
pub fn prefix_of(entry: &str) -> Option<&str> {
    entry.strip_suffix('*').filter(|prefix| prefix.ends_with('/'))
}

/// The entries with a prefix that this begins with, the longest first.
fn prefixes<'e, T>(entries: &'e BTreeMap<String, T>, text: &str) -> impl Iterator<Item = (&'e str, &'e T)> {
    text.rmatch_indices('/').filter_map(move |(slash, _)| {
        let found = entries.get_key_value(&format!("{}*", text.get(..=slash)?));
        found.map(|(entry, value)| (entry.as_str(), value))
    })
}

/// What may stand behind a prefix: segments, none of them empty, the last one included; nothing encoded, nothing that
/// climbs, neither query nor fragment.
fn is_below(rest: &str) -> bool {
    let climbs = |segment: &str| segment.starts_with(".;") || segment == ".";
    !rest.contains(['%', '\\', '?', '#'])
        && !rest.contains("..")
        && !rest.split('/').any(|segment| segment.is_empty() || climbs(segment))
}

/// Whether what follows a `%` encodes (RFC 3986 §2.1) what no plain spelling below a prefix has: no character of a URI, or
/// one that would end the path or begin an escape.
fn is_needed_escape(after: &str) -> bool {
    let digits = after.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| !is_uri_byte(byte) || matches!(byte, b'%' | b'?' | b'#'))
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase()
}

fn authority(uri: &str) -> Option<&str> {
    uri.split_once("://")?.1.split(['/', '?', '#']).next()
}

/// RFC 3986 §2: reserved, unreserved and `%`.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_for_everything_below_is_nothing_to_ask_for() {
        for uri in ["d://h/a", "d://h/a/", "d://h/*a", "d://h/a*", "d://h/*/a", "urn:a:*"] {
            assert_eq!(check_uri(uri), Ok(()), "{uri}");
        }
        for uri in ["d://h/*", "d://h/a/*", "d://h/a/*/*", "d:/*", "d://h/a?b=/*"] {
            assert!(check_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn entries_are_checked() {
        for good in [
            "demo://resource/static/document/architecture.md",
            "demo://resource/dynamic/text/*",
            "file:///srv/project/*",
            "https://docs.example.com/*",
            "file:///reports/2026/Q3%20final.pdf",
            "urn:isbn:0451450523",
            "https://docs.example.com/a?page=1",
            "https://docs.example.com:8443/Reports/A.pdf",
            "file:///reports/100%25%3f%23%C3%A9%7Bx%7D",
            "urn:ISBN:0451450523",
        ] {
            assert_eq!(check_entry(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "*",
            "/*",
            "/etc/passwd",
            "etc/passwd",
            "file:",
            "file:///*",
            "file://*",
            "file:/srv/*",
            "urn:x/*",
            "https://user@host/a",
            "https://user:secret@host/*",
            "file:///srv/../etc/passwd",
            "file:///srv/..",
            "file:///srv/./a",
            "file:///srv/%2e%2e/etc",
            "file:///srv/a%2Fb",
            "file:///srv/a%5cb",
            "demo://a b",
            "demo://a\\b",
            "demo://a/{id}",
            "demo://é",
            "demo://a/*/b/*",
            "demo://a/x%20y/*",
            "demo://a/?q=/*",
            "demo://a#f/*",
            "1demo://a/b",
            "demo://a\n",
            "file:///srv/report%281%29.pdf",
            "file:///srv/%73alaries",
            "file:///srv/a%5Ba%5d",
            "file:///srv/a%3Ab",
            "file:///srv/100%",
            "file:///srv/100%2",
            "file:///srv/100%zz",
            "file:///srv/100%+1",
            "https://D.example/secret",
            "https://d.Example/*",
            "HTTPS://d.example/secret",
            "URN:isbn:0451450523",
        ] {
            assert!(check_entry(bad).is_err(), "{bad}");
        }
        assert!(check_entry(&format!("demo://{}", "a".repeat(MAX_URI_BYTES))).is_err());
    }

    #[test]
    fn a_prefix_admits_what_lies_below_and_nothing_else() {
        let entry = "file:///srv/project/*";
        for below in ["a", "a/b.txt", "a/*", "*", ".env", "a.b", "~x", "a;b", "a:b@c"] {
            assert!(names(entry, &format!("file:///srv/project/{below}")), "{below}");
        }
        for uri in [
            "file:///srv/project/",
            "file:///srv/project/a/",
            "file:///srv/project/a//",
            "file:///srv/project",
            "file:///srv/projects/a",
            "file:///etc/passwd",
            "file:///srv/project/../secret",
            "file:///srv/project/a/../../secret",
            "file:///srv/project/..",
            "file:///srv/project/a..b",
            "file:///srv/project/.",
            "file:///srv/project/./a",
            "file:///srv/project/..;/a",
            "file:///srv/project/.;/a",
            "file:///srv/project//etc/passwd",
            "file:///srv/project/%2e%2e/secret",
            "file:///srv/project/%2E./secret",
            "file:///srv/project/a%2fb",
            "file:///srv/project/a%00",
            "file:///srv/project/a\\..\\b",
            "file:///srv/project/a?x=../..",
            "file:///srv/project/a#b",
            "file:///srv/project/a b",
            "FILE:///srv/project/a",
            "file:///SRV/project/a",
            "http://srv/project/a",
            "file://user@host/srv/project/a",
            "file://host/srv/project/a",
        ] {
            assert!(!names(entry, uri), "{uri}");
        }
        assert!(!names("file:///srv/a", "file:///srv/a/"), "exact is exact");
        assert!(!names("file:///srv/a", "file:///srv/b/../a"));
    }

    #[test]
    fn the_most_exact_entry_decides() {
        let entries: BTreeMap<String, u8> =
            [("d://h/*", 1), ("d://h/a/*", 2), ("d://h/a/b", 3), ("d://x", 4)]
                .map(|(e, n)| (e.to_owned(), n))
                .into();
        let found = |uri| find(&entries, uri).map(|(_, number)| *number);
        assert_eq!(found("d://h/x"), Some(1));
        assert_eq!(found("d://h/a/x"), Some(2));
        assert_eq!(found("d://h/a/b"), Some(3));
        assert_eq!(found("d://h/a/b/c"), Some(2));
        assert_eq!(found("d://h/a/x*"), Some(2));
        assert_eq!((found("d://h/a/*"), found("d://h/*")), (None, None), "an entry is no URI to ask for");
        assert_eq!(found("d://x"), Some(4));
        for none in
            ["d://x/", "d://h/", "d://h", "d://h/a/../x", "d://h/a/%2e%2e/x", "e://h/x", "", "d://hh/x"]
        {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn no_spelling_leads_around_a_narrower_entry() {
        let entries: BTreeMap<String, ()> =
            ["d://h/*", "d://h/file", "d://h/slash/", "d://h/folder/*", "d://h/both", "d://h/both/*"]
                .map(|entry| (entry.to_owned(), ()))
                .into();
        let found = |uri| find(&entries, uri).map(|(entry, ())| entry);
        for (uri, expected) in [
            ("d://h/file", Some("d://h/file")),
            ("d://h/file/", None),
            ("d://h/file//", None),
            ("d://h/file/x", Some("d://h/*")),
            ("d://h/slash/", Some("d://h/slash/")),
            ("d://h/slash", None),
            ("d://h/slash//", None),
            ("d://h/folder", None),
            ("d://h/folder/", None),
            ("d://h/folder/x", Some("d://h/folder/*")),
            ("d://h/folder/x/", None),
            ("d://h/folder2", Some("d://h/*")),
            ("d://h/both", Some("d://h/both")),
            ("d://h/both/", None),
            ("d://h/both/x", Some("d://h/both/*")),
            ("d://h/other", Some("d://h/*")),
            ("d://h/other/", None),
            ("d://h", None),
        ] {
            assert_eq!(found(uri), expected, "{uri}");
        }
    }

    #[test]
    fn an_entry_lies_below_every_wider_one() {
        let entries: BTreeMap<String, ()> =
            ["d://h/*", "d://h/a/*", "d://h/a/b/*", "d://h/a/b/c", "d://h/ab/*", "d://h/a", "d://i/*"]
                .map(|entry| (entry.to_owned(), ()))
                .into();
        let wider = |entry| around(&entries, entry).collect::<Vec<_>>().join(" ");
        assert_eq!(wider("d://h/a/b/c"), "d://h/a/b/* d://h/a/* d://h/*");
        assert_eq!(wider("d://h/a/b/*"), "d://h/a/* d://h/*");
        assert_eq!(wider("d://h/ab/*"), "d://h/*");
        assert_eq!(wider("d://h/a"), "d://h/*");
        assert_eq!((wider("d://h/*"), wider("d://i/*"), wider("e://h/a")), Default::default());
    }
}
