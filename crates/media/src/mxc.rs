//! `mxc://` URIs, checked (Client-Server API, "Content repository", "Security considerations").

use std::fmt;

use ruma::{OwnedServerName, ServerName};

/// Media ids from outside; ours have 24 characters.
const MEDIA_ID_SIZE_MAX: usize = 255;

/// A valid `mxc://` URI: a server name, and an id of `[A-Za-z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mxc {
    server: OwnedServerName,
    id: String,
}

impl Mxc {
    /// `None` if the id is not one.
    pub fn new(server: &ServerName, id: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let valid = !id.is_empty() && id.len() <= MEDIA_ID_SIZE_MAX && id.bytes().all(allowed);
        valid.then(|| Self { server: server.to_owned(), id: id.to_owned() })
    }

    /// The whole URI.
    pub fn parse(uri: &str) -> Option<Self> {
        let (server, id) = uri.strip_prefix("mxc://")?.split_once('/')?;
        Self::new(<&ServerName>::try_from(server).ok()?, id)
    }

    pub fn server(&self) -> &ServerName {
        &self.server
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// As the tables have it.
    pub(crate) fn key(&self) -> (String, String) {
        (self.server.to_string(), self.id.clone())
    }
}

impl fmt::Display for Mxc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_uris_are_taken() {
        for good in ["mxc://example.org/a", "mxc://[::1]:8448/aZ09_-", "mxc://127.0.0.1/x"] {
            assert_eq!(Mxc::parse(good).map(|mxc| mxc.to_string()).as_deref(), Some(good));
        }
        let long = format!("mxc://a/{}", "x".repeat(MEDIA_ID_SIZE_MAX + 1));
        for bad in [
            "",
            "mxc://",
            "mxc://a",
            "mxc://a/",
            "mxc:///a",
            "http://a/b",
            "mxc://a/b/c",
            "mxc://a/../etc",
            "mxc://a/%2e%2e",
            "mxc://a/b.c",
            "mxc://a b/c",
            "mxc://a/b\0",
            "mxc://a/ü",
            &long,
        ] {
            assert_eq!(Mxc::parse(bad), None, "{bad}");
        }
    }
}
