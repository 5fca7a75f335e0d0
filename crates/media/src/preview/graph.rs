//! A page as OpenGraph properties (<https://ogp.me>): what it says in them, what it says otherwise, what can be guessed.

use serde_json::{Map, Value};
use url::Url;

use super::{
    html::{Image, Page},
    robots::Robots,
    summary,
};

/// Kinds of properties that are passed on.
const KINDS: &[&str] = &["og:", "article:", "book:", "music:", "profile:", "video:"];
/// Images that are tried, best first.
const CANDIDATES_MAX: usize = 3;
/// Smaller ones are spacers and counters.
const IMAGE_SIDE_MIN: u32 = 16;

/// What a preview is made of, before its image is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    pub properties: Map<String, Value>,
    /// Where a picture may be, best first.
    pub images: Vec<Url>,
}

impl Graph {
    /// `url` is where the page was found in the end.
    pub fn of(page: &Page, url: &Url) -> Self {
        let mut properties = Map::new();
        let passed_on = |name: &str| {
            KINDS.iter().any(|kind| name.starts_with(kind))
                && (!name.starts_with("og:image") || name == "og:image:alt")
        };
        for (name, value) in page.meta.iter().filter(|(name, _)| passed_on(name)) {
            properties.entry(name.clone()).or_insert_with(|| summary::cut(value).into());
        }
        let title = page.meta("twitter:title").or(page.title.as_deref()).or(page.heading.as_deref());
        set(&mut properties, "og:title", title.map(summary::cut));
        let said = page.meta("twitter:description").or_else(|| page.meta("description"));
        let description = said.map(summary::cut).or_else(|| summary::of(&page.text));
        set(&mut properties, "og:description", description);
        Self { properties, images: images(page, url) }
    }

    /// Without what the page does not want to be shown elsewhere.
    #[must_use]
    pub fn for_robots(mut self, robots: Robots) -> Self {
        if !robots.snippet {
            self.properties.remove("og:description");
        }
        if !robots.image {
            self.images.clear();
        }
        self
    }

    pub fn has_title(&self) -> bool {
        self.properties.contains_key("og:title")
    }
}

/// Unless it is there already.
pub fn set(properties: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        properties.entry(name).or_insert_with(|| value.into());
    }
}

fn images(page: &Page, url: &Url) -> Vec<Url> {
    let base = page.base.as_deref().and_then(|base| url.join(base).ok()).unwrap_or_else(|| url.clone());
    let named =
        ["og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src", "image"];
    let named = named.iter().filter_map(|name| page.meta(name));
    let linked = page.image_link.as_deref();
    let candidates = named.chain(linked).chain(shown(page)).chain(page.icon.as_deref());
    let mut found: Vec<Url> = Vec::new();
    for candidate in candidates.filter_map(|candidate| base.join(candidate).ok()) {
        if matches!(candidate.scheme(), "http" | "https") && !found.contains(&candidate) {
            found.push(candidate);
        }
        if found.len() == CANDIDATES_MAX {
            break;
        }
    }
    found
}

/// The largest image by what the page says, else the first that may be one.
fn shown(page: &Page) -> Option<&str> {
    let area = |image: &Image| Some(u64::from(image.width?) * u64::from(image.height?));
    let is_small = |side: Option<u32>| side.is_some_and(|side| side < IMAGE_SIDE_MIN);
    let pictures = || page.images.iter().filter(|image| !is_small(image.width) && !is_small(image.height));
    // Of equals the first.
    let largest = pictures().rev().filter(|image| area(image).is_some()).max_by_key(|image| area(image));
    largest.or_else(|| pictures().next()).map(|image| &*image.src)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(html: &str) -> Graph {
        Graph::of(&Page::read(html), &Url::parse("https://a.test/dir/page?q").unwrap())
    }

    fn property(html: &str, name: &str) -> Option<String> {
        graph(html).properties.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    #[test]
    fn titles_and_descriptions_come_from_the_best_that_there_is() {
        let layers = [
            ("<body><p>Text.", None, Some("Text.")),
            ("<body><h1>Head</h1>", Some("Head"), None),
            ("<title>Title</title>", Some("Title"), None),
            ("<meta name=description content=Plain>", Some("Title"), Some("Plain")),
            (
                "<meta name=twitter:title content=Tw><meta name=twitter:description content=Twd>",
                Some("Tw"),
                Some("Twd"),
            ),
            (
                "<meta property=og:title content=Og><meta property=og:description content=Ogd>",
                Some("Og"),
                Some("Ogd"),
            ),
        ];
        let mut page = String::new();
        for (added, title, description) in layers {
            page = format!("{added}{page}");
            assert_eq!(property(&page, "og:title").as_deref(), title, "{page}");
            if let Some(description) = description {
                assert_eq!(property(&page, "og:description").as_deref(), Some(description), "{page}");
            }
        }
    }

    #[test]
    fn only_properties_of_the_graph_are_passed_on() {
        let graph = graph(
            "<meta property=og:site_name content=S><meta property=article:author content=A>\
             <meta property=og:image content=x><meta property=og:image:width content=5>\
             <meta property=og:image:alt content=alt><meta name=generator content=g><meta name=twitter:card content=c>",
        );
        let names: Vec<_> = graph.properties.keys().map(String::as_str).collect();
        assert_eq!(names, ["article:author", "og:image:alt", "og:site_name"]);
    }

    #[test]
    fn images_are_found_and_resolved() {
        for (html, expected) in [
            ("", &[][..]),
            ("<meta property=og:image content=/i.png>", &["https://a.test/i.png"]),
            ("<base href=//b.test/x/><meta name=twitter:image content=i.png>", &["https://b.test/x/i.png"]),
            ("<base href='::'><meta property=og:image content=i.png>", &["https://a.test/dir/i.png"]),
            (
                "<link rel=icon href=/f.ico><img src=1.gif width=1 height=1><img src=a><img src=b width=20 height=20>\
                 <img src=c width=30 height=20>",
                &["https://a.test/dir/c", "https://a.test/f.ico"],
            ),
            ("<img src=pixel width=1><img src=a>", &["https://a.test/dir/a"]),
            (
                "<meta property=og:image content='javascript:alert(1)'><meta property=og:image:url content='file:///etc/passwd'>\
                 <meta property=og:image:secure_url content='data:image/png;base64,AA'>",
                &[],
            ),
            (
                "<meta property=og:image content=/1><meta property=og:image:secure_url content=/1>\
                 <meta name=twitter:image content=/2><link rel=image_src href=/3><img src=/4>",
                &["https://a.test/1", "https://a.test/2", "https://a.test/3"],
            ),
        ] {
            let found: Vec<_> = graph(html).images.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{html}");
        }
    }
}
