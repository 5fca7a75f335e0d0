//! Which servers this server talks with, in either direction.

use myelin_core::patterns::wildcard;
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
            patterns.iter().any(|pattern| wildcard(pattern, &name) || wildcard(pattern, &host))
        };
        self.enabled && !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
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
