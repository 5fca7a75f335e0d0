//! Conditions of rules (Client-Server API, "Conditions"), ready to be asked many times.

use std::collections::BTreeMap;

use ruma::{
    Int, UInt, UserId,
    push::{PushCondition, RoomMemberCountIs, ScalarJsonValue},
};
use serde_json::Value;
use std::ops::RangeBounds;

use crate::{
    glob::{Glob, has_words},
    path::Path,
    subject::Subject,
};

#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// A string that matches a pattern.
    Match(Path, Glob),
    /// Words in `content.body`.
    Body(Glob),
    Is(Path, ScalarJsonValue),
    Contains(Path, ScalarJsonValue),
    DisplayName,
    MemberCount(RoomMemberCountIs),
    /// The sender may notify the room in this way.
    Permission(String),
    /// The state key is the owner of the rule.
    AboutOwner,
    /// The owner of the rule is among those whom the event mentions.
    MentionsOwner,
    /// Not known: the rule is as if disabled.
    Never,
}

/// What rules look at besides the event. Not the same for everybody in a room: `owner` and `display_name` are those of
/// the user whose rules are asked.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// `None`: for somebody whom the event does not name.
    pub owner: Option<&'a UserId>,
    /// In the room; only asked by [`crate::Ruleset::asks_display_name`].
    pub display_name: Option<&'a str>,
    pub member_count: u64,
    pub permissions: &'a Permissions,
}

/// What the sender of an event may do by the power levels of the room.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// The power level of the sender.
    pub sender: i64,
    /// `notifications` of the power levels, with its defaults.
    pub needed: BTreeMap<String, i64>,
}

impl Permissions {
    /// `notifications.room` if the room says nothing.
    const ROOM_DEFAULT: i64 = 50;

    pub fn new(sender: i64, notifications: impl IntoIterator<Item = (String, i64)>) -> Self {
        let mut needed = BTreeMap::from([("room".to_owned(), Self::ROOM_DEFAULT)]);
        needed.extend(notifications);
        Self { sender, needed }
    }

    fn may_notify(&self, key: &str) -> bool {
        self.needed.get(key).is_some_and(|needed| self.sender >= *needed)
    }
}

impl Condition {
    pub fn compile(condition: &PushCondition) -> Self {
        match condition {
            PushCondition::EventMatch(data) => match Path::parse(&data.key) {
                path if path.is_body() => Self::Body(Glob::words(&data.pattern)),
                path => Self::Match(path, Glob::whole(&data.pattern)),
            },
            PushCondition::EventPropertyIs(data) => Self::Is(Path::parse(&data.key), data.value.clone()),
            PushCondition::EventPropertyContains(data) => {
                Self::Contains(Path::parse(&data.key), data.value.clone())
            }
            PushCondition::RoomMemberCount(data) => Self::MemberCount(data.is),
            PushCondition::SenderNotificationPermission(data) => Self::Permission(data.key.to_string()),
            other if other.kind() == "contains_display_name" => Self::DisplayName,
            _ => Self::Never,
        }
    }

    pub fn holds(&self, subject: &Subject<'_>, around: &Circumstances<'_>) -> bool {
        match self {
            Self::Match(path, glob) => {
                let value = subject.property(path);
                value.and_then(|value| value.as_str()).is_some_and(|value| whole(glob, value))
            }
            Self::Body(glob) => subject.body().is_some_and(|body| glob.is_in_words(body)),
            Self::Is(path, expected) => {
                subject.property(path).is_some_and(|value| is(&value.to_value(), expected))
            }
            Self::Contains(path, expected) => {
                let value = subject.property(path).map(|value| value.to_value());
                let array = value.as_ref().and_then(|value| value.as_array());
                array.is_some_and(|array| array.iter().any(|value| is(value, expected)))
            }
            Self::DisplayName => match (around.display_name, subject.body()) {
                (Some(name), Some(body)) if !name.is_empty() => has_words(body, &name.to_lowercase()),
                _ => false,
            },
            Self::MemberCount(is) => {
                UInt::try_from(around.member_count).is_ok_and(|count| is.contains(&count))
            }
            Self::Permission(key) => around.permissions.may_notify(key),
            Self::AboutOwner => {
                around.owner.is_some_and(|owner| {
                    // As `event_match` would have it.
                    subject.state_key.is_some_and(|key| key.to_lowercase() == owner.as_str().to_lowercase())
                })
            }
            Self::MentionsOwner => {
                around.owner.is_some_and(|owner| subject.mentioned().any(|named| named == owner.as_str()))
            }
            Self::Never => false,
        }
    }
}

fn whole(glob: &Glob, value: &str) -> bool {
    if value.chars().any(char::is_uppercase) {
        return glob.is_whole(&value.to_lowercase());
    }
    glob.is_whole(value)
}

fn is(value: &Value, expected: &ScalarJsonValue) -> bool {
    match (value, expected) {
        (Value::Null, ScalarJsonValue::Null) => true,
        (Value::Bool(value), ScalarJsonValue::Bool(expected)) => value == expected,
        (Value::String(value), ScalarJsonValue::String(expected)) => value == expected,
        (Value::Number(value), ScalarJsonValue::Integer(expected)) => {
            value.as_i64().and_then(|value| Int::try_from(value).ok()) == Some(*expected)
        }
        _ => false,
    }
}
