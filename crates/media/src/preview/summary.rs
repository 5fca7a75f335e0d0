//! Long texts in short.

/// A summary that reaches this needs no further paragraph.
const CHARS_ENOUGH: usize = 200;
const CHARS_MAX: usize = 500;
/// What a page says of itself in one property.
const PROPERTY_CHARS_MAX: usize = 1_000;

/// The first paragraphs of a text that has one per line.
pub fn of(text: &str) -> Option<String> {
    let mut summary = String::new();
    for paragraph in text.lines() {
        if summary.chars().count() >= CHARS_ENOUGH {
            break;
        }
        if !summary.is_empty() {
            summary.push_str("\n\n");
        }
        summary.push_str(paragraph);
    }
    (!summary.is_empty()).then(|| shortened(&summary, CHARS_MAX))
}

pub fn cut(text: &str) -> String {
    shortened(text, PROPERTY_CHARS_MAX)
}

/// Ends between words, if there are any.
fn shortened(text: &str, chars_max: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(chars_max) else { return text.to_owned() };
    let start = &text[..end];
    let words = start.rfind(char::is_whitespace).filter(|at| *at > end / 2);
    format!("{}…", start[..words.unwrap_or(end)].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_taken_until_it_is_enough() {
        assert_eq!(of(""), None);
        assert_eq!(of("One.\nTwo.").as_deref(), Some("One.\n\nTwo."));
        let long = "word ".repeat(45);
        let text = format!("{long}\n{long}\nnever");
        let summary = of(&text).unwrap();
        assert!(summary.starts_with("word") && !summary.contains("never"));
    }

    #[test]
    fn cuts_are_between_words_where_there_are_any() {
        assert_eq!(shortened("abc def ghi", 9), "abc def…");
        assert_eq!(shortened("abcdefghi", 4), "abcd…");
        assert_eq!(shortened("äöüß", 2), "äö…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
