//! Percent-encoding of what goes into a path.

/// Everything but unreserved characters.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn identifiers_are_one_segment() {
        assert_eq!(super::encoded("$a/b:c.d?"), "%24a%2Fb%3Ac.d%3F");
        assert_eq!(super::encoded("ä"), "%C3%A4");
    }
}
