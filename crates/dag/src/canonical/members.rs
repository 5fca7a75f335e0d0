//! The members of an object that is canonical JSON already, as slices of its text: what is copied, hashed or left out
//! is never built up as a tree.
//!
//! On other text the members are wrong, but nothing panics.

use std::{borrow::Cow, iter};

use super::text::unescape;

/// The members of an object, each as its key (without quotes, still escaped) and the text of its value.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Members<'a> {
    /// Of anything but an object, none.
    pub fn of(object: &'a str) -> Self {
        let at = if object.starts_with('{') { 1 } else { object.len() };
        Self { text: object, at }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let key_start = match bytes.get(self.at)? {
            b',' => self.at + 1,
            b'"' => self.at,
            _ => return None,
        };
        let key_end = string_end(bytes, key_start);
        let value_end = value_end(bytes, key_end + 1);
        let key = self.text.get(key_start + 1..key_end.checked_sub(1)?)?;
        let value = self.text.get(key_end + 1..value_end)?;
        self.at = value_end;
        Some((key, value))
    }
}

/// The top level of an object, to be looked at more than once.
#[derive(Debug, Clone)]
pub struct Outline<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Outline<'a> {
    pub fn of(object: &'a str) -> Self {
        let mut members = Vec::with_capacity(16);
        members.extend(Members::of(object));
        Self(members)
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// In the order of canonical JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.0.iter().copied()
    }
}

/// How deep arrays and objects are nested.
pub fn depth(json: &str) -> usize {
    brackets(json.as_bytes(), 0).map(|(_, depth)| depth).max().unwrap_or_default()
}

/// What a string of canonical JSON says; `None` for other values.
pub fn string_value(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inner))
}

/// Where the string ends that begins at `start`, after its closing quote.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => string_end(bytes, start),
        Some(b'{' | b'[') => container_end(bytes, start),
        _ => {
            let rest = bytes.get(start..).unwrap_or_default();
            let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']'));
            start + length.unwrap_or(rest.len())
        }
    }
}

fn container_end(bytes: &[u8], start: usize) -> usize {
    brackets(bytes, start).find(|(_, depth)| *depth == 0).map_or(bytes.len(), |(end, _)| end)
}

/// The brackets from `start` on that are in no string: where each ends, and how many are open after it.
fn brackets(bytes: &[u8], start: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let (mut at, mut depth) = (start, 0_usize);
    iter::from_fn(move || {
        loop {
            match bytes.get(at)? {
                b'"' => {
                    at = string_end(bytes, at);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 1;
            return Some((at, depth));
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::canonical::canonicalize;

    fn members(text: &str) -> Vec<(&str, &str)> {
        Members::of(text).collect()
    }

    #[test]
    fn members_are_slices_of_the_text() {
        let text = r#"{"a":{"x":["}",1]},"b\"":"q\"\\","c":-1,"d":[],"e":true}"#;
        let expected =
            [("a", r#"{"x":["}",1]}"#), (r#"b\""#, r#""q\"\\""#), ("c", "-1"), ("d", "[]"), ("e", "true")];
        assert_eq!(members(text), expected);
        assert_eq!(Outline::of(text).get("c"), Some("-1"));
        assert_eq!(Outline::of(text).get("x"), None);
        assert_eq!(string_value(expected[1].1).as_deref(), Some("q\"\\"));
        assert_eq!(string_value("-1"), None);
        for none in ["{}", "[1]", "1", "", "\"{\""] {
            assert_eq!(members(none), []);
        }
    }

    #[test]
    fn depth_is_that_of_what_is_nested() {
        for (text, expected) in [("1", 0), ("{}", 1), (r#"{"[[[":["\"[[",{}]}"#, 3), ("[[],[[]],[]]", 3)] {
            assert_eq!(depth(text), expected, "{text}");
        }
        assert_eq!(depth(&"[".repeat(1_000_000)), 1_000_000);
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_parser_finds(
            map in prop::collection::hash_map("[\\\\\"a{}:,]{0,4}", "[\\\\\"{}\\[\\],:a]{0,6}", 0..6),
        ) {
            let nested: Value = json!({ "n": [map.clone(), 1, null], "o": map.clone(), "s": "}" });
            let text = canonicalize(nested.to_string().as_bytes()).unwrap();
            let parsed = |value: &str| serde_json::from_str::<Value>(value).unwrap();
            let found: serde_json::Map<_, _> =
                members(&text).into_iter().map(|(key, value)| (unescape(key).into_owned(), parsed(value))).collect();
            prop_assert_eq!(Value::Object(found), nested);
            let text = canonicalize(json!(map).to_string().as_bytes()).unwrap();
            let found: Vec<_> = members(&text).into_iter().map(|(key, value)| {
                (unescape(key).into_owned(), string_value(value).unwrap().into_owned())
            }).collect();
            let mut expected: Vec<_> = map.into_iter().collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn other_text_never_panics(text in "[\\[\\]{}\",:0-9\\\\u é]{0,24}") {
            Members::of(&text).for_each(drop);
        }
    }
}
