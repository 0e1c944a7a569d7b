//! Proves that a template stays within its ceiling, for every value that its parameters can have; or finds a resource
//! that does not.
//!
//! What a resource can look like is a small automaton: its literals, the languages of its parameters, its wildcard. Each
//! of its paths is followed together with the set of places at which the ceiling's patterns could be. A path that
//! ends where no pattern does is the counterexample. Parameters of free text are taken as any text over their
//! alphabet, so more is proven than is needed, never less.

use std::collections::{BTreeSet, VecDeque};

use super::{
    characters::CharSet,
    parameter::{Atom, Language, escape},
};

/// A pattern: `*` is any text, `?` any character.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Is(char),
    One,
    Any,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().map(Piece::of).collect())
    }

    /// As IAM reads a policy: `${*}`, `${?}` and `${$}` are the characters themselves.
    pub(super) fn rendered(text: &str) -> Self {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(c) = rest.chars().next() {
            let escaped = ['*', '?', '$'].into_iter().find(|c| rest.starts_with(&escape(&c.to_string())));
            let (piece, length) = match escaped {
                Some(escaped) => (Piece::Is(escaped), "${*}".len()),
                None => (Piece::of(c), c.len_utf8()),
            };
            pieces.push(piece);
            rest = rest.get(length..).unwrap_or_default();
        }
        Self(pieces)
    }

    /// Whether it admits this text.
    pub(super) fn admits(&self, text: &str) -> bool {
        let mut places = self.closure(BTreeSet::from([0]));
        for c in text.chars() {
            places = self.step(&places, c);
        }
        places.contains(&self.0.len())
    }

    /// A text that it admits: `any` where it takes any.
    pub(super) fn sample(&self, any: &str) -> String {
        let text = self.0.iter().map(|piece| match piece {
            Piece::Is(c) => c.to_string(),
            Piece::One => "x".to_owned(),
            Piece::Any => any.to_owned(),
        });
        text.collect()
    }

    /// Where it could be after one more character.
    fn step(&self, places: &BTreeSet<usize>, c: char) -> BTreeSet<usize> {
        let next = places.iter().filter_map(|&place| match self.0.get(place)? {
            Piece::Any => Some(place),
            Piece::One => Some(place + 1),
            Piece::Is(own) => (*own == c).then_some(place + 1),
        });
        self.closure(next.collect())
    }

    /// A `*` may stand for nothing.
    fn closure(&self, mut places: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut open: Vec<usize> = places.iter().copied().collect();
        while let Some(place) = open.pop() {
            if self.0.get(place) == Some(&Piece::Any) && places.insert(place + 1) {
                open.push(place + 1);
            }
        }
        places
    }

    fn characters(&self) -> impl Iterator<Item = char> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Is(c) => Some(*c),
            Piece::One | Piece::Any => None,
        })
    }
}

impl Piece {
    fn of(c: char) -> Self {
        match c {
            '*' => Self::Any,
            '?' => Self::One,
            c => Self::Is(c),
        }
    }
}

