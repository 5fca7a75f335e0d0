//! The signature of a request: `Authorization: X-Matrix …` (Server-Server API, "Request Authentication").

use std::{fmt, str::FromStr};

use myelin_dag::SigningKey;
use ruma::{
    OwnedServerName, ServerName, SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};
use serde_json::Value;

/// Longer headers are not read.
const HEADER_SIZE_MAX: usize = 4096;

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
        let [destination, method, origin, uri] =
            [self.destination.as_str(), self.method, self.origin.as_str(), self.uri].map(Value::from);
        let about =
            format!(r#""destination":{destination},"method":{method},"origin":{origin},"uri":{uri}}}"#);
        match self.content {
            // Transactions are large: each byte is copied once.
            Some(content) => [r#"{"content":"#, content, ",", &about].concat(),
            None => format!("{{{about}"),
        }
    }

    /// Whether `sig` is the signature of this request by an ed25519 key.
    pub fn is_signed(&self, sig: &str, key: &Base64) -> bool {
        let Ok(sig) = Base64::<Standard>::parse(sig) else { return false };
        let (message, ed25519) = (self.message(), SigningKeyAlgorithm::Ed25519);
        verify_canonical_json_bytes(&ed25519, key.as_bytes(), sig.as_bytes(), message.as_bytes()).is_ok()
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

/// Parameters in any order, names in any case, values quoted or not (RFC 9110, section 11.4), colons allowed everywhere.
/// Unknown parameters are passed over; a parameter that is there twice is malformed, since servers would disagree on it.
impl FromStr for XMatrix {
    type Err = HeaderError;

    fn from_str(header: &str) -> Result<Self, HeaderError> {
        let (scheme, mut rest) = header.trim_start().split_once([' ', '\t']).ok_or(HeaderError::Scheme)?;
        if !is_x_matrix(header) || scheme.is_empty() {
            return Err(HeaderError::Scheme);
        }
        if header.len() > HEADER_SIZE_MAX {
            return Err(HeaderError::Field("header"));
        }
        let [mut origin, mut destination, mut key, mut sig, mut signature] = [const { None }; 5];
        while let Some((name, value)) = next_parameter(&mut rest)? {
            let (field, slot) = match name.to_ascii_lowercase().as_str() {
                "origin" => ("origin", &mut origin),
                "destination" => ("destination", &mut destination),
                "key" => ("key", &mut key),
                "sig" => ("sig", &mut sig),
                "signature" => ("signature", &mut signature),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(HeaderError::Field(field));
            }
        }
        let server_name =
            |field, value: String| OwnedServerName::try_from(value).map_err(|_| HeaderError::Field(field));
        Ok(Self {
            origin: server_name("origin", origin.ok_or(HeaderError::Field("origin"))?)?,
            destination: destination.map(|name| server_name("destination", name)).transpose()?,
            key: key.ok_or(HeaderError::Field("key"))?,
            sig: sig.or(signature).ok_or(HeaderError::Field("sig"))?,
        })
    }
}

/// Whether an `Authorization` header is of this scheme at all.
pub fn is_x_matrix(header: &str) -> bool {
    let scheme = header.split([' ', '\t']).next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("X-Matrix")
}

/// Takes `name=value` and the comma before it from the front; `None` at the end.
fn next_parameter<'a>(rest: &mut &'a str) -> Result<Option<(&'a str, String)>, HeaderError> {
    *rest = rest.trim_start_matches([' ', '\t', ',']);
    if rest.is_empty() {
        return Ok(None);
    }
    let (name, after) = rest.split_once('=').ok_or(HeaderError::Field("header"))?;
    let after = after.trim_start_matches([' ', '\t']);
    let (value, after) = match after.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or(HeaderError::Field("header"))?,
        None => {
            let (value, after) = after.split_at(after.find(',').unwrap_or(after.len()));
            (value.trim_end_matches([' ', '\t']).to_owned(), after)
        }
    };
    *rest = after;
    Ok(Some((name.trim_matches([' ', '\t']), value)))
}

/// The value of what starts after a quotation mark, and what follows its end.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = quoted[at + 1..].trim_start_matches([' ', '\t']);
                return (rest.is_empty() || rest.starts_with(',')).then_some((value, rest));
            }
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
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
        let public = Base64::new(key.public_key().to_vec());
        assert!(parts.is_signed(&header.sig, &public));
        assert!(!SignedParts { method: "POST", ..parts }.is_signed(&header.sig, &public));
        assert!(!parts.is_signed("%", &public));
        assert_eq!(header.to_string().parse(), Ok(header.clone()));
        let text = header.to_string();
        assert!(
            text.starts_with(r#"X-Matrix origin="a.test",destination="b.test",key="ed25519:1",sig=""#),
            "{text}"
        );
    }

    #[test]
    fn headers_of_all_shapes_are_read() {
        let expected = XMatrix {
            origin: server_name!("a.test:8448").to_owned(),
            destination: Some(server_name!("b.test").to_owned()),
            key: "ed25519:1".to_owned(),
            sig: "x/+Y".to_owned(),
        };
        let texts = [
            r#"X-Matrix origin="a.test:8448",destination="b.test",key="ed25519:1",sig="x/+Y""#,
            r#"x-matrix  sig="x/+Y" , KEY=ed25519:1 ,Origin=a.test:8448	,	destination=b.test"#,
            r#"X-MATRIX origin="a\.test:8448",destination="b.test",other="a,\"b=",key="ed25519:1",signature=x/+Y,"#,
            r#"X-Matrix origin=a.test:8448,destination=b.test,key=ed25519:1,sig=x/+Y,empty="#,
        ];
        for text in texts {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        }
        let without = "X-Matrix origin=a.test,key=ed25519:1,sig=x".parse::<XMatrix>();
        assert_eq!(without.map(|header| header.destination), Ok(None));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let long = format!("X-Matrix origin=a.test,key=ed25519:1,sig={}", "x".repeat(HEADER_SIZE_MAX));
        let cases = [
            ("", HeaderError::Scheme),
            ("X-Matrix", HeaderError::Scheme),
            ("Bearer origin=a.test,key=k,sig=s", HeaderError::Scheme),
            ("X-Matrix ", HeaderError::Field("origin")),
            ("X-Matrix nonsense", HeaderError::Field("header")),
            ("X-Matrix origin=a.test,sig=s", HeaderError::Field("key")),
            ("X-Matrix origin=a.test,key=k", HeaderError::Field("sig")),
            ("X-Matrix origin=a b,key=k,sig=s", HeaderError::Field("origin")),
            ("X-Matrix origin=,key=k,sig=s", HeaderError::Field("origin")),
            ("X-Matrix origin=a.test,origin=b.test,key=k,sig=s", HeaderError::Field("origin")),
            ("X-Matrix origin=a.test,destination=\"!\",key=k,sig=s", HeaderError::Field("destination")),
            (r#"X-Matrix origin="a.test,key=k,sig=s"#, HeaderError::Field("header")),
            (r#"X-Matrix origin="a.test\"#, HeaderError::Field("header")),
            (r#"X-Matrix origin="a.test"x,key=k,sig=s"#, HeaderError::Field("header")),
            (&long, HeaderError::Field("header")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<XMatrix>(), Err(expected), "{text:.80}");
        }
    }
}
