//! Paths of requests: identifiers in them are percent-encoded.

use std::fmt::Write;

/// One segment of a path, or a value in a query.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_unreserved_is_encoded() {
        assert_eq!(segment("!r/o?m:a.test"), "%21r%2Fo%3Fm%3Aa.test");
        assert_eq!(segment("$ü-_~9"), "%24%C3%BC-_~9");
        assert_eq!(segment("$a/b:c.d?"), "%24a%2Fb%3Ac.d%3F");
        assert_eq!(segment("ä"), "%C3%A4");
    }
}