/// What a resource can look like.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// By state: the characters that lead on, and whereto.
    edges: Vec<Vec<(CharSet, usize)>>,
    /// By state: where one is without a character.
    free: Vec<Vec<usize>>,
    last: usize,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self { edges: vec![Vec::new()], free: vec![Vec::new()], last: 0 }
    }

    /// Followed by this text.
    pub(super) fn literal(&mut self, text: &str) {
        let atoms = text.chars().map(|c| Atom::One(CharSet::of(c.encode_utf8(&mut [0; 4])))).collect();
        self.one_of(&vec![atoms]);
    }

    /// Followed by anything or nothing.
    pub(super) fn anything(&mut self) {
        self.one_of(&vec![vec![], vec![Atom::Many(CharSet::printable())]]);
    }

    /// Followed by one of these.
    pub(super) fn one_of(&mut self, language: &Language) {
        let (first, end) = (self.last, self.state());
        for sequence in language {
            let mut at = first;
            for atom in sequence {
                let next = self.state();
                match *atom {
                    Atom::One(set) => self.lead(at, set, next),
                    Atom::Many(set) => {
                        self.lead(at, set, next);
                        self.lead(next, set, next);
                    }
                }
                at = next;
            }
            if let Some(free) = self.free.get_mut(at) {
                free.push(end);
            }
        }
        self.last = end;
    }

    /// A text of this shape that none of the patterns admits.
    ///
    /// # Errors
    /// If there are too many possibilities to look at.
    pub(super) fn outside(&self, patterns: &[Pattern]) -> Result<Option<String>, TooManyPossibilities> {
        let named: BTreeSet<char> = patterns.iter().flat_map(Pattern::characters).collect();
        let start: Places = patterns.iter().map(|pattern| pattern.closure(BTreeSet::from([0]))).collect();
        let mut seen = BTreeSet::from([(0, start.clone())]);
        let mut open = VecDeque::from([(0, start, String::new())]);
        while let Some((state, places, text)) = open.pop_front() {
            let is_admitted =
                patterns.iter().zip(&places).any(|(pattern, places)| places.contains(&pattern.0.len()));
            if state == self.last && !is_admitted {
                return Ok(Some(text));
            }
            let mut go = |state: usize, places: Places, text: String| {
                if seen.insert((state, places.clone())) {
                    open.push_back((state, places, text));
                }
            };
            for &next in self.free.get(state).into_iter().flatten() {
                go(next, places.clone(), text.clone());
            }
            for (set, next) in self.edges.get(state).into_iter().flatten() {
                for c in representatives(*set, &named) {
                    let moved =
                        patterns.iter().zip(&places).map(|(pattern, at)| pattern.step(at, c)).collect();
                    go(*next, moved, format!("{text}{c}"));
                }
            }
            if seen.len() > MAX_POSSIBILITIES {
                return Err(TooManyPossibilities);
            }
        }
        Ok(None)
    }

    fn state(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.free.push(Vec::new());
        self.edges.len() - 1
    }

    fn lead(&mut self, from: usize, set: CharSet, to: usize) {
        if let Some(edges) = self.edges.get_mut(from) {
            edges.push((set, to));
        }
    }
}

/// More possibilities than are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyPossibilities;

/// Where each pattern could be.
type Places = Vec<BTreeSet<usize>>;

/// Characters of the set that the patterns tell apart: those that they name, and one that they do not.
fn representatives(set: CharSet, named: &BTreeSet<char>) -> impl Iterator<Item = char> {
    let other = set.iter().find(|c| !named.contains(c));
    other.into_iter().chain(set.iter().filter(|c| named.contains(c)))
}

const MAX_POSSIBILITIES: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(build: impl Fn(&mut Shapes), patterns: &[&str]) -> Option<String> {
        let mut shapes = Shapes::new();
        build(&mut shapes);
        shapes.outside(&patterns.iter().map(|text| Pattern::new(text)).collect::<Vec<_>>()).unwrap()
    }

    fn word() -> Language {
        vec![vec![Atom::Many(CharSet::of("abc/"))]]
    }

    #[test]
    fn a_resource_is_inside_or_has_a_counterexample() {
        let object = |shapes: &mut Shapes| {
            shapes.literal("reports/");
            shapes.one_of(&word());
        };
        assert_eq!(outside(object, &["reports/*"]), None);
        assert_eq!(outside(object, &["reports/?*"]), None);
        assert_eq!(outside(object, &["*"]), None);
        assert_eq!(outside(object, &["reports/?"]).unwrap().len(), "reports/xx".len());
        let escape = outside(object, &["reports/a*", "reports/b*"]).unwrap();
        assert!(escape.starts_with("reports/") && !escape.starts_with("reports/a"), "{escape}");
        assert_eq!(outside(object, &["reports/a*", "reports/b*", "reports/c*", "reports//*"]), None);
        assert!(outside(object, &[]).is_some());
    }

    #[test]
    fn a_wildcard_may_be_nothing_and_everything() {
        let below = |shapes: &mut Shapes| {
            shapes.literal("a/");
            shapes.anything();
        };
        assert_eq!(outside(below, &["a/*"]), None);
        assert_eq!(outside(below, &["a/?*"]).unwrap(), "a/");
        assert!(outside(below, &["a/b*", "a/"]).is_some());
    }

    #[test]
    fn patterns_admit_what_they_say() {
        for (pattern, text, admits) in [
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("a?c", "ac", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).admits(text), admits, "{pattern} {text}");
        }
    }
}
