//! What STS takes as tags and names. What it would not take is refused here, never changed.

use super::characters::CharSet;

/// Whether STS takes it as the key of a session tag.
pub(super) fn check_tag_key(key: &str) -> Result<(), &'static str> {
    if !(1..=128).contains(&key.len()) {
        return Err("a key has 1 to 128 characters");
    }
    if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
        return Err("keys that begin with aws: are AWS's own");
    }
    if tag_alphabet().misses(key).is_some() {
        Err("a key has letters, digits, space and _.:/=+-@")
    } else {
        Ok(())
    }
}

/// Whether STS takes it as the value of a session tag.
pub(super) fn check_tag_value(value: &str) -> Result<(), &'static str> {
    if value.len() > 256 {
        return Err("longer than the 256 characters of a tag's value");
    }
    if tag_alphabet().misses(value).is_some() {
        return Err("a character that STS does not take in a tag: letters, digits, space and _.:/=+-@");
    }
    Ok(())
}

/// Whether STS takes it as `RoleSessionName` or `SourceIdentity`: both have one alphabet.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if !(2..=64).contains(&name.len()) {
        return Err("STS takes 2 to 64 characters");
    }
    if CharSet::alphanumeric_and("_+=,.@-").misses(name).is_some() {
        return Err("a character that STS does not take in a name: letters, digits and _+=,.@-");
    }
    Ok(())
}

/// The ASCII part of what STS takes: a look-alike in a tag misleads whoever reads it.
fn tag_alphabet() -> CharSet {
    CharSet::alphanumeric_and(" _.:/=+-@")
}

/// How many session tags STS takes.
pub(super) const MAX_TAGS: usize = 50;
