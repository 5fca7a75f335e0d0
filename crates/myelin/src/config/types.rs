//! The types of Myelin's own keys: URIs of drivers, listeners, rate limits, registration modes, contacts.

use std::{fmt, net::SocketAddr, path::PathBuf};

use ruma::OwnedUserId;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    problem::Problem,
    tree::Node,
    value::{Fields, FromNode, List, choice, text},
};

/// Where everything durable is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUri {
    /// `embedded:PATH`: in this process, in that directory.
    Embedded(PathBuf),
    /// `postgres://user:password@host/database`, handed to the driver as it is.
    Postgres(String),
    /// `memory:`: nothing survives the process.
    Memory,
}

impl FromNode for StoreUri {
    const EXPECTS: &'static str = "embedded:PATH, postgres://… or memory:";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let uri = text::<Self>(node)?;
        let bad =
            |message: &str| Err(Problem::new(&node.origin, format!("'{}' {message}", without_password(uri))));
        match uri.split_once(':') {
            Some(("embedded", "")) => bad("names no directory; write embedded:PATH"),
            Some(("embedded", path)) => Ok(Self::Embedded(path.into())),
            Some(("postgres" | "postgresql", rest)) => match rest.strip_prefix("//") {
                Some(rest) if !rest.is_empty() => Ok(Self::Postgres(uri.to_owned())),
                _ => bad("is not a PostgreSQL URI; write postgres://user:password@host/database"),
            },
            Some(("memory", "" | "//")) => Ok(Self::Memory),
            _ => bad("is not a store; expected embedded:PATH, postgres://… or memory:"),
        }
    }
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
            Self::Postgres(uri) => f.write_str(&without_password(uri)),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// A URI as it may be shown.
pub fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let Some((login, host)) = rest.rsplit_once('@') else { return uri.to_owned() };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:…@{host}"),
        None => uri.to_owned(),
    }
}

/// How nodes and workers wake each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusUri {
    /// Inside this process.
    Mem,
}

impl FromNode for BusUri {
    const EXPECTS: &'static str = "mem://";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        match text::<Self>(node)? {
            "mem://" | "mem:" => Ok(Self::Mem),
            uri if uri.starts_with("nats://") => {
                Err(Problem::new(&node.origin, "the NATS bus is not built yet; use mem://"))
            }
            uri => Err(Problem::new(&node.origin, format!("'{uri}' is not a bus; expected mem://"))),
        }
    }
}

/// Where media bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaUri {
    File(PathBuf),
    S3(String),
}

impl FromNode for MediaUri {
    const EXPECTS: &'static str = "file:PATH or s3://bucket/prefix";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let uri = text::<Self>(node)?;
        match uri.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("s3", bucket)) if bucket.len() > 2 && bucket.starts_with("//") => {
                Ok(Self::S3(uri.to_owned()))
            }
            _ => Err(Problem::new(&node.origin, format!("'{uri}' is not {}", Self::EXPECTS))),
        }
    }
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationMode {
    Closed,
    Token,
    Open,
}

impl FromNode for RegistrationMode {
    const EXPECTS: &'static str = "\"closed\", \"token\" or \"open\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        choice(node, &[("closed", Self::Closed), ("token", Self::Token), ("open", Self::Open)])
    }
}

/// A document that new users agree to (`m.login.terms`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Names the policy between client and server, like `privacy_policy`.
    pub id: String,
    pub version: String,
    pub name: String,
    pub url: Url,
    pub language: String,
}

impl FromNode for Terms {
    const EXPECTS: &'static str = "{ id, version, name, url, language }";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let fields = Fields::of::<Self>(node, &["id", "version", "name", "url", "language"])?;
        Ok(Self {
            id: fields.required("id")?,
            version: fields.required("version")?,
            name: fields.required("name")?,
            url: fields.required("url")?,
            language: fields.optional("language")?.unwrap_or_else(|| "en".to_owned()),
        })
    }
}

impl List for Terms {
    const LIST_EXPECTS: &'static str = "a list of { id, version, name, url, language }";
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    Client,
    Federation,
    Admin,
    Metrics,
}

impl FromNode for Surface {
    const EXPECTS: &'static str = "\"client\", \"federation\", \"admin\" or \"metrics\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let names = [
            ("client", Self::Client),
            ("federation", Self::Federation),
            ("admin", Self::Admin),
            ("metrics", Self::Metrics),
        ];
        choice(node, &names)
    }
}

impl List for Surface {
    const LIST_EXPECTS: &'static str = "a list of \"client\", \"federation\", \"admin\", \"metrics\"";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM files.
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl FromNode for Tls {
    const EXPECTS: &'static str = "{ cert = \"PATH\", key = \"PATH\" }";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let fields = Fields::of::<Self>(node, &["cert", "key"])?;
        Ok(Self { cert: fields.required("cert")?, key: fields.required("key")? })
    }
}

