//! Content types and file names from outside, made safe to hand on.

const CONTENT_TYPE_SIZE_MAX: usize = 255;
const FILE_NAME_CHARS_MAX: usize = 255;
/// What is said of content whose type is not known.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// A content type that can stand in a header: visible ASCII, with a type and a subtype.
pub fn content_type(given: Option<&str>) -> String {
    let given = given.map(str::trim).filter(|given| given.len() <= CONTENT_TYPE_SIZE_MAX);
    let given = given.filter(|given| given.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    let given = given.filter(|given| {
        let essence = given.split(';').next().unwrap_or_default().trim_end();
        matches!(essence.split_once('/'), Some((kind, sub)) if is_token(kind) && is_token(sub))
    });
    given.unwrap_or(OCTET_STREAM).to_owned()
}

/// A name without a path and without control characters.
pub fn file_name(given: &str) -> Option<String> {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !is_treacherous(*c)).take(FILE_NAME_CHARS_MAX).collect();
    let clean = clean.trim();
    (!clean.is_empty() && clean.chars().any(|c| c != '.')).then(|| clean.to_owned())
}

/// Control characters, and those that turn the direction of text so that one extension looks like another.
fn is_treacherous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_kept_if_they_are_some() {
        for good in ["image/png", "text/plain; charset=utf-8", "application/vnd.x+json"] {
            assert_eq!(content_type(Some(good)), good);
        }
        let long = format!("a/{}", "b".repeat(CONTENT_TYPE_SIZE_MAX));
        for bad in ["", "png", "/", "image/", "/png", "a b/c", "image/png\r\nX: y", "text/plain; a=ü", &long]
        {
            assert_eq!(content_type(Some(bad)), OCTET_STREAM, "{bad}");
        }
        assert_eq!(content_type(None), OCTET_STREAM);
    }

    #[test]
    fn file_names_are_only_names() {
        for (given, expected) in [
            ("cat.png", Some("cat.png")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\x\\y.txt", Some("y.txt")),
            ("a\r\nb", Some("ab")),
            ("gpj.\u{202e}exe", Some("gpj.exe")),
            ("Übersicht 1.pdf", Some("Übersicht 1.pdf")),
            ("", None),
            ("..", None),
            ("a/", None),
        ] {
            assert_eq!(file_name(given).as_deref(), expected, "{given}");
        }
        assert_eq!(file_name(&"x".repeat(300)).map(|name| name.len()), Some(FILE_NAME_CHARS_MAX));
    }
}
