//! Texts of a policy, in which `*` stands for anything and `?` for one character.

/// A text with its wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    /// As it stands, escapes undone and wildcards kept: what comparisons without wildcards compare with.
    literal: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Character(char),
    One,
    Any,
}

impl Pattern {
    /// Reads a text. `${*}`, `${?}` and `${$}` are those characters themselves; other variables are not known here.
    ///
    /// # Errors
    /// What is not known.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (mut pieces, mut literal) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let (piece, length) = match character {
                '$' if rest.starts_with("${") => {
                    let escaped = ["${*}", "${?}", "${$}"].into_iter().find(|known| rest.starts_with(known));
                    let escaped =
                        escaped.ok_or_else(|| format!("{text:?} holds a variable that is not known here"))?;
                    (Piece::Character(escaped.chars().nth(2).unwrap_or('$')), escaped.len())
                }
                '*' => (Piece::Any, 1),
                '?' => (Piece::One, 1),
                other => (Piece::Character(other), other.len_utf8()),
            };
            literal.push(match piece {
                Piece::Character(character) => character,
                Piece::One => '?',
                Piece::Any => '*',
            });
            pieces.push(piece);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Self { pieces, literal })
    }

    /// The text without its escapes.
    pub(super) fn literal(&self) -> &str {
        &self.literal
    }

    /// Whether this text fits.
    pub(super) fn admits(&self, text: &str) -> bool {
        fits(&self.pieces, text)
    }

    /// As [`Self::admits`], whatever the case.
    pub(super) fn admits_any_case(&self, text: &str) -> bool {
        let lower = |piece: &Piece| match piece {
            Piece::Character(character) => Piece::Character(character.to_ascii_lowercase()),
            other => *other,
        };
        fits(&self.pieces.iter().map(lower).collect::<Vec<_>>(), &text.to_ascii_lowercase())
    }
}

/// For each beginning of the pattern, whether what was read so far fits it: no way back is ever taken.
fn fits(pieces: &[Piece], text: &str) -> bool {
    let through = |mut reached: Vec<bool>| {
        // `*` may stand for nothing.
        let mut before = false;
        for (index, place) in reached.iter_mut().enumerate() {
            let passes = index.checked_sub(1).and_then(|index| pieces.get(index)) == Some(&Piece::Any);
            *place |= passes && before;
            before = *place;
        }
        reached
    };
    let mut reached = through((0..=pieces.len()).map(|place| place == 0).collect());
    for character in text.chars() {
        let mut next = vec![false; reached.len()];
        for (index, piece) in pieces.iter().enumerate() {
            if reached.get(index) != Some(&true) {
                continue;
            }
            let to = match piece {
                Piece::Any => index,
                Piece::One => index + 1,
                Piece::Character(wanted) if *wanted == character => index + 1,
                Piece::Character(_) => continue,
            };
            if let Some(place) = next.get_mut(to) {
                *place = true;
            }
        }
        reached = through(next);
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_anything_and_escapes_for_themselves() {
        for (pattern, text, fit) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**a", "a", true),
            ("a${*}", "a*", true),
            ("a${*}", "ab", false),
            ("a${?}${$}", "a?$", true),
            ("instance/i-1", "instance/i-10", false),
        ] {
            assert_eq!(Pattern::read(pattern).unwrap().admits(text), fit, "{pattern} {text}");
        }
        assert!(Pattern::read("EC2:Reboot*").unwrap().admits_any_case("ec2:rebootinstances"));
        assert_eq!(Pattern::read("a${*}b?").unwrap().literal(), "a*b?");
        assert!(Pattern::read("${aws:userid}").is_err());
    }

    #[test]
    fn many_wildcards_take_no_longer_than_the_two_lengths_multiplied() {
        let pattern = Pattern::read(&"*a".repeat(500)).unwrap();
        assert!(!pattern.admits(&"a".repeat(499)));
        assert!(pattern.admits(&"a".repeat(500)));
    }
}
