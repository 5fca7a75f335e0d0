//! JSON from outside. One pass over the text refuses what the specification's JSON does not have or what could be
//! read in two ways; then serde reads the shape.
//!
//! `M_NOT_JSON`: not JSON, not UTF-8. `M_BAD_JSON`: JSON, but nested too deeply, with a key twice in one object, with
//! an integer beyond ±(2^53 - 1), or of the wrong shape.

use std::{borrow::Cow, collections::HashSet, fmt};

use myelin_core::limits::{JSON_DEPTH_MAX, JSON_INTEGER_MAX};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::ApiError;

pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut text = serde_json::Deserializer::from_slice(bytes);
    Check { depth: JSON_DEPTH_MAX }.deserialize(&mut text).map_err(refuse)?;
    text.end().map_err(refuse)?;
    serde_json::from_slice(bytes).map_err(refuse)
}

fn refuse(error: serde_json::Error) -> ApiError {
    let reason = error.to_string();
    if error.classify() == Category::Data || reason.starts_with("number out of range") {
        return ApiError::bad_json(format!("The JSON is not as it should be: {reason}."));
    }
    ApiError::not_json(format!("The body is not JSON: {reason}."))
}

/// Visits a value and everything in it.
#[derive(Clone, Copy)]
struct Check {
    /// Levels of nesting that are still allowed.
    depth: usize,
}

impl Check {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth
            .map(|depth| Self { depth })
            .ok_or_else(|| E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if value < -JSON_INTEGER_MAX { Err(integer_too_large()) } else { Ok(()) }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if value > JSON_INTEGER_MAX as u64 { Err(integer_too_large()) } else { Ok(()) }
    }

    /// Integers beyond 64 bits arrive as floats too.
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if value.abs() > JSON_INTEGER_MAX as f64 { Err(integer_too_large()) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut keys = Keys::default();
        while let Some(key) = entries.next_key_seed(Key)? {
            keys.insert(key)?;
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

fn integer_too_large<E: Error>() -> E {
    E::custom(format_args!("a number is beyond {JSON_INTEGER_MAX}"))
}

/// The keys of one object: most have few, where looking through a list is cheaper than hashing.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    const FEW_MAX: usize = 12;

    fn insert<E: Error>(&mut self, key: Cow<'de, str>) -> Result<(), E> {
        let twice = |key: &str| E::custom(format_args!("the key `{}` is there twice", key.escape_debug()));
        if self.few.contains(&key) || self.many.contains(&key) {
            return Err(twice(&key));
        }
        if self.few.len() < Self::FEW_MAX {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        Ok(())
    }
}

/// A key, borrowed from the text if it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_accepted() {
        let many_keys =
            format!("{{{}}}", (0..50).map(|n| format!("\"{n}\":{n}")).collect::<Vec<_>>().join(","));
        let nested = format!("{}{}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
        let texts = [
            "{}",
            "null",
            "[1,-2,0.5,true,\"x\"]",
            r#"{"a":{"a":"\u0000"}}"#,
            "9007199254740991",
            &many_keys,
            &nested,
        ];
        for text in texts {
            assert!(parse::<Value>(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let deep = "[".repeat(100_000);
        let deep_objects = r#"{"a":"#.repeat(JSON_DEPTH_MAX + 1);
        let many_digits = "9".repeat(400);
        let many_keys =
            format!("{{{},\"49\":1}}", (0..50).map(|n| format!("\"{n}\":{n}")).collect::<Vec<_>>().join(","));
        let cases: [(&[u8], &str); 20] = [
            (b"", "M_NOT_JSON"),
            (b"{", "M_NOT_JSON"),
            (b"{} {}", "M_NOT_JSON"),
            (b"{'a':1}", "M_NOT_JSON"),
            (b"\xef\xbb\xbf{}", "M_NOT_JSON"),
            (b"{\"a\":\"\xff\"}", "M_NOT_JSON"),
            (b"{\"\xc3\x28\":1}", "M_NOT_JSON"),
            (b"{\"a\":\"\0\"}", "M_NOT_JSON"),
            (b"\0", "M_NOT_JSON"),
            (br#"{"a":"\ud800"}"#, "M_NOT_JSON"),
            (b"NaN", "M_NOT_JSON"),
            (br#"{"a":1,"a":2}"#, "M_BAD_JSON"),
            (br#"{"a":1,"\u0061":2}"#, "M_BAD_JSON"),
            (many_keys.as_bytes(), "M_BAD_JSON"),
            (b"9007199254740992", "M_BAD_JSON"),
            (b"-9007199254740992", "M_BAD_JSON"),
            (b"1e400", "M_BAD_JSON"),
            (many_digits.as_bytes(), "M_BAD_JSON"),
            (deep.as_bytes(), "M_BAD_JSON"),
            (deep_objects.as_bytes(), "M_BAD_JSON"),
        ];
        for (text, errcode) in cases {
            let error = parse::<Value>(text).unwrap_err();
            assert_eq!(error.errcode(), errcode, "{:.60} {error:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_wrong_shape_is_bad_json() {
        #[derive(Debug, serde::Deserialize)]
        struct Shape {
            #[expect(dead_code, reason = "only the shape matters")]
            name: String,
        }
        for text in ["[]", "{}", r#"{"name":1}"#, "null"] {
            assert_eq!(parse::<Shape>(text.as_bytes()).unwrap_err().errcode(), "M_BAD_JSON", "{text}");
        }
    }
}
