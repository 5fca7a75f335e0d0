//! What an event must have for a rule to match: the one necessary condition that fewest events meet.

use ruma::{UserId, push::ScalarJsonValue};

use crate::{
    condition::Condition,
    glob::{Glob, is_word_char},
    path::Path,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// A scalar with this text, in lower case.
    Text(Path, String),
    /// An array with this text in it.
    Contains(Path, String),
    /// This word in the body, in lower case.
    Word(String),
    /// The event names the owner of the rule.
    Named,
    Always,
}

impl Trigger {
    pub fn sender(user: &UserId) -> Self {
        Self::Text(Path::Sender, user.as_str().to_lowercase())
    }

    /// Smaller is rarer.
    fn rank(&self) -> u8 {
        match self {
            Self::Named => 0,
            Self::Text(Path::RoomId | Path::EventId, _) => 1,
            Self::Text(Path::Sender | Path::StateKey, _) => 2,
            Self::Word(_) => 3,
            Self::Contains(..) => 4,
            Self::Text(Path::Content(_), _) => 5,
            Self::Text(..) => 6,
            Self::Always => 7,
        }
    }
}

/// `None`: the rule never matches.
pub(crate) fn trigger_of(conditions: &[Condition]) -> Option<Trigger> {
    let never = |condition: &Condition| {
        matches!(
            condition,
            Condition::Never
                | Condition::Match(Path::Nowhere, _)
                | Condition::Is(Path::Nowhere, _)
                | Condition::Contains(Path::Nowhere, _)
                | Condition::Match(_, Glob::Never)
                | Condition::Body(Glob::Never)
        )
    };
    if conditions.iter().any(never) {
        return None;
    }
    let triggers = conditions.iter().filter_map(of_condition);
    Some(triggers.min_by_key(Trigger::rank).unwrap_or(Trigger::Always))
}

fn of_condition(condition: &Condition) -> Option<Trigger> {
    match condition {
        Condition::Match(path, Glob::Literal(text)) => Some(Trigger::Text(path.clone(), text.clone())),
        Condition::Body(Glob::Literal(text)) => first_word(text).map(Trigger::Word),
        Condition::Is(path, value) => Some(Trigger::Text(path.clone(), text_of(value))),
        Condition::Contains(path, value) => Some(Trigger::Contains(path.clone(), text_of(value))),
        Condition::AboutOwner | Condition::MentionsOwner => Some(Trigger::Named),
        _ => None,
    }
}

/// A word of the pattern is a word of every text that the pattern matches.
fn first_word(pattern: &str) -> Option<String> {
    pattern.split(|c| !is_word_char(c)).find(|word| !word.is_empty()).map(ToOwned::to_owned)
}

fn text_of(value: &ScalarJsonValue) -> String {
    match value {
        ScalarJsonValue::Null => "null".to_owned(),
        ScalarJsonValue::Bool(value) => value.to_string(),
        ScalarJsonValue::Integer(value) => value.to_string(),
        ScalarJsonValue::String(value) => value.to_lowercase(),
    }
}
