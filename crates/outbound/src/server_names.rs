//! Which servers this server talks with, in either direction.

use ruma::ServerName;

/// Lists of server names, where `*` stands for any characters. A pattern is compared with the name as it is and with
/// its host alone, without regard to case.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    enabled: bool,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl ServerNames {
    /// An empty `allow` allows everybody; `deny` wins.
    pub fn new(allow: &[String], deny: &[String]) -> Self {
        let lower =
            |patterns: &[String]| patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        Self { enabled: true, allow: lower(allow), deny: lower(deny) }
    }

    /// Federation is off.
    pub fn nobody() -> Self {
        Self::default()
    }

    pub fn permits(&self, server: &ServerName) -> bool {
        let (name, host) = (server.as_str().to_ascii_lowercase(), server.host().to_ascii_lowercase());
        let among = |patterns: &[String]| {
            patterns.iter().any(|pattern| matches(pattern, &name) || matches(pattern, &host))
        };
        self.enabled && !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

/// Each piece between stars is taken at its first occurrence; the first and the last are at the ends.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn names(allow: &[&str], deny: &[&str]) -> ServerNames {
        let owned = |list: &[&str]| list.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>();
        ServerNames::new(&owned(allow), &owned(deny))
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("a.org", "a.org", true),
            ("a.org", "b.a.org", false),
            ("*.a.org", "b.a.org", true),
            ("*.a.org", "a.org", false),
            ("*", "anything", true),
            ("m*.a.*", "matrix.a.org", true),
            ("m*x*x", "mx", false),
            ("m*x*x", "mxx", true),
            ("a*a", "a", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn deny_wins_over_allow_and_an_empty_allow_is_everybody() {
        let server = server_name!("Matrix.Example.org:8449");
        for (allow, deny, expected) in [
            (&[][..], &[][..], true),
            (&["example.org"], &[], false),
            (&["*.example.org"], &[], true),
            (&["*.EXAMPLE.org:8449"], &[], true),
            (&[], &["matrix.example.org"], false),
            (&["*"], &["*:8449"], false),
            (&["*"], &["*.example.com"], true),
        ] {
            assert_eq!(names(allow, deny).permits(server), expected, "{allow:?} {deny:?}");
        }
    }

    #[test]
    fn nobody_is_permitted_without_federation() {
        assert!(!ServerNames::nobody().permits(server_name!("example.org")));
    }
}
