//! What a page says about itself, gathered token by token.
//!
//! No tree is built: time and memory are linear in the size of the page, whatever its depth, and everything that is kept
//! is bounded.

use super::{
    entities,
    tokens::{Token, Tokens, VALUE_SIZE_MAX, cut},
};

/// Properties kept.
const META_MAX: usize = 100;
const IMAGES_MAX: usize = 30;
/// Bytes of text kept for a summary.
const TEXT_SIZE_MAX: usize = 8 * 1024;

/// The page, unjudged: what is said first of a property is the first of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// `<meta>` by `property`, `name` or `itemprop`, in lower case.
    pub meta: Vec<(String, String)>,
    pub title: Option<String>,
    /// The first `<h1>` to `<h3>`.
    pub heading: Option<String>,
    /// `<base href>`.
    pub base: Option<String>,
    pub images: Vec<Image>,
    /// `<link rel="image_src">`.
    pub image_link: Option<String>,
    /// `<link rel="icon">`.
    pub icon: Option<String>,
    /// `<link rel="alternate" type="application/json+oembed">`.
    pub oembed: Option<String>,
    /// What stands outside of navigation and the like, a line per paragraph.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub src: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
}

impl Page {
    pub fn read(html: &str) -> Self {
        let mut reading = Reading::default();
        for token in Tokens::of(html) {
            match token {
                Token::Start { name, attributes } => reading.start(name, &Attributes(attributes)),
                Token::End { name } => reading.end(&name),
                Token::Text(text) => reading.text(text),
                Token::Raw => {}
            }
        }
        reading.finished()
    }

    pub fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Elements whose content is no text of the page, or not what it is about.
const SKIPPED: &[&str] = &[
    "aside", "audio", "button", "canvas", "dialog", "footer", "form", "header", "iframe", "menu", "nav",
    "noscript", "object", "script", "select", "style", "svg", "template", "textarea", "video",
];
/// Elements that end a paragraph.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "blockquote",
    "body",
    "br",
    "dd",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "td",
    "th",
    "tr",
    "ul",
];

#[derive(Default)]
struct Reading {
    page: Page,
    /// The element that is skipped, and how often it is open within itself.
    skipped: Option<(String, usize)>,
    /// The text of a title or heading that is open.
    open: Option<(Captured, String)>,
    in_body: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Captured {
    Title,
    Heading,
}

struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// The first of that name, if it says something.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }
}

impl Reading {
    fn start(&mut self, tag: String, attributes: &Attributes) {
        match &*tag {
            "meta" => self.meta(attributes),
            "link" => self.link(attributes),
            "base" => keep(&mut self.page.base, attributes.get("href").map(str::to_owned)),
            "body" => self.in_body = true,
            "title" if self.page.title.is_none() && self.skipped.is_none() => {
                self.open = Some((Captured::Title, String::new()));
            }
            "h1" | "h2" | "h3" if self.page.heading.is_none() && self.skipped.is_none() => {
                self.open = Some((Captured::Heading, String::new()));
            }
            "img" if self.skipped.is_none() => self.image(attributes),
            _ => {}
        }
        match &mut self.skipped {
            Some((open, depth)) if *open == tag => *depth += 1,
            Some(_) => {}
            None if SKIPPED.contains(&&*tag) => self.skipped = Some((tag, 1)),
            None if BLOCKS.contains(&&*tag) => self.line_break(),
            None => {}
        }
    }

    fn end(&mut self, tag: &str) {
        if let Some((open, depth)) = &mut self.skipped {
            if open == tag {
                *depth -= 1;
            }
            if *depth == 0 {
                self.skipped = None;
            }
            return;
        }
        if matches!(tag, "title" | "h1" | "h2" | "h3") {
            self.captured();
        }
        if BLOCKS.contains(&tag) {
            self.line_break();
        }
    }

    fn captured(&mut self) {
        let Some((what, text)) = self.open.take() else { return };
        let text = Some(words(&text)).filter(|text| !text.is_empty());
        match what {
            Captured::Title => keep(&mut self.page.title, text),
            Captured::Heading => keep(&mut self.page.heading, text),
        }
    }

    fn meta(&mut self, attributes: &Attributes) {
        let named = ["property", "name", "itemprop"].into_iter().find_map(|kind| attributes.get(kind));
        let (Some(name), Some(content)) = (named, attributes.get("content")) else { return };
        if self.page.meta.len() < META_MAX {
            let entry = (name.to_ascii_lowercase(), words(content));
            self.page.meta.push(entry);
        }
    }

