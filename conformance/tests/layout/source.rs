//! A text of the repository, with what the rules look at: code without comments, string literals, test-only items.

/// One file.
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// The file as it stands.
    pub(crate) text: String,
    /// Rust alone: the text with comments, literals' contents and test-only items blanked; lines keep their numbers.
    pub(crate) code: String,
    /// Rust alone: string literals outside test-only items, with their line.
    pub(crate) literals: Vec<(usize, String)>,
    /// Rust alone: how many lines are outside test-only items.
    pub(crate) lines_without_tests: usize,
}

/// A function with a body.
pub(crate) struct Function<'s> {
    pub(crate) name: &'s str,
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace that hold code.
    pub(crate) code_lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (mut code, mut literals, mut lines_without_tests) = (String::new(), Vec::new(), 0);
        if path.ends_with(".rs") {
            (code, literals) = blank_comments_and_literals(text);
            let test_lines = blank_test_items(&mut code);
            literals.retain(|(line, _)| !test_lines.contains(line));
            lines_without_tests = text.lines().count() - test_lines.len();
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, literals, lines_without_tests }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether this whole file is tests, benches, examples or the black-box side.
    pub(crate) fn is_test_only(&self) -> bool {
        let path = &self.path;
        ["tests/", "benches/", "fuzz/", "examples/"].iter().any(|folder| path.contains(folder))
            || path.ends_with("/tests.rs")
            || path.starts_with("conformance/")
    }

    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        let mut found = Vec::new();
        for at in word_positions(&self.code, "fn") {
            let rest = &self.code[at..];
            let name = rest[2..].trim_start().split(|c: char| !is_word(c)).next().unwrap_or_default();
            let body = rest.find('{');
            let end = rest.find(';');
            let Some(open) = body.filter(|open| end.is_none_or(|end| *open < end)) else { continue };
            let Some(close) = matching_brace(rest, open) else { continue };
            let code_lines = rest[..=close].lines().filter(|line| !line.trim().is_empty()).count();
            if !name.is_empty() {
                found.push(Function { name, line: line_of(&self.code, at), code_lines });
            }
        }
        found
    }
}

/// Where `word` stands as a whole word (or path such as `a::b`) in `code`.
pub(crate) fn word_positions<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn matching_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at);
        }
    }
    None
}

/// Blanks every item under `#[cfg(test)]` and returns its lines.
fn blank_test_items(code: &mut String) -> std::collections::BTreeSet<usize> {
    let mut lines = std::collections::BTreeSet::new();
    while let Some(start) = code.find("#[cfg(test)]") {
        let rest = &code[start..];
        let open = rest.find('{').filter(|open| rest.find(';').is_none_or(|end| *open < end));
        let end = match open {
            Some(open) => matching_brace(rest, open),
            None => rest.find(';'),
        };
        let end = start + end.unwrap_or(rest.len() - 1);
        lines.extend(line_of(code, start)..=line_of(code, end));
        let blank: String = code[start..=end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(start..=end, &blank);
    }
    lines
}

/// The code with comments and the insides of literals blanked, and the string literals with their line.
fn blank_comments_and_literals(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut literals = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let token = Token::at(rest, code.chars().next_back());
        let (taken, kept) = match token {
            Token::Plain => (c.len_utf8(), None),
            Token::Comment(length) => (length, Some((0, 0))),
            Token::Literal { length, open, close } => {
                let line = code.matches('\n').count() + 1;
                literals.push((line, rest[open..length - close].to_owned()));
                (length, Some((open, close)))
            }
        };
        let (piece, after) = rest.split_at(taken);
        match kept {
            None => code.push_str(piece),
            Some((open, close)) => {
                code.push_str(&piece[..open]);
                code.extend(piece[open..taken - close].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                code.push_str(&piece[taken - close..]);
            }
        }
        rest = after;
    }
    (code, literals)
}

enum Token {
    Plain,
    Comment(usize),
    Literal { length: usize, open: usize, close: usize },
}

impl Token {
    /// The token that begins `rest`; `before` is the character in front of it.
    fn at(rest: &str, before: Option<char>) -> Self {
        if rest.starts_with("//") {
            return Self::Comment(rest.find('\n').unwrap_or(rest.len()));
        }
        if rest.starts_with("/*") {
            return Self::Comment(block_comment(rest));
        }
        if rest.starts_with('\'') {
            return character(rest);
        }
        if before.is_some_and(is_word) && !rest.starts_with('"') {
            return Self::Plain;
        }
        string(rest).unwrap_or(Self::Plain)
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A character literal, or a lifetime, which is plain.
fn character(rest: &str) -> Token {
    let mut chars = rest.char_indices().skip(1);
    let Some((_, first)) = chars.next() else { return Token::Plain };
    let close = if first == '\\' {
        chars.next();
        rest.char_indices().skip(3).find(|(_, c)| *c == '\'').map(|(at, _)| at)
    } else {
        chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at)
    };
    close.map_or(Token::Plain, |close| Token::Literal { length: close + 1, open: 1, close: 1 })
}

/// A string literal: plain, raw, byte or C.
fn string(rest: &str) -> Option<Token> {
    let prefix = rest.find(|c| !matches!(c, 'r' | 'b' | 'c'))?;
    let raw = rest[..prefix].contains('r');
    let hashes = if raw { rest[prefix..].chars().take_while(|c| *c == '#').count() } else { 0 };
    let open = prefix + hashes + 1;
    if prefix > 2 || !rest[prefix + hashes..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let mut escaped = false;
    for (at, c) in rest[open..].char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && !raw {
            escaped = true;
        } else if rest[open + at..].starts_with(&close) {
            return Some(Token::Literal { length: open + at + close.len(), open, close: close.len() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_literals_and_tests_are_not_code() {
        let source = Source::new(
            "a.rs",
            "// unsafe\nfn f<'a>() { let _ = (\"unsafe \\\" {\", 'u', r#\"a\"b\"#, '\\''); /* unsafe /* */ */ }\n\
             #[cfg(test)]\nmod tests {\n    fn g() { h(\"in a test\") }\n}\nfn last() {}\n",
        );
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        assert!(!source.code.contains("mod tests"), "{}", source.code);
        let literals: Vec<_> = source.literals.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(literals, ["unsafe \\\" {", "u", "a\"b", "\\'"]);
        assert_eq!(source.lines_without_tests, 3);
        let names: Vec<_> =
            source.functions().iter().map(|function| (function.name, function.line)).collect();
        assert_eq!(names, [("f", 2), ("last", 7)]);
    }

    #[test]
    fn words_are_whole() {
        let positions = |code: &str| word_positions(code, "unsafe").count();
        assert_eq!(positions("unsafe { unsafe_code } not_unsafe (unsafe)"), 2);
    }
}
