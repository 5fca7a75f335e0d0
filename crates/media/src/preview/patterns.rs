//! Which URLs may be previewed, by patterns of the configuration.

use myelin_core::patterns::wildcard;
use url::Url;

/// A URL or a host, in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    whole: bool,
}

impl Pattern {
    /// With `://` it is compared with the whole URL (without its fragment), else with the host.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_ascii_lowercase(), whole: text.contains("://") }
    }

    pub fn matches(&self, url: &Url) -> bool {
        match self.whole {
            true => {
                let shown = &url[..url::Position::AfterQuery];
                wildcard(&self.text, &shown.to_ascii_lowercase())
            }
            // A name may end with a dot and still be the same host.
            false => url.host_str().is_some_and(|host| wildcard(&self.text, host.trim_end_matches('.'))),
        }
    }
}

/// Denied patterns win; an empty list of allowed ones allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
}

impl Patterns {
    pub fn new(allow: &[String], deny: &[String]) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Self { allow: patterns(allow), deny: patterns(deny) }
    }

    pub fn permit(&self, url: &Url) -> bool {
        let among = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(url));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_urls_are_compared() {
        for (pattern, url, expected) in [
            ("a.test", "https://a.test/x", true),
            ("a.test", "https://A.TEST:99/x", true),
            ("a.test", "https://a.test./x", true),
            ("a.test", "https://b.a.test/", false),
            ("*.a.test", "https://b.a.test/", true),
            ("a.test", "https://b.test/a.test", false),
            ("a.test", "https://a.test@b.test/", false),
            ("https://a.test/x/*", "https://a.test/x/y?z#f", true),
            ("https://a.test/x", "https://a.test/x#f", true),
            ("http://*", "https://a.test/", false),
            ("*://*/*.exe", "https://a.test/b.EXE", true),
            ("127.0.0.1", "http://0x7f.1/", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(&Url::parse(url).unwrap()), expected, "{pattern} {url}");
        }
    }

    #[test]
    fn deny_wins_and_an_empty_allow_is_everything() {
        let url = Url::parse("https://b.a.test/").unwrap();
        let permit = |allow: &[&str], deny: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
            Patterns::new(&owned(allow), &owned(deny)).permit(&url)
        };
        assert!(permit(&[], &[]));
        assert!(permit(&["*.a.test"], &[]));
        assert!(!permit(&["c.test"], &[]));
        assert!(!permit(&["*"], &["*.a.test"]));
    }
}
