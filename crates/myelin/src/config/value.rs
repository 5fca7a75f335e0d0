//! From a node of the tree to a typed value: the general part (scalars, lists, tables, choices).

use std::{fmt, path::PathBuf, time::Duration};

use ruma::OwnedServerName;
use toml::Value;
use url::Url;

use super::{
    problem::{Problem, closest},
    tree::{Content, Node, Table},
};

/// A type that a configuration key can have.
pub trait FromNode: Sized {
    /// What a value looks like, for messages and for the reference.
    const EXPECTS: &'static str;
    /// Whether `config show` hides it.
    const SECRET: bool = false;

    fn from_node(node: &Node) -> Result<Self, Problem>;

    /// What holds when nobody has written the key and it has no default.
    fn absent() -> Option<Self> {
        None
    }
}

/// A value that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

pub fn wrong_kind<T: FromNode>(node: &Node) -> Problem {
    Problem::new(&node.origin, format!("expected {}, found {}", T::EXPECTS, node.kind()))
}

/// The text of a node for a type that is written as a string.
pub fn text<T: FromNode>(node: &Node) -> Result<&str, Problem> {
    match (&node.raw, &node.content) {
        (Some(raw), _) => Ok(raw),
        (None, Content::Scalar(Value::String(text))) => Ok(text),
        _ => Err(wrong_kind::<T>(node)),
    }
}

/// One of several words.
pub fn choice<T: FromNode + Copy>(node: &Node, choices: &[(&str, T)]) -> Result<T, Problem> {
    let word = text::<T>(node)?;
    let found = choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let problem = Problem::new(&node.origin, format!("'{word}' is not {}", T::EXPECTS));
        problem.suggest(closest(word, choices.iter().map(|(name, _)| *name)))
    })
}

/// The entries of an inline table whose names are known.
pub struct Fields<'a> {
    node: &'a Node,
    table: &'a Table,
}

impl<'a> Fields<'a> {
    pub fn of<T: FromNode>(node: &'a Node, known: &[&str]) -> Result<Self, Problem> {
        let Content::Table(table) = &node.content else { return Err(wrong_kind::<T>(node)) };
        match table.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Self { node, table }),
            Some((name, value)) => {
                Err(Problem::new(&value.origin, format!("there is no field '{name}' here"))
                    .suggest(closest(name, known.iter().copied())))
            }
        }
    }

    /// What is wrong with one field, at its place.
    pub fn problem(&self, name: &str, message: impl fmt::Display) -> Problem {
        let origin = self.table.get(name).map_or(&self.node.origin, |field| &field.origin);
        Problem::new(origin, format!("{name}: {message}"))
    }

    pub fn required<T: FromNode>(&self, name: &str) -> Result<T, Problem> {
        let missing = || Problem::new(&self.node.origin, format!("the field '{name}' is missing"));
        self.optional(name)?.ok_or_else(missing)
    }

    pub fn optional<T: FromNode>(&self, name: &str) -> Result<Option<T>, Problem> {
        let read = |node| T::from_node(node).map_err(|problem| problem.within(name));
        self.table.get(name).map(read).transpose()
    }
}

macro_rules! from_text {
    ($ty:ty, $expects:literal, $parse:expr) => {
        impl FromNode for $ty {
            const EXPECTS: &'static str = $expects;

            fn from_node(node: &Node) -> Result<Self, Problem> {
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(text::<Self>(node)?).map_err(|message| Problem::new(&node.origin, message))
            }
        }
    };
}

from_text!(String, "a string", |text| Ok(text.to_owned()));
from_text!(PathBuf, "a path", |text| match text {
    "" => Err("a path cannot be empty".to_owned()),
    text => Ok(PathBuf::from(text)),
});
from_text!(OwnedServerName, "a server name", |text| {
    OwnedServerName::try_from(text).map_err(|_| {
        format!("'{text}' is not a server name; it is a host name with an optional port, like example.org")
    })
});
from_text!(Url, "an http(s) URL", |text| match Url::parse(text) {
    Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
    Ok(url) if !url.has_host() || url.cannot_be_a_base() => Err(format!("'{text}' names no host")),
    Ok(url) => Err(format!("'{}' is not http or https", url.scheme())),
    Err(error) => Err(format!("'{text}' is not a URL: {error}")),
});
from_text!(Duration, "a duration, like \"5m\"", parse_duration);

/// A number and a unit: `90s`, `5m`, `60d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok_or_else(|| format!("'{text}' is not a duration; write a number and ms, s, m, h or d, like 5m"))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

impl FromNode for Secret {
    const EXPECTS: &'static str = "a string";
    const SECRET: bool = true;

    fn from_node(node: &Node) -> Result<Self, Problem> {
        match text::<Self>(node)? {
            "" => Err(Problem::new(&node.origin, "a secret cannot be empty")),
            secret => Ok(Self(secret.to_owned())),
        }
    }
}

impl FromNode for bool {
    const EXPECTS: &'static str = "true or false";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        match node.content {
            Content::Scalar(Value::Boolean(flag)) => Ok(flag),
            _ => Err(wrong_kind::<Self>(node)),
        }
    }
}

impl FromNode for u32 {
    const EXPECTS: &'static str = "a whole number";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let Content::Scalar(Value::Integer(number)) = node.content else {
            return Err(wrong_kind::<Self>(node));
        };
        Self::try_from(number)
            .map_err(|_| Problem::new(&node.origin, format!("{number} is not between 0 and {}", Self::MAX)))
    }
}

impl FromNode for f64 {
    const EXPECTS: &'static str = "a number";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        match node.content {
            Content::Scalar(Value::Integer(number)) => Ok(number as Self),
            Content::Scalar(Value::Float(number)) => Ok(number),
            _ => Err(wrong_kind::<Self>(node)),
        }
    }
}

impl<T: FromNode> FromNode for Option<T> {
    const EXPECTS: &'static str = T::EXPECTS;
    const SECRET: bool = T::SECRET;

    fn from_node(node: &Node) -> Result<Self, Problem> {
        T::from_node(node).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromNode + List> FromNode for Vec<T> {
    const EXPECTS: &'static str = T::LIST_EXPECTS;

    fn from_node(node: &Node) -> Result<Self, Problem> {
        match &node.content {
            Content::Array(items) => match T::NOT_EMPTY {
                Some(reason) if items.is_empty() => Err(Problem::new(&node.origin, reason)),
                _ => items.iter().map(T::from_node).collect(),
            },
            _ => Err(wrong_kind::<Self>(node)),
        }
    }
}

/// How a list of these is called.
pub trait List {
    const LIST_EXPECTS: &'static str;
    /// Why the list cannot be empty.
    const NOT_EMPTY: Option<&'static str> = None;
}

impl List for String {
    const LIST_EXPECTS: &'static str = "a list of strings";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("5m", Some(300)),
            ("90s", Some(90)),
            ("2 h", Some(7200)),
            ("7d", Some(604_800)),
            ("0s", Some(0)),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_secs), "{text}");
        }
        for bad in ["", "5", "m", "-5m", "5 weeks", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
