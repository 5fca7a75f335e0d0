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

#[cfg(test)]
mod tests {
    use super::*;

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
