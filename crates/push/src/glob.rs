//! Glob patterns (appendices, "Glob-style matching"): of a whole value, or of words in a text. Case does not matter; both
//! sides come in lower case.

use regex::{Regex, RegexBuilder};

/// Memory of one pattern with wildcards.
const COMPILED_SIZE_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub enum Glob {
    Literal(String),
    Wild(Regex),
    /// Too large when compiled.
    Never,
}

impl Glob {
    /// Matches whole values.
    pub fn whole(pattern: &str) -> Self {
        Self::compile(pattern, |inner| format!("(?s)^{inner}$"))
    }

    /// Matches from one word boundary to another.
    pub fn words(pattern: &str) -> Self {
        const EDGE: &str = r"(?:^|$|[^A-Za-z0-9_]|(?-u:\b))";
        Self::compile(pattern, |inner| format!("(?s){EDGE}{inner}{EDGE}"))
    }

    pub fn is_whole(&self, value: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == value,
            Self::Wild(regex) => regex.is_match(value),
            Self::Never => false,
        }
    }

    pub fn is_in_words(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => has_words(text, literal),
            Self::Wild(regex) => regex.is_match(text),
            Self::Never => false,
        }
    }

    fn compile(pattern: &str, frame: impl Fn(&str) -> String) -> Self {
        let pattern = pattern.to_lowercase();
        if !pattern.contains(['*', '?']) {
            return Self::Literal(pattern);
        }
        let regex = RegexBuilder::new(&frame(&inner(&pattern))).size_limit(COMPILED_SIZE_MAX).build();
        regex.map_or(Self::Never, Self::Wild)
    }
}

pub fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether `words` stand in `text` between word boundaries.
pub fn has_words(text: &str, words: &str) -> bool {
    if words.is_empty() {
        return text.is_empty();
    }
    let is_word = |c: Option<char>| c.is_some_and(is_word_char);
    let (opens, closes) = (is_word(words.chars().next()), is_word(words.chars().next_back()));
    let mut from = 0;
    while let Some(at) = text[from..].find(words) {
        let start = from + at;
        let before = text[..start].chars().next_back();
        let after = text[start + words.len()..].chars().next();
        if !(opens && is_word(before) || closes && is_word(after)) {
            return true;
        }
        // Matches may overlap.
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// Runs of wildcards are counted together, as `a**b` would else cost more than `a*b`.
fn inner(pattern: &str) -> String {
    let mut regex = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while !rest.is_empty() {
        let plain = rest.find(['*', '?']).unwrap_or(rest.len());
        regex.push_str(&regex::escape(&rest[..plain]));
        rest = &rest[plain..];
        let wild = rest.find(|c| c != '*' && c != '?').unwrap_or(rest.len());
        let single = rest[..wild].matches('?').count();
        match (single, rest[..wild].contains('*')) {
            (0, false) => {}
            (0, true) => regex.push_str(".*"),
            (n, true) => regex.push_str(&format!(".{{{n},}}")),
            (n, false) => regex.push_str(&format!(".{{{n}}}")),
        }
        rest = &rest[wild..];
    }
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values() {
        let table = [
            ("lunc?*", "lunch plans", true),
            ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "mxroom.message", false),
            ("a*c", "a\nc", true),
            ("?", "ü", true),
            ("M.Notice", "m.notice", true),
        ];
        for (pattern, value, expected) in table {
            assert_eq!(Glob::whole(pattern).is_whole(value), expected, "{pattern} on {value}");
        }
    }

    #[test]
    fn words_in_a_text() {
        let table = [
            ("ex*ple", "an example event.", true),
            ("ex*ple", "exple", true),
            ("ex*ple", "an exciting triple-whammy", true),
            ("ex*ple", "examples", false),
            ("tea", "it's time for tea", true),
            ("tea", "teapot, tea!", true),
            ("tea", "team steal", false),
            ("tea", "tea_time", false),
            ("tea", "grütea", true),
            ("日本", "今日本当", true),
            ("!x", "a!x", true),
            ("a a", "xa a a", true),
            ("", "any", false),
            ("c?t", "a cat.", true),
            ("c?t", "a cart.", false),
            ("*", "", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(Glob::words(pattern).is_in_words(text), expected, "{pattern} in {text}");
        }
    }

    #[test]
    fn what_is_too_large_never_matches() {
        let pattern = format!("{}*", "?".repeat(100_000));
        assert!(!Glob::words(&pattern).is_in_words(&"x".repeat(100_001)));
    }
}
