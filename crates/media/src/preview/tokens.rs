//! HTML cut into tags and text, as far as a preview needs it (HTML, "Tokenization").
//!
//! The library that browsers' rules come in (html5ever) is quadratic in the attributes of a tag and in the depth of a page;
//! another one (html5gum) recurses per attribute and overflows the stack. Pages come from whoever posts a URL, so this
//! one is linear, keeps nothing but the current tag, and calls nothing deeper for any input.

use super::entities;

/// Attributes of one tag that are kept.
const ATTRIBUTES_MAX: usize = 50;
/// Bytes of a name, and of a value.
const NAME_SIZE_MAX: usize = 100;
pub const VALUE_SIZE_MAX: usize = 4 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Names are in lower case, values decoded.
    Start {
        name: String,
        attributes: Vec<(String, String)>,
    },
    End {
        name: String,
    },
    /// As it stands there.
    Text(&'a str),
    /// What stands in an element in which there are no tags and no references, like `<script>`.
    Raw,
}

pub struct Tokens<'a> {
    rest: &'a str,
    /// An element was opened that ends at its end tag only.
    within: Option<&'static str>,
}

/// No references are in these.
const RAW: &[&str] = &["script", "style", "xmp", "iframe", "noembed", "noframes"];
/// No tags are in these.
const TEXT_ONLY: &[&str] = &["title", "textarea"];

impl<'a> Tokens<'a> {
    pub fn of(html: &'a str) -> Self {
        Self { rest: html, within: None }
    }

    /// Takes so many bytes from the front.
    fn take(&mut self, size: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(size);
        self.rest = rest;
        taken
    }

    fn take_all(&mut self) -> &'a str {
        self.take(self.rest.len())
    }

    /// Up to and with `end`, or all.
    fn pass(&mut self, end: &str) {
        let size = self.rest.find(end).map_or(self.rest.len(), |at| at + end.len());
        self.take(size);
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        // Only ASCII ends it, so it ends between characters.
        let size = self.rest.bytes().position(|byte| !wanted(byte)).unwrap_or(self.rest.len());
        self.take(size)
    }

    fn content_of(&mut self, element: &'static str) -> Token<'a> {
        let bytes = self.rest.as_bytes();
        let is_end = |at: &usize| {
            let after = &bytes[at + 2..];
            after.get(..element.len()).is_some_and(|name| name.eq_ignore_ascii_case(element.as_bytes()))
                && after.get(element.len()).is_none_or(|byte| !byte.is_ascii_alphanumeric())
        };
        let end = self.rest.match_indices("</").map(|(at, _)| at).find(is_end);
        let content = self.take(end.unwrap_or(bytes.len()));
        if RAW.contains(&element) { Token::Raw } else { Token::Text(content) }
    }

    /// `None`: it is no tag that matters, and was passed over, or the page ends within it. Takes something in any case.
    fn tag(&mut self) -> Option<Token<'a>> {
        let bytes = self.rest.as_bytes();
        match (bytes.get(1), bytes.get(2)) {
            (Some(b'!'), _) if self.rest.starts_with("<!--") => {
                // `<!-->` is a whole comment.
                self.take(2);
                self.pass("-->");
                None
            }
            (Some(b'/'), Some(first)) if first.is_ascii_alphabetic() => {
                self.take(2);
                let name = named(self.take_while(is_name));
                self.pass(">");
                Some(Token::End { name })
            }
            (Some(b'!' | b'?' | b'/'), _) => {
                self.pass(">");
                None
            }
            (Some(first), _) if first.is_ascii_alphabetic() => {
                let token = self.start();
                if token.is_none() {
                    self.take_all();
                }
                token
            }
            _ => Some(Token::Text(self.take(1))),
        }
    }

    fn start(&mut self) -> Option<Token<'a>> {
        self.take(1);
        let name = named(self.take_while(is_name));
        let mut attributes = Vec::new();
        loop {
            self.take_while(|byte| byte.is_ascii_whitespace() || byte == b'/');
            match self.rest.as_bytes().first()? {
                b'>' => break,
                _ => self.attribute(&mut attributes)?,
            }
        }
        self.take(1);
        self.within = RAW.iter().chain(TEXT_ONLY).find(|element| **element == name).copied();
        Some(Token::Start { name, attributes })
    }

    fn attribute(&mut self, attributes: &mut Vec<(String, String)>) -> Option<()> {
        let whole = self.rest;
        // A name may begin with an equals sign.
        let first = whole.chars().next()?.len_utf8();
        self.take(first);
        let name = first + self.take_while(|byte| is_name(byte) && byte != b'=').len();
        self.take_while(|byte| byte.is_ascii_whitespace());
        let value = match self.rest.strip_prefix('=') {
            None => "",
            Some(_) => {
                self.take(1);
                self.take_while(|byte| byte.is_ascii_whitespace());
                self.value()?
            }
        };
        if attributes.len() < ATTRIBUTES_MAX {
            attributes.push((named(&whole[..name]), entities::decode(cut(value, VALUE_SIZE_MAX))));
        }
        Some(())
    }

    fn value(&mut self) -> Option<&'a str> {
        let quote = self.rest.chars().next().filter(|first| matches!(first, '"' | '\''));
        let Some(quote) = quote else {
            return Some(self.take_while(|byte| !byte.is_ascii_whitespace() && byte != b'>'));
        };
        self.take(1);
        let end = self.rest.find(quote)?;
        let value = self.take(end);
        self.take(1);
        Some(value)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        while !self.rest.is_empty() {
            if let Some(element) = self.within.take() {
                return Some(self.content_of(element));
            }
            match self.rest.find('<') {
                Some(0) => {
                    if let Some(token) = self.tag() {
                        return Some(token);
                    }
                }
                Some(at) => return Some(Token::Text(self.take(at))),
                None => return Some(Token::Text(self.take_all())),
            }
        }
        None
    }
}