impl FromNode for SocketAddr {
    const EXPECTS: &'static str = "an IP address and port, like \"127.0.0.1:8008\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let address = text::<Self>(node)?;
        let bad = || Problem::new(&node.origin, format!("'{address}' is not {}", Self::EXPECTS));
        address.parse().map_err(|_| bad())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    pub serves: Vec<Surface>,
}

impl FromNode for Listener {
    const EXPECTS: &'static str = "{ address = \"IP:PORT\", tls = { cert, key }, serves = [\"client\", …] }";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let fields = Fields::of::<Self>(node, &["address", "tls", "serves"])?;
        let serves: Option<Vec<Surface>> = fields.optional("serves")?;
        if serves.as_ref().is_some_and(Vec::is_empty) {
            return Err(Problem::new(
                &node.origin,
                "a listener that serves nothing; leave 'serves' out for the default",
            ));
        }
        Ok(Self {
            address: fields.required("address")?,
            tls: fields.optional("tls")?,
            serves: serves.unwrap_or_else(|| vec![Surface::Client, Surface::Federation]),
        })
    }
}

impl List for Listener {
    const LIST_EXPECTS: &'static str = "a list of { address, tls = { cert, key }, serves }";
    const NOT_EMPTY: Option<&'static str> = Some("a server needs at least one listener");
}

/// A leaky bucket: `burst` requests at once, then `per_second`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    pub per_second: f64,
    pub burst: u32,
}

impl FromNode for RateLimit {
    const EXPECTS: &'static str = "{ per_second, burst }";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let fields = Fields::of::<Self>(node, &["per_second", "burst"])?;
        let limit = Self { per_second: fields.required("per_second")?, burst: fields.required("burst")? };
        match limit {
            Self { per_second, .. } if !(0.000_1..=1_000_000.0).contains(&per_second) => {
                Err(fields.problem("per_second", format!("{per_second} is not between 0.0001 and 1000000")))
            }
            Self { burst: 0, .. } => Err(fields.problem("burst", "at least 1 request must be possible")),
            limit => Ok(limit),
        }
    }
}

/// Somebody to turn to (`/.well-known/matrix/support`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub role: String,
    pub matrix_id: Option<OwnedUserId>,
    pub email_address: Option<String>,
}

impl FromNode for OwnedUserId {
    const EXPECTS: &'static str = "a user id, like \"@admin:example.org\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let id = text::<Self>(node)?;
        Self::try_from(id).map_err(|_| Problem::new(&node.origin, format!("'{id}' is not {}", Self::EXPECTS)))
    }
}

impl FromNode for Contact {
    const EXPECTS: &'static str = "{ role, matrix_id, email_address }";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let fields = Fields::of::<Self>(node, &["role", "matrix_id", "email_address"])?;
        let contact = Self {
            role: fields.required("role")?,
            matrix_id: fields.optional("matrix_id")?,
            email_address: fields.optional("email_address")?,
        };
        if contact.matrix_id.is_none() && contact.email_address.is_none() {
            return Err(Problem::new(&node.origin, "a contact needs a matrix_id or an email_address"));
        }
        Ok(contact)
    }
}

impl List for Contact {
    const LIST_EXPECTS: &'static str = "a list of { role, matrix_id, email_address }";
}

/// Which messages are logged: a level, or directives as `tracing` understands them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl FromNode for LogFilter {
    const EXPECTS: &'static str =
        "a level (error, warn, info, debug, trace) or directives like \"info,myelin_api=debug\"";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let filter = text::<Self>(node)?;
        let word = filter.chars().all(|c| c.is_ascii_alphabetic());
        let levels: Vec<_> =
            ["error", "warn", "info", "debug", "trace", "off"].map(|level| (level, ())).into();
        if word && !levels.iter().any(|(level, ())| filter.eq_ignore_ascii_case(level)) {
            let names = levels.iter().map(|(level, ())| *level);
            return Err(Problem::new(&node.origin, format!("'{filter}' is not a log level"))
                .suggest(super::problem::closest(filter, names)));
        }
        match EnvFilter::builder().parse(filter) {
            Ok(_) => Ok(Self(filter.to_owned())),
            Err(error) => Err(Problem::new(&node.origin, format!("'{filter}' is not a log filter: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (uri, shown) in [
            ("postgres://u:p@h/d", "postgres://u:…@h/d"),
            ("postgres://u:p@x@h/d", "postgres://u:…@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("embedded:./x", "embedded:./x"),
        ] {
            assert_eq!(without_password(uri), shown);
        }
    }
}
