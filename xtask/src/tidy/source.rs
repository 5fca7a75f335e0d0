//! A Rust file with its comments and literals blanked out: enough structure for rules that count and search words.

use std::path::PathBuf;

pub struct Source {
    /// Relative to the root of the workspace.
    pub path: PathBuf,
    pub text: String,
    /// `text` with every character of comments, strings and character literals replaced by a space; lines stay lines.
    pub code: String,
}

impl Source {
    pub fn new(path: PathBuf, text: String) -> Self {
        let code = blank(&text);
        Self { path, text, code }
    }

    /// The place of `offset` in the file, for a violation.
    pub fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path.display(), self.line(offset))
    }

    /// The line of `offset`, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Where `word` stands in the code as a whole word.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bounded = move |at: &usize| {
            let before = self.code[..*at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        };
        self.code.match_indices(word).map(|(at, _)| at).filter(bounded)
    }
}

/// The offset just after the bracket that closes the one at `open`.
pub fn after_closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The identifier at the start of `code`, if there is one.
pub fn identifier(code: &str) -> Option<&str> {
    let end = code.find(|character| !is_word(character)).unwrap_or(code.len());
    (end > 0).then(|| &code[..end])
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = code.chars().next_back().is_some_and(is_word);
        let literal = literal_length(rest, in_word);
        match literal {
            Some(length) => {
                code.extend(rest[..length].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
                rest = &rest[length..];
            }
            // Offsets in bytes stay the same: what is outside of literals and not ASCII becomes a word all the same.
            None => {
                (0..first.len_utf8()).for_each(|_| code.push(if first.is_ascii() { first } else { '_' }));
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    code
}

/// How many bytes a comment, string or character literal at the start of `rest` takes.
fn literal_length(rest: &str, in_word: bool) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_length(rest));
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    if rest.starts_with('"') {
        return Some(string_length(rest));
    }
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    if in_word || prefix == 0 || prefix > 2 {
        return None;
    }
    let after = &rest[prefix..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if rest[..prefix].contains('r') && after[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix + hashes + 1;
        return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
    }
    after.starts_with('"').then(|| prefix + string_length(after))
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    for at in 0..bytes.len().saturating_sub(1) {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return at + 2,
            b"*/" => depth -= 1,
            _ => {}
        }
    }
    bytes.len()
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` or `'\n'`; a lifetime is not a literal.
fn character_length(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        let body = rest[1..].char_indices().skip(2).find(|(_, character)| *character == '\'');
        return body.map(|(at, _)| at + 2);
    }
    characters.next().filter(|(_, quote)| *quote == '\'').map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("x.rs".into(), text.into()).code
    }

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_else() {
        for (before, literal, after) in [
            ("a ", "// b", "\nc"),
            ("a ", "/* b /* c */ d */", " e"),
            ("f(", r#""}\"{""#, ", x)"),
            ("", "r#\"a\"b\"#", " + 1"),
            ("b", r"'\''", " + x"),
            ("x == ", "'{'", " && y"),
            ("", "br\"x\"", " y"),
            ("for ", "\"x\"", ""),
            ("fn f<'a>(x: &'a str) { bar::<'a>() }", "", ""),
        ] {
            let blanked = code(&format!("{before}{literal}{after}"));
            assert_eq!(blanked, format!("{before}{}{after}", " ".repeat(literal.len())), "{literal}");
        }
        assert_eq!(code("\"a\nb\" c"), "  \n   c", "lines stay lines");
    }

    #[test]
    fn offsets_stay_the_same() {
        let text = "let ä = \"ö\"; // ü\n/* é */ x";
        assert_eq!(code(text).len(), text.len());
    }

    #[test]
    fn words_are_whole_words_of_the_code() {
        let source = Source::new("x.rs".into(), "axum; axum_core; my_axum; \"axum\" axum".into());
        assert_eq!(source.words("axum").collect::<Vec<_>>(), [0, 33]);
    }

    #[test]
    fn brackets_are_matched() {
        assert_eq!(after_closing("x { ( [ ] ) } y", 2), Some(13));
        assert_eq!(after_closing("x { (", 2), None);
    }
}
