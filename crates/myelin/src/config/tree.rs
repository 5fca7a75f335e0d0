//! A configuration before anybody knows what its keys mean: a tree of values, each with the place it was written.
//! The layers (defaults, file, environment, `--dev`, `--set`) are merged here.
//!
//! Must not know: which keys exist.

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::problem::{Origin, Problem};

pub type Table = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
pub struct Node {
    pub origin: Origin,
    pub content: Content,
    /// The text of an override: a key that wants a string takes it as it stands (`--set registration.shared_secret=123`).
    pub raw: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub enum Content {
    Table(Table),
    Array(Vec<Node>),
    Scalar(Value),
}

impl Node {
    pub fn table(origin: Origin) -> Self {
        Self { origin, content: Content::Table(Table::new()), raw: None }
    }

    /// A TOML document.
    pub fn parse_file(path: &str, text: &str) -> Result<Self, Problem> {
        let path: Arc<str> = path.into();
        let origin_at = |offset: usize| Origin::File { path: path.clone(), line: line_of(text, offset) };
        let parsed = DeTable::parse(text).map_err(|error| {
            Problem::new(&origin_at(error.span().map_or(0, |span| span.start)), error.message())
        })?;
        convert_table(parsed.get_ref(), origin_at(0), &origin_at)
    }

    /// The value of one override: TOML, or else a bare word, which is a string.
    pub fn parse_override(origin: Origin, text: &str) -> Result<Self, Problem> {
        let document = format!("value = {text}");
        let value = DeTable::parse(&document).ok();
        let value = value.as_ref().and_then(|table| {
            let mut entries = table.get_ref().iter();
            entries.next().filter(|_| entries.next().is_none())
        });
        let mut node = match value {
            Some((_, value)) => convert(value, &|_| origin.clone())?,
            None => Self { origin, content: Content::Scalar(Value::String(text.to_owned())), raw: None },
        };
        if !matches!(value.map(|(_, value)| value.get_ref()), Some(DeValue::String(_))) {
            node.raw = Some(text.into());
        }
        Ok(node)
    }

    /// This node as the value of a dotted key.
    pub fn under(self, path: &str) -> Self {
        path.rsplit('.').fold(self, |node, part| {
            let origin = node.origin.clone();
            Self { origin, content: Content::Table(Table::from([(part.to_owned(), node)])), raw: None }
        })
    }

    /// Lays `over` on top: tables merge key by key, everything else is replaced.
    pub fn merge(&mut self, over: Self) {
        match (&mut self.content, over) {
            (Content::Table(below), Self { content: Content::Table(above), .. }) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(existing) => existing.merge(node),
                        None => drop(below.insert(key, node)),
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    /// The node at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, part| match &node.content {
            Content::Table(table) => table.get(part),
            _ => None,
        })
    }

    /// What kind of value this is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Table(_) => "a table",
            Content::Array(_) => "an array",
            Content::Scalar(Value::String(_)) => "a string",
            Content::Scalar(Value::Integer(_)) => "an integer",
            Content::Scalar(Value::Float(_)) => "a number",
            Content::Scalar(Value::Boolean(_)) => "a boolean",
            Content::Scalar(_) => "a date",
        }
    }

    /// The value as TOML, on one line.
    pub fn to_toml(&self) -> String {
        match &self.content {
            Content::Scalar(value) => value.to_string(),
            Content::Array(items) => {
                let items: Vec<_> = items.iter().map(Self::to_toml).collect();
                format!("[{}]", items.join(", "))
            }
            Content::Table(table) if table.is_empty() => "{}".to_owned(),
            Content::Table(table) => {
                let entries: Vec<_> =
                    table.iter().map(|(key, node)| format!("{key} = {}", node.to_toml())).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }
}

fn convert(value: &Spanned<DeValue<'_>>, origin_at: &impl Fn(usize) -> Origin) -> Result<Node, Problem> {
    let origin = origin_at(value.span().start);
    let content = match value.get_ref() {
        DeValue::Table(table) => return convert_table(table, origin, origin_at),
        DeValue::Array(items) => {
            Content::Array(items.iter().map(|item| convert(item, origin_at)).collect::<Result<_, _>>()?)
        }
        DeValue::String(text) => Content::Scalar(Value::String(text.clone().into_owned())),
        DeValue::Boolean(flag) => Content::Scalar(Value::Boolean(*flag)),
        DeValue::Datetime(time) => Content::Scalar(Value::Datetime(*time)),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Content::Scalar(Value::Integer(
                parsed.map_err(|_| Problem::new(&origin, "the number is too large"))?,
            ))
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse();
            Content::Scalar(Value::Float(parsed.map_err(|_| Problem::new(&origin, "this is not a number"))?))
        }
    };
    Ok(Node { origin, content, raw: None })
}

fn convert_table(
    table: &DeTable<'_>,
    origin: Origin,
    origin_at: &impl Fn(usize) -> Origin,
) -> Result<Node, Problem> {
    let entries = table.iter().map(|(key, value)| {
        let mut node = convert(value, origin_at)?;
        if matches!(node.content, Content::Table(_)) {
            node.origin = origin_at(key.span().start);
        }
        Ok((key.get_ref().clone().into_owned(), node))
    });
    Ok(Node { origin, content: Content::Table(entries.collect::<Result<_, _>>()?), raw: None })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(text: &str) -> String {
        Node::parse_override(Origin::Dev, text).expect("an override").to_toml()
    }

    #[test]
    fn an_override_is_toml_and_a_bare_word_is_a_string() {
        for (text, expected) in [
            ("true", "true"),
            ("5", "5"),
            ("0.5", "0.5"),
            ("example.org", "\"example.org\""),
            ("\"quoted\"", "\"quoted\""),
            ("127.0.0.1:8008", "\"127.0.0.1:8008\""),
            ("postgres://u@h/db", "\"postgres://u@h/db\""),
            ("[1, 2]", "[1, 2]"),
            ("{ a = 1 }", "{ a = 1 }"),
            ("", "\"\""),
        ] {
            assert_eq!(over(text), expected, "{text}");
        }
    }

    #[test]
    fn an_override_cannot_smuggle_a_second_key() {
        let node = Node::parse_override(Origin::Dev, "1\nother = 2").expect("an override");
        assert_eq!(node.kind(), "a string");
    }

    #[test]
    fn upper_layers_win_key_by_key() {
        let mut tree =
            Node::parse_file("a", "[r.login]\nper_second = 1\nburst = 2\n[x]\ny = [1]").expect("valid");
        tree.merge(Node::parse_file("b", "x.y = [2]\n[r]\nlogin.burst = 9").expect("valid"));
        assert_eq!(tree.to_toml(), "{ r = { login = { burst = 9, per_second = 1 } }, x = { y = [2] } }");
        let line = |path: &str| tree.get(path).map(|node| node.origin.to_string());
        assert_eq!(line("r.login.burst").as_deref(), Some("b:3"));
        assert_eq!(line("r.login.per_second").as_deref(), Some("a:2"));
        assert_eq!(line("r.login.none"), None);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let problem = Node::parse_file("f.toml", "[server]\nname = \n").expect_err("no value");
        assert!(problem.to_string().starts_with("f.toml:2: "), "{problem}");
    }
}
