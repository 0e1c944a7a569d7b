//! Sets of ASCII characters. Nothing else ever enters a policy, so no look-alike can.

/// A set of printable ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CharSet(u128);

impl CharSet {
    /// The characters of this text; what is not ASCII is not in it.
    pub(super) fn of(text: &str) -> Self {
        Self(text.bytes().filter(u8::is_ascii).fold(0, |set, byte| set | (1 << byte)))
    }

    /// Everything printable.
    pub(super) fn printable() -> Self {
        Self((0x20..=0x7e_u8).fold(0, |set, byte| set | (1 << byte)))
    }

    /// Letters, digits and these.
    pub(super) fn alphanumeric_and(more: &str) -> Self {
        Self::of(ALPHANUMERIC).union(Self::of(more))
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn has(self, c: char) -> bool {
        u8::try_from(c).is_ok_and(|byte| byte.is_ascii() && self.0 & (1 << byte) != 0)
    }

    /// The first character of `text` that is not in the set.
    pub(super) fn misses(self, text: &str) -> Option<char> {
        text.chars().find(|c| !self.has(*c))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = char> {
        (0..=0x7f_u8).filter(move |byte| self.0 & (1 << byte) != 0).map(char::from)
    }
}

const ALPHANUMERIC: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
