//! The signature of a request: `Authorization: X-Matrix …` (Server-Server API, "Request Authentication").

use std::fmt;

use myelin_dag::SigningKey;
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    pub origin: OwnedServerName,
    /// Left out by servers of specifications before 1.3.
    pub destination: Option<OwnedServerName>,
    /// `ed25519:version`.
    pub key: String,
    /// Unpadded base64.
    pub sig: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    #[error("the scheme is not X-Matrix")]
    Scheme,
    #[error("'{0}' is missing or malformed")]
    Field(&'static str),
}

/// The request as it is signed.
pub struct SignedParts<'a> {
    pub method: &'a str,
    /// Path and query, as sent.
    pub uri: &'a str,
    pub origin: &'a ServerName,
    pub destination: &'a ServerName,
    /// The body as canonical JSON.
    pub content: Option<&'a str>,
}

impl SignedParts<'_> {
    /// The canonical JSON that is signed.
    pub fn message(&self) -> String {
        let content = self.content.map(|content| format!(r#""content":{content},"#)).unwrap_or_default();
        let [destination, method, origin, uri] =
            [self.destination.as_str(), self.method, self.origin.as_str(), self.uri].map(Value::from);
        format!(r#"{{{content}"destination":{destination},"method":{method},"origin":{origin},"uri":{uri}}}"#)
    }

    pub fn sign(&self, key: &SigningKey) -> XMatrix {
        XMatrix {
            origin: self.origin.to_owned(),
            destination: Some(self.destination.to_owned()),
            key: key.key_id().to_owned(),
            sig: key.sign(self.message().as_bytes()),
        }
    }
}

impl fmt::Display for XMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X-Matrix origin=\"{}\"", self.origin)?;
        if let Some(destination) = &self.destination {
            write!(f, ",destination=\"{destination}\"")?;
        }
        write!(f, ",key=\"{}\",sig=\"{}\"", self.key, self.sig)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::server_name;

    #[test]
    fn the_signature_covers_the_canonical_request() {
        let key = SigningKey::from_seed("1", [3; 32]).expect("a key");
        let parts = SignedParts {
            method: "PUT",
            uri: "/_matrix/federation/v1/send/1?x=y",
            origin: server_name!("a.test"),
            destination: server_name!("b.test"),
            content: Some(r#"{"a":"x","b":1}"#),
        };
        let header = parts.sign(&key);
        let signed = r#"{"content":{"a":"x","b":1},"destination":"b.test","method":"PUT","origin":"a.test","uri":"/_matrix/federation/v1/send/1?x=y"}"#;
        assert_eq!(header.sig, key.sign(signed.as_bytes()));
        let text = header.to_string();
        assert!(
            text.starts_with(r#"X-Matrix origin="a.test",destination="b.test",key="ed25519:1",sig=""#),
            "{text}"
        );
    }
}
