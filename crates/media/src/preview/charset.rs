//! Bytes of a page as text (HTML, "Determining the character encoding"): what the page starts with, what the server says,
//! what the page says, and else what fits.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Where a page may say what it is written in.
const DECLARATION_WITHIN: usize = 1024;
/// Longer names are none.
const LABEL_SIZE_MAX: usize = 40;

/// Never fails: what is no character becomes a replacement character.
pub fn decode(bytes: &[u8], content_type: Option<&str>) -> String {
    let declared = content_type.and_then(label_in).or_else(|| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION_WITHIN)]).into_owned();
        label_in(&start).filter(|encoding| encoding.is_ascii_compatible())
    });
    // A byte order mark wins over what is declared.
    let encoding = declared.unwrap_or_else(|| guess(bytes));
    encoding.decode(bytes).0.into_owned()
}

/// After `charset=` in a header or a `<meta>`, or `encoding=` in an XML declaration.
fn label_in(text: &str) -> Option<&'static Encoding> {
    let lower = text.to_ascii_lowercase();
    ["charset", "encoding"].iter().find_map(|name| {
        let after = lower.match_indices(name).map(|(at, _)| &lower[at + name.len()..]);
        after.filter_map(|rest| rest.trim_start().strip_prefix('=')).find_map(label)
    })
}

fn label(rest: &str) -> Option<&'static Encoding> {
    let rest = rest.trim_start().trim_start_matches(['"', '\'']);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)).unwrap_or(rest.len());
    let label = rest.get(..end.min(LABEL_SIZE_MAX))?;
    Encoding::for_label(label.as_bytes())
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    match std::str::from_utf8(bytes) {
        Ok(_) => UTF_8,
        // A page that was cut off may end within a character, after others of its kind.
        Err(error) if error.error_len().is_none() && !bytes[..error.valid_up_to()].is_ascii() => UTF_8,
        Err(_) => WINDOWS_1252,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_its_character_set() {
        let cases: &[(&[u8], Option<&str>, &str)] = &[
            (b"caf\xe9", None, "café"),
            ("café".as_bytes(), None, "café"),
            (&"éé".as_bytes()[..3], None, "é\u{fffd}"),
            (b"\xef\xbb\xbfa\xc3\xa9", Some("text/html; charset=latin1"), "aé"),
            (b"\xff\xfea\0\xe9\0", None, "aé"),
            (b"\xef\xf0\xe8\xe2\xe5\xf2", Some("text/html;charset=\"windows-1251\""), "привет"),
            (b"<meta charset=windows-1251>\xef", None, "<meta charset=windows-1251>п"),
            (
                b"<meta http-equiv=x content='text/html; Charset = KOI8-R'>\xd0",
                None,
                "<meta http-equiv=x content='text/html; Charset = KOI8-R'>п",
            ),
            (
                b"<?xml version=1 encoding='Shift_JIS'?>\x82\xa0",
                None,
                "<?xml version=1 encoding='Shift_JIS'?>あ",
            ),
            (b"<meta charset=utf-16le>a", None, "<meta charset=utf-16le>a"),
            (b"a\xe9", Some("text/html; charset=nonsense"), "aé"),
            (b"", None, ""),
        ];
        for (bytes, content_type, expected) in cases {
            assert_eq!(decode(bytes, *content_type), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_declaration_far_into_the_page_is_none() {
        let page = [&[b' '; DECLARATION_WITHIN], b"<meta charset=koi8-r>\xe9".as_slice()].concat();
        assert!(decode(&page, None).ends_with('é'));
    }
}
