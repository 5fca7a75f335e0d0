//! oEmbed (<https://oembed.com>): what a site says about a page of its own to those who embed it.
//!
//! Pages name the document about themselves in a `<link>`; of a few large sites, whose pages say little without a browser,
//! the address is known.

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::{
    graph::{Graph, set},
    html::{Page, words},
    patterns::Pattern,
    summary,
};

/// Endpoints, and the URLs that they know about.
const PROVIDERS: &[(&str, &[&str])] = &[
    (
        "https://www.youtube.com/oembed",
        &[
            "https://youtube.com/watch*",
            "https://*.youtube.com/watch*",
            "https://*.youtube.com/shorts/*",
            "https://*.youtube.com/playlist*",
            "https://youtu.be/*",
        ],
    ),
    ("https://vimeo.com/api/oembed.json", &["https://vimeo.com/*"]),
    (
        "https://publish.twitter.com/oembed",
        &["https://twitter.com/*/status/*", "https://*.twitter.com/*/status/*", "https://x.com/*/status/*"],
    ),
    ("https://open.spotify.com/oembed", &["https://open.spotify.com/*"]),
    ("https://soundcloud.com/oembed", &["https://soundcloud.com/*"]),
    ("https://www.tiktok.com/oembed", &["https://www.tiktok.com/*/video/*"]),
    ("https://www.flickr.com/services/oembed/", &["https://www.flickr.com/photos/*", "https://flic.kr/*"]),
    ("https://www.reddit.com/oembed", &["https://www.reddit.com/r/*/comments/*"]),
];

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "type", default)]
    kind: String,
    title: Option<String>,
    author_name: Option<String>,
    provider_name: Option<String>,
    thumbnail_url: Option<String>,
    /// The picture itself, of a photo.
    url: Option<String>,
    html: Option<String>,
}

/// Where to ask about `url`, if its site is known.
pub fn endpoint(url: &Url) -> Option<Url> {
    let (endpoint, _) = PROVIDERS
        .iter()
        .find(|(_, patterns)| patterns.iter().any(|pattern| Pattern::new(pattern).matches(url)))?;
    let mut endpoint = Url::parse(endpoint).ok()?;
    endpoint.query_pairs_mut().append_pair("format", "json").append_pair("url", url.as_str());
    Some(endpoint)
}

/// `None` if it is no oEmbed document. `url` is where it was found.
pub fn read(json: &str, url: &Url) -> Option<Graph> {
    let document: Document = serde_json::from_str(json).ok()?;
    let text = |text: Option<String>| text.map(|text| summary::cut(&words(&text)));
    let mut properties = Map::new();
    set(&mut properties, "og:title", text(document.title).or_else(|| text(document.author_name)));
    set(&mut properties, "og:site_name", text(document.provider_name));
    if document.kind == "video" {
        set(&mut properties, "og:type", Some("video.other".to_owned()));
    }
    // Of a rich document the text; scripts and frames stay behind.
    if document.kind == "rich"
        && let Some(html) = document.html
    {
        let page = Page::read(&format!("<body>{html}"));
        set(&mut properties, "og:description", summary::of(&page.text));
    }
    let picture = document.url.filter(|_| document.kind == "photo");
    let images = picture.into_iter().chain(document.thumbnail_url).filter_map(|image| url.join(&image).ok());
    let images = images.filter(|image| matches!(image.scheme(), "http" | "https")).collect();
    let graph = Graph { properties, images };
    (!graph.properties.is_empty() || !graph.images.is_empty()).then_some(graph)
}

/// What is said here goes before what the page says.
pub fn overlay(page: Graph, over: Graph) -> Graph {
    let mut properties: Map<String, Value> = over.properties;
    for (name, value) in page.properties {
        properties.entry(name).or_insert(value);
    }
    Graph { properties, images: over.images.into_iter().chain(page.images).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn known_sites_are_asked_at_their_endpoints() {
        for (page, host) in [
            ("https://www.youtube.com/watch?v=x&t=1", Some("www.youtube.com")),
            ("https://youtu.be/x", Some("www.youtube.com")),
            ("https://x.com/a/status/1", Some("publish.twitter.com")),
            ("https://vimeo.com/1", Some("vimeo.com")),
            ("https://evil.test/https://youtu.be/x", None),
            ("https://youtu.be.evil.test/x", None),
            ("https://www.youtube.com/about", None),
        ] {
            assert_eq!(endpoint(&url(page)).as_ref().and_then(Url::host_str), host, "{page}");
        }
        let endpoint = endpoint(&url("https://youtu.be/x?a=b&c")).unwrap();
        assert_eq!(endpoint.query(), Some("format=json&url=https%3A%2F%2Fyoutu.be%2Fx%3Fa%3Db%26c"));
    }

    #[test]
    fn documents_become_graphs() {
        let at = url("https://a.test/oembed");
        let graph = |json: &str| read(json, &at);
        let video = graph(
            r#"{"type": "video", "version": "1.0", "title": " A\nB ", "provider_name": "P", "thumbnail_url": "/t.jpg",
                "html": "<iframe></iframe>"}"#,
        )
        .unwrap();
        assert_eq!(
            Value::Object(video.properties),
            serde_json::json!({"og:title": "A B", "og:site_name": "P", "og:type": "video.other"})
        );
        assert_eq!(video.images, [url("https://a.test/t.jpg")]);
        let rich = graph(
            r#"{"type": "rich", "author_name": "N", "html": "<blockquote><p>Said &lt;it&gt;</p></blockquote><script>x</script>"}"#,
        )
        .unwrap();
        assert_eq!(
            Value::Object(rich.properties),
            serde_json::json!({"og:title": "N", "og:description": "Said <it>"})
        );
        let photo =
            graph(r#"{"type": "photo", "url": "https://b.test/p.png", "thumbnail_url": "data:x"}"#).unwrap();
        assert_eq!(photo.images, [url("https://b.test/p.png")]);
        for none in ["", "[]", "{}", "<xml/>", r#"{"type": 5}"#, r#"{"title": {}}"#] {
            assert_eq!(graph(none), None, "{none}");
        }
    }
}
