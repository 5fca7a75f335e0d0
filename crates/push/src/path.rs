//! Where in an event a condition looks (appendices, "Dot-separated property paths").

/// A property of an event. Whatever is not one of these is in no event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    EventId,
    RoomId,
    Sender,
    StateKey,
    Type,
    /// Below `content`.
    Content(Vec<String>),
    Nowhere,
}

impl Path {
    pub fn parse(key: &str) -> Self {
        let mut parts = split(key);
        match parts.first().map(String::as_str) {
            Some("content") if parts.len() > 1 => {
                parts.remove(0);
                Self::Content(parts)
            }
            Some(name) if parts.len() == 1 => match name {
                "event_id" => Self::EventId,
                "room_id" => Self::RoomId,
                "sender" => Self::Sender,
                "state_key" => Self::StateKey,
                "type" => Self::Type,
                _ => Self::Nowhere,
            },
            _ => Self::Nowhere,
        }
    }

    pub fn body() -> Self {
        Self::Content(vec!["body".to_owned()])
    }

    pub fn is_body(&self) -> bool {
        matches!(self, Self::Content(parts) if *parts == ["body"])
    }
}

/// A backslash takes the dot or backslash after it literally, and stands for itself before anything else.
fn split(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = key.chars().peekable();
    while let Some(c) = chars.next() {
        let taken = match c {
            '.' => None,
            '\\' if matches!(chars.peek(), Some('.' | '\\')) => chars.next(),
            other => Some(other),
        };
        match (taken, parts.last_mut()) {
            (Some(c), Some(part)) => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let content = |parts: &[&str]| Path::Content(parts.iter().map(ToString::to_string).collect());
        let table = [
            ("type", Path::Type),
            ("room_id", Path::RoomId),
            ("origin_server_ts", Path::Nowhere),
            ("content", Path::Nowhere),
            ("", Path::Nowhere),
            ("type.x", Path::Nowhere),
            ("content.body", content(&["body"])),
            (r"content.m\.relates_to.rel_type", content(&["m.relates_to", "rel_type"])),
            (r"content.m\\foo", content(&[r"m\foo"])),
            (r"content.m\foo", content(&[r"m\foo"])),
            (r"content.a\", content(&[r"a\"])),
            ("content..b", content(&["", "b"])),
        ];
        for (key, path) in table {
            assert_eq!(Path::parse(key), path, "{key}");
        }
    }
}