    fn link(&mut self, attributes: &Attributes) {
        let (Some(rel), Some(href)) = (attributes.get("rel"), attributes.get("href")) else { return };
        let is = |wanted: &str| rel.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case(wanted));
        let kind = attributes.get("type").unwrap_or_default();
        let href = Some(href.to_owned());
        if is("image_src") {
            keep(&mut self.page.image_link, href);
        } else if is("icon") || is("apple-touch-icon") {
            keep(&mut self.page.icon, href);
        } else if is("alternate") && kind.eq_ignore_ascii_case("application/json+oembed") {
            keep(&mut self.page.oembed, href);
        }
    }

    fn image(&mut self, attributes: &Attributes) {
        let Some(src) = attributes.get("src") else { return };
        if src.starts_with("data:") || self.page.images.len() >= IMAGES_MAX {
            return;
        }
        let size = |name| attributes.get(name).and_then(|size| size.trim_end_matches("px").parse().ok());
        let image = Image { src: src.to_owned(), width: size("width"), height: size("height") };
        self.page.images.push(image);
    }

    fn text(&mut self, text: &str) {
        if self.skipped.is_some() {
            return;
        }
        if let Some((what, captured)) = &mut self.open {
            if captured.len() < VALUE_SIZE_MAX {
                captured.push_str(&entities::decode(cut(text, VALUE_SIZE_MAX)));
            }
            if *what == Captured::Title {
                return;
            }
        }
        if self.in_body && self.page.text.len() < TEXT_SIZE_MAX {
            let text = entities::decode(cut(text, TEXT_SIZE_MAX));
            // Line breaks of the source are spaces; those of the text are the paragraphs'.
            self.page.text.extend(text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }));
        }
    }

    fn line_break(&mut self) {
        if !self.page.text.is_empty() && !self.page.text.ends_with('\n') {
            self.page.text.push('\n');
        }
    }

    fn finished(mut self) -> Page {
        self.captured();
        let lines = self.page.text.lines().map(words).filter(|line| !line.is_empty());
        self.page.text = lines.collect::<Vec<_>>().join("\n");
        self.page
    }
}

fn keep(slot: &mut Option<String>, value: Option<String>) {
    if slot.is_none() {
        *slot = value;
    }
}

/// Words with one space between them.
pub fn words(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_says_is_gathered() {
        let page = Page::read(
            "<!doctype html><html><head><title> A  &amp; B\n</title><base href='/dir/'>\
             <meta property=\"og:title\" content='Caf&eacute;'><META NAME=Description CONTENT=\"x > y\">\
             <meta property=og:title content=second><meta charset=utf-8><meta name=empty content=''>\
             <link rel='shortcut icon' href=/i.ico><link rel=alternate type='application/json+oembed' href=/o>\
             <script>if (a < b) document.write('<meta name=evil content=1><title>no</title>')</script>\
             <style>p::after { content: '<h1>' }</style></head>\
             <body><nav><p>menu <a>b</a></p><nav>inner</nav>still</nav><h1>Head <b>line</b></h1>\
             <p>First\n para.<br>Second<p>Third<!-- <p>not this --><img src=a.png width=40 height=30px>\
             <img src='data:image/png;base64,AAAA'><footer><img src=tracker.gif></footer></body></html>",
        );
        assert_eq!(page.title.as_deref(), Some("A & B"));
        assert_eq!(page.heading.as_deref(), Some("Head line"));
        assert_eq!(page.base.as_deref(), Some("/dir/"));
        assert_eq!(page.meta("og:title"), Some("Café"));
        assert_eq!(page.meta("description"), Some("x > y"));
        assert_eq!((page.meta("evil"), page.meta("empty")), (None, None));
        assert_eq!(page.icon.as_deref(), Some("/i.ico"));
        assert_eq!(page.oembed.as_deref(), Some("/o"));
        assert_eq!(page.images, [Image { src: "a.png".into(), width: Some(40), height: Some(30) }]);
        assert_eq!(page.text, "Head line\nFirst para.\nSecond\nThird");
    }

    #[test]
    fn soup_is_read_as_far_as_it_goes() {
        for (html, title, text) in [
            ("", None, ""),
            ("plain", None, ""),
            ("<title>open", Some("open"), ""),
            ("<title></title><title>second</title>", Some("second"), ""),
            ("<body>a<p", None, "a"),
            ("<body>a</p></div></nav>b", None, "a\nb"),
            ("<body>a<script>never closed <p>b", None, "a"),
            ("<body>a<svg><title>drawn</title></svg>b", None, "ab"),
            ("<body>a&#0;&notanentity;b", None, "a\u{fffd}&notanentity;b"),
        ] {
            let page = Page::read(html);
            assert_eq!((page.title.as_deref(), &*page.text), (title, text), "{html}");
        }
    }

    #[test]
    fn hostile_pages_cost_no_more_than_their_size() {
        let many = 100_000;
        let attributes: String = (0..many).map(|n| format!(" a{n}=\"x\"")).collect();
        for page in [
            "<div>".repeat(many),
            "<a><b><table>".repeat(many),
            "<p>".repeat(many),
            "<nav>".repeat(many) + "text",
            format!("<meta property=og:title content=x{attributes}>"),
            format!("<meta{attributes} property=og:title content=x>"),
            "<meta property=og:title content=x>".repeat(many),
            "<img src=x>".repeat(many),
            "<body>".to_owned() + &"text ".repeat(many),
            format!("<title>{}", "&amp;".repeat(many)),
            "&".repeat(many),
            "</".repeat(many),
            "<title>".repeat(many),
            format!("<script>{}", "</scrip".repeat(many)),
            format!("<a {}", "\"".repeat(many)),
            format!("<a {}", "=".repeat(many)),
            "<!--".repeat(many),
            "<".repeat(many),
            format!("<meta property=\"{0}\" content=\"{0}\">", "x".repeat(many)),
        ] {
            let read = Page::read(&page);
            assert!(read.meta.len() <= META_MAX && read.images.len() <= IMAGES_MAX);
            let kept = read.meta.iter().map(|(name, value)| name.len().max(value.len())).max().unwrap_or(0);
            assert!(kept <= VALUE_SIZE_MAX);
            assert!(
                read.text.len() <= 2 * TEXT_SIZE_MAX
                    && read.title.is_none_or(|title| title.len() <= 2 * VALUE_SIZE_MAX)
            );
        }
    }
}
