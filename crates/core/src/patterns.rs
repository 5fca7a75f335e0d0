//! Patterns of configurations, filters and rooms.

/// `*` stands for any characters. Each piece between stars is taken at its first occurrence; the first and the last
/// are at the ends. Linear in the length of both for one star, bounded by their product.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// `*` stands for any characters, `?` for one byte; letters of ASCII are the same in both cases. Goes back to the last `*`
/// only, so the effort is bounded by the product of both lengths.
pub fn glob(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at_glob, mut at_text) = (0, 0);
    // Where to go on if it turns out that the last `*` stands for one character more.
    let mut last_star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match glob.get(at_glob) {
            Some(b'*') => {
                last_star = Some((at_glob, at_text));
                at_glob += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&text[at_text]) => {
                at_glob += 1;
                at_text += 1;
            }
            _ => {
                let Some((star, from)) = last_star else { return false };
                last_star = Some((star, from + 1));
                (at_glob, at_text) = (star + 1, from + 1);
            }
        }
    }
    glob[at_glob..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.x", "a.b.X", true),
            ("*.EVIL.org", "very.evil.org", true),
            ("*a*a*b", "aaaaaaaa", false),
            ("a**", "a", true),
            ("a.b", "axb", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("a.org", "a.org", true),
            ("a.org", "b.a.org", false),
            ("*.a.org", "b.a.org", true),
            ("*.a.org", "a.org", false),
            ("*", "", true),
            ("*", "anything", true),
            ("m*.a.*", "matrix.a.org", true),
            ("m*x*x", "mx", false),
            ("m*x*x", "mxx", true),
            ("a*a", "a", false),
            ("", "a", false),
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.name", false),
            ("a*b*c", "aXbYbc", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
