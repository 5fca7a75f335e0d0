//! Answers are written as text in one pass: the events inside are text already and are never parsed again.

/// An object under construction at the end of a string.
pub struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    pub fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// Writes the key; the caller appends the value to what is returned.
    pub fn key(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        push_string(self.out, key);
        self.out.push(':');
        self.out
    }

    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key).push_str(json);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        push_string(self.key(key), value);
    }

    pub fn number(&mut self, key: &str, value: u64) {
        use std::fmt::Write;
        write!(self.key(key), "{value}").ok();
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key).push_str(if value { "true" } else { "false" });
    }

    pub fn object(&mut self, key: &str) -> Object<'_> {
        Object::open(self.key(key))
    }

    /// An array of values that are JSON already.
    pub fn array<S: AsRef<str>>(&mut self, key: &str, items: impl IntoIterator<Item = S>) {
        push_array(self.key(key), items);
    }

    /// `{"events": [...]}`, as sync has it everywhere.
    pub fn events<S: AsRef<str>>(&mut self, key: &str, events: impl IntoIterator<Item = S>) {
        let mut batch = self.object(key);
        batch.array("events", events);
        batch.close();
    }

    pub fn is_empty(&self) -> bool {
        self.empty
    }

    pub fn close(self) {
        self.out.push('}');
    }
}

pub fn push_array<S: AsRef<str>>(out: &mut String, items: impl IntoIterator<Item = S>) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
}

pub fn push_string(out: &mut String, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // Serialising a string cannot fail.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// A string as a JSON value of its own.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_out_as_json() {
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        object.string("a\"b", "c\n\u{1}\\");
        object.number("n", 7);
        object.events("state", ["{}", "1"]);
        object.object("empty").close();
        object.close();
        let value: serde_json::Value = serde_json::from_str(&out).expect("valid JSON");
        let expected = serde_json::json!({
            "a\"b": "c\n\u{1}\\", "n": 7, "state": {"events": [{}, 1]}, "empty": {},
        });
        assert_eq!(value, expected);
    }
}
