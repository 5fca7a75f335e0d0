//! What a page says to robots about showing it elsewhere (<https://www.robotstxt.org/meta.html> and what search engines
//! made of it): a preview is a snippet with a picture. `noindex` is about search, and previews are not that.

/// Under which this server is addressed alone.
const AGENT: &str = "myelin";
/// Directives that have a value after a colon.
const WITH_VALUE: &[&str] = &["max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"];

/// What may be shown of a page beside its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Robots {
    pub snippet: bool,
    pub image: bool,
}

impl Robots {
    /// Of `X-Robots-Tag` headers and of `content` of `<meta name="robots">`.
    pub fn of<'a>(said: impl IntoIterator<Item = &'a str>) -> Self {
        let mut robots = Self { snippet: true, image: true };
        said.into_iter().for_each(|said| robots.heed(&said.to_ascii_lowercase()));
        robots
    }

    fn heed(&mut self, said: &str) {
        let (agent, directives) = match said.split_once(':') {
            Some((name, _)) if WITH_VALUE.contains(&name.trim()) || name.contains(',') => (AGENT, said),
            Some((agent, directives)) => (agent.trim(), directives),
            None => (AGENT, said),
        };
        if agent != AGENT {
            return;
        }
        for directive in directives.split(',') {
            let (name, value) = directive.split_once(':').unwrap_or((directive, ""));
            match (name.trim(), value.trim()) {
                ("nosnippet", _) | ("max-snippet", "0") => self.snippet = false,
                ("noimageindex", _) | ("max-image-preview", "none") => self.image = false,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_snippets_and_images_is_heeded() {
        for (said, snippet, image) in [
            (&[][..], true, true),
            (&["noindex, nofollow"], true, true),
            (&["nosnippet"], false, true),
            (&["noindex,NoSnippet"], false, true),
            (&["max-snippet:0"], false, true),
            (&["max-snippet: 20, max-image-preview:none"], true, false),
            (&["index", "noimageindex"], true, false),
            (&["googlebot: nosnippet"], true, true),
            (&["myelin: nosnippet, noimageindex"], false, false),
            (&["unavailable_after: 25 Jun 2010 15:00:00 PST"], true, true),
            (&["follow, max-snippet:0"], false, true),
            (&[":"], true, true),
        ] {
            assert_eq!(Robots::of(said.iter().copied()), Robots { snippet, image }, "{said:?}");
        }
    }
}
