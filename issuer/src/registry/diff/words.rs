//! Two texts, word by word.

use serde::Serialize;

/// A stretch of one or both texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// In both.
    Same(String),
    /// In the old one alone.
    Removed(String),
    /// In the new one alone.
    Added(String),
    /// So many characters that are the same and far from what differs.
    Skipped(usize),
}

/// How `before` becomes `after`. What is the same is kept only around what is not.
pub(super) fn compare(before: &str, after: &str) -> Vec<Piece> {
    let (old, new) = (words(before), words(after));
    let head = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let rest = old.len().min(new.len()) - head;
    let tail =
        old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(one, other)| one == other).count();
    let middle = |words: &[&str]| -> Vec<String> {
        words.iter().take(words.len() - tail).skip(head).map(|&word| word.to_owned()).collect()
    };
    let mut pieces = Pieces::default();
    pieces.same(old.iter().take(head).copied());
    align(&middle(&old), &middle(&new), &mut pieces);
    pieces.same(old.iter().skip(old.len() - tail).copied());
    pieces.finish()
}

/// At most [`MAX_PIECE_CHARS`] characters of a text, and how many more there are.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_PIECE_CHARS) {
        None => text.to_owned(),
        Some((at, _)) => {
            let (kept, cut) = text.split_at_checked(at).unwrap_or((text, ""));
            format!("{kept}… ({} characters more)", cut.chars().count())
        }
    }
}

/// Runs of letters and digits, runs of white space, and every other character by itself, so that an invisible one is
/// a word too. Long runs are cut, so that what changed inside of one is found.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let class = Class::of(first);
        let length: usize = match class {
            Class::Other => first.len_utf8(),
            class => {
                let run = rest.chars().take_while(|c| Class::of(*c) == class);
                run.take(MAX_WORD_CHARS).map(char::len_utf8).sum()
            }
        };
        let (word, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        words.push(word);
        rest = after;
    }
    words
}

#[derive(PartialEq, Eq)]
enum Class {
    Word,
    Space,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        if c.is_alphanumeric() {
            Self::Word
        } else if c.is_whitespace() {
            Self::Space
        } else {
            Self::Other
        }
    }
}

/// The longest common subsequence of what neither begins nor ends alike; where that would cost too much, all of it
/// counts as changed.
fn align(old: &[String], new: &[String], pieces: &mut Pieces) {
    if old.len().saturating_mul(new.len()) > MAX_CELLS {
        pieces.changed(&old.concat(), &new.concat());
        return;
    }
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let at = |lengths: &[u32], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or(0);
    for (i, word) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            let best = if word == other {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(cell) = lengths.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), new.get(j)) {
            (Some(word), Some(other)) if word == other => {
                pieces.same(std::iter::once(word.as_str()));
                (i, j) = (i + 1, j + 1);
            }
            (Some(word), other) if other.is_none() || at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) => {
                pieces.changed(word, "");
                i += 1;
            }
            (_, Some(other)) => {
                pieces.changed("", other);
                j += 1;
            }
            (_, None) => break,
        }
    }
}

/// Pieces as they are put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    removed: String,
    added: String,
    same: String,
}

impl Pieces {
    fn same<'w>(&mut self, words: impl Iterator<Item = &'w str>) {
        for word in words {
            self.flush_changed();
            self.same.push_str(word);
        }
    }

    fn changed(&mut self, removed: &str, added: &str) {
        self.flush_same(false);
        self.removed.push_str(removed);
        self.added.push_str(added);
    }

    fn flush_changed(&mut self) {
        for (text, piece) in
            [(&mut self.removed, Piece::Removed as fn(String) -> Piece), (&mut self.added, Piece::Added)]
        {
            if !text.is_empty() && self.done.len() < MAX_PIECES {
                self.done.push(piece(shortened(text)));
            }
            text.clear();
        }
    }

    /// Keeps what stands next to a change on either side.
    fn flush_same(&mut self, is_end: bool) {
        let text = std::mem::take(&mut self.same);
        if text.is_empty() || self.done.len() >= MAX_PIECES {
            return;
        }
        let count = text.chars().count();
        let (head, tail) =
            (if self.done.is_empty() { 0 } else { CONTEXT_CHARS }, if is_end { 0 } else { CONTEXT_CHARS });
        if count <= head + tail + 1 {
            self.done.push(Piece::Same(text));
            return;
        }
        let first: String = text.chars().take(head).collect();
        let last: String = text.chars().skip(count - tail).collect();
        let pieces = [Piece::Same(first), Piece::Skipped(count - head - tail), Piece::Same(last)];
        self.done.extend(pieces.into_iter().filter(|piece| *piece != Piece::Same(String::new())));
    }

    fn finish(mut self) -> Vec<Piece> {
        self.flush_changed();
        self.flush_same(true);
        self.done
    }
}

const MAX_WORD_CHARS: usize = 32;
const MAX_CELLS: usize = 250_000;
const MAX_PIECES: usize = 200;
const MAX_PIECE_CHARS: usize = 500;
const CONTEXT_CHARS: usize = 48;