fn is_name(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && byte != b'/' && byte != b'>'
}

fn named(text: &str) -> String {
    cut(text, NAME_SIZE_MAX).to_ascii_lowercase()
}

/// Ends between characters.
pub fn cut(text: &str, size_max: usize) -> &str {
    &text[..text.floor_char_boundary(size_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(html: &str) -> String {
        let show = |token: Token<'_>| match token {
            Token::Start { name, attributes } => {
                let attributes = attributes.iter().map(|(name, value)| format!(" {name}={value}"));
                format!("<{name}{}>", attributes.collect::<String>())
            }
            Token::End { name } => format!("</{name}>"),
            Token::Text(text) => format!("[{text}]"),
            Token::Raw => "[]".to_owned(),
        };
        Tokens::of(html).map(show).collect()
    }

    #[test]
    fn pages_are_cut_as_browsers_do() {
        for (html, expected) in [
            ("", ""),
            ("text", "[text]"),
            ("<P>a</P >b", "<p>[a]</p>[b]"),
            ("<a href=x title=\"y > z\" b='&lt;' c d = e/>t", "<a href=x title=y > z b=< c= d=e/>[t]"),
            ("<img/src=a/>", "<img src=a/>"),
            ("<a =b=c>", "<a =b=c>"),
            ("<br/>x", "<br>[x]"),
            ("a<!-- <b> -->c<!-->d<!---->e", "[a][c][d][e]"),
            ("<!doctype html><?xml x?></ x>a", "[a]"),
            ("1 < 2 <3", "[1 ][<][ 2 ][<][3]"),
            ("<script>if (a</b) '<p>'</scripty></SCRIPT>c", "<script>[]</script>[c]"),
            ("<title>a <b> &amp;</title>c", "<title>[a <b> &amp;]</title>[c]"),
            ("<title></title>c", "<title>[]</title>[c]"),
            ("<style>never closed <p>", "<style>[]"),
            ("a<p class=\"open", "[a]"),
            ("a<p class", "[a]"),
            ("a<p", "[a]"),
            ("a<", "[a][<]"),
            ("a<!-- open", "[a]"),
            ("ü<é>ö<a ü=ö>", "[ü][<][é>ö]<a ü=ö>"),
        ] {
            assert_eq!(shown(html), expected, "{html}");
        }
    }

    #[test]
    fn tags_are_bounded() {
        let many: String = (0..1_000).map(|n| format!(" a{n}=b")).collect();
        let long = "x".repeat(10_000);
        let html = format!("<p{many}>t<{long} {long}=\"{long}\">");
        let tokens: Vec<_> = Tokens::of(&html).collect();
        let Token::Start { attributes, .. } = &tokens[0] else { panic!("a tag") };
        assert_eq!(attributes.len(), ATTRIBUTES_MAX);
        assert_eq!(tokens[1], Token::Text("t"));
        let Token::Start { name, attributes } = &tokens[2] else { panic!("a tag") };
        assert_eq!((name.len(), attributes[0].0.len()), (NAME_SIZE_MAX, NAME_SIZE_MAX));
        assert_eq!(attributes[0].1.len(), VALUE_SIZE_MAX);
    }
}
