//! The rules of one user as account data (`m.push_rules`), and changes to them (Client-Server API, "Push Rules: API").

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, NewConditionalPushRule, NewPatternedPushRule, NewSimplePushRule,
        PatternedPushRule, PushCondition, Ruleset, SimplePushRule,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Rules of one user, the default ones included.
pub const RULES_MAX: usize = 1_000;
pub const RULE_ID_SIZE_MAX: usize = 255;
pub const PATTERN_SIZE_MAX: usize = 512;
pub const CONDITIONS_MAX: usize = 32;
pub const ACTIONS_MAX: usize = 32;
/// Actions of a rule, and each condition, as JSON.
pub const PARTS_SIZE_MAX: usize = 4_096;

/// Of conditions, whatever their kind.
const TEXTS: [&str; 3] = ["key", "pattern", "is"];

const MASTER: &str = ".m.rule.master";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Override,
    Content,
    Room,
    Sender,
    Underride,
}

/// The body of a new or changed rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Definition {
    pub actions: Vec<Value>,
    #[serde(default)]
    pub conditions: Vec<Value>,
    pub pattern: Option<String>,
}

/// Where a rule goes: right before one, or right after one.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("There are no push rules of this kind.")]
    UnknownKind,
    #[error("The push rule was not found.")]
    NotFound,
    #[error("Rules whose id starts with a dot are the server's; they cannot be added or deleted.")]
    Reserved,
    #[error("{0}")]
    Invalid(String),
    #[error("before/after rule not found: {0}")]
    NoSuchPlace(String),
    #[error("You have too many push rules (at most {RULES_MAX}).")]
    TooMany,
}

/// The rules of a user; `stored` is what the account data holds. The default rules are those of today.
pub fn load(user: &UserId, stored: Option<&str>) -> Ruleset {
    #[derive(Deserialize)]
    struct Stored {
        global: Ruleset,
    }
    let defaults = Ruleset::server_default(user);
    match stored.and_then(|json| serde_json::from_str::<Stored>(json).ok()) {
        Some(Stored { mut global }) => {
            global.update_with_server_default(defaults);
            global
        }
        None => defaults,
    }
}

/// Every kind is there, also where it has no rules: clients expect that.
pub fn to_json(rules: &Ruleset) -> Value {
    let kind = |rules: Value| if rules.is_null() { json!([]) } else { rules };
    json!({
        "override": kind(json!(rules.override_)),
        "content": kind(json!(rules.content)),
        "room": kind(json!(rules.room)),
        "sender": kind(json!(rules.sender)),
        "underride": kind(json!(rules.underride)),
    })
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "override" => Self::Override,
            "content" => Self::Content,
            "room" => Self::Room,
            "sender" => Self::Sender,
            "underride" => Self::Underride,
            _ => return Err(Error::UnknownKind),
        })
    }
}

/// One rule as JSON.
pub fn get(rules: &Ruleset, kind: Kind, rule_id: &str) -> Result<Value, Error> {
    fn found(rule: Option<&impl Serialize>) -> Result<Value, Error> {
        rule.and_then(|rule| serde_json::to_value(rule).ok()).ok_or(Error::NotFound)
    }
    match kind {
        Kind::Override => found(rules.override_.get(rule_id)),
        Kind::Content => found(rules.content.get(rule_id)),
        Kind::Room => found(rules.room.get(rule_id)),
        Kind::Sender => found(rules.sender.get(rule_id)),
        Kind::Underride => found(rules.underride.get(rule_id)),
    }
}

/// Adds a rule or changes it. One that was there stays enabled or disabled, and where it was unless `place` says.
pub fn put(
    rules: &mut Ruleset,
    kind: Kind,
    rule_id: &str,
    definition: &Definition,
    place: &Place,
) -> Result<(), Error> {
    check_id(rule_id)?;
    let actions = actions(&definition.actions)?;
    match kind {
        Kind::Override | Kind::Underride => {
            let conditions = conditions(&definition.conditions)?;
            let rule = NewConditionalPushRule::new(rule_id.to_owned(), conditions, actions);
            let set = if kind == Kind::Override { &mut rules.override_ } else { &mut rules.underride };
            set_in(set, ConditionalPushRule::from(rule), place)?;
        }
        Kind::Content => {
            let rule = NewPatternedPushRule::new(rule_id.to_owned(), pattern(definition)?, actions);
            set_in(&mut rules.content, PatternedPushRule::from(rule), place)?;
        }
        Kind::Room => {
            let room = rule_id.try_into().map_err(|_| invalid("The id of a room rule is a room id."))?;
            set_in(&mut rules.room, SimplePushRule::from(NewSimplePushRule::new(room, actions)), place)?;
        }
        Kind::Sender => {
            let user = rule_id.try_into().map_err(|_| invalid("The id of a sender rule is a user id."))?;
            set_in(&mut rules.sender, SimplePushRule::from(NewSimplePushRule::new(user, actions)), place)?;
        }
    }
    let total = [rules.override_.len(), rules.content.len(), rules.room.len(), rules.sender.len()];
    if total.iter().sum::<usize>() + rules.underride.len() > RULES_MAX {
        return Err(Error::TooMany);
    }
    Ok(())
}

pub fn delete(rules: &mut Ruleset, kind: Kind, rule_id: &str) -> Result<(), Error> {
    if rule_id.starts_with('.') {
        get(rules, kind, rule_id)?;
        return Err(Error::Reserved);
    }
    let there = match kind {
        Kind::Override => rules.override_.shift_remove(rule_id),
        Kind::Content => rules.content.shift_remove(rule_id),
        Kind::Room => rules.room.shift_remove(rule_id),
        Kind::Sender => rules.sender.shift_remove(rule_id),
        Kind::Underride => rules.underride.shift_remove(rule_id),
    };
    if there { Ok(()) } else { Err(Error::NotFound) }
}

pub fn set_enabled(rules: &mut Ruleset, kind: Kind, rule_id: &str, enabled: bool) -> Result<(), Error> {
    let changed = rules.set_enabled(kind.into(), rule_id, enabled);
    changed.map_err(|_| Error::NotFound)
}

pub fn set_actions(rules: &mut Ruleset, kind: Kind, rule_id: &str, new: &[Value]) -> Result<(), Error> {
    get(rules, kind, rule_id)?;
    let actions = actions(new)?;
    rules.set_actions(kind.into(), rule_id, actions).map_err(|_| Error::NotFound)
}

impl From<Kind> for ruma::push::RuleKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Override => Self::Override,
            Kind::Content => Self::Content,
            Kind::Room => Self::Room,
            Kind::Sender => Self::Sender,
            Kind::Underride => Self::Underride,
        }
    }
}

trait Named {
    fn name(&self) -> &str;
    fn enabled(&mut self) -> &mut bool;
}

macro_rules! named {
    ($($rule:ty),*) => {$(
        impl Named for $rule {
            fn name(&self) -> &str {
                self.rule_id.as_str()
            }

            fn enabled(&mut self) -> &mut bool {
                &mut self.enabled
            }
        }
    )*};
}

named!(
    ConditionalPushRule,
    PatternedPushRule,
    SimplePushRule<ruma::OwnedRoomId>,
    SimplePushRule<ruma::OwnedUserId>
);

/// Rules of the user stand before the default ones, but after the master switch.
fn set_in<S, T>(set: &mut S, mut rule: T, place: &Place) -> Result<(), Error>
where
    S: Default + IntoIterator<Item = T> + FromIterator<T> + Clone,
    T: Named,
{
    let mut rules: Vec<T> = set.clone().into_iter().collect();
    let held = rules.iter().position(|held| held.name() == rule.name());
    if let Some(held) = held {
        let mut held = rules.remove(held);
        *rule.enabled() = *held.enabled();
    }
    let place = match relative(&rules, place)? {
        Some(place) => place,
        None => held.unwrap_or_else(|| usize::from(rules.first().is_some_and(|rule| rule.name() == MASTER))),
    };
    rules.insert(place.min(rules.len()), rule);
    *set = rules.into_iter().collect();
    Ok(())
}

fn relative(rules: &[impl Named], place: &Place) -> Result<Option<usize>, Error> {
    let find = |name: &String| {
        let own = rules.iter().position(|rule| rule.name() == name).filter(|_| !name.starts_with('.'));
        own.ok_or_else(|| Error::NoSuchPlace(name.clone()))
    };
    let after = place.after.as_ref().map(find).transpose()?;
    let before = place.before.as_ref().map(find).transpose()?;
    Ok(before.or(after.map(|after| after + 1)))
}

fn check_id(rule_id: &str) -> Result<(), Error> {
    if rule_id.starts_with('.') {
        return Err(Error::Reserved);
    }
    if rule_id.is_empty() || rule_id.len() > RULE_ID_SIZE_MAX {
        return Err(invalid("The id of a rule has 1 to 255 bytes."));
    }
    if rule_id.contains(['/', '\\']) {
        return Err(invalid("The id of a rule has no slashes in it."));
    }
    Ok(())
}

/// Actions of old are dropped: they say what is so without them.
fn actions(values: &[Value]) -> Result<Vec<Action>, Error> {
    if values.len() > ACTIONS_MAX || json!(values).to_string().len() > PARTS_SIZE_MAX {
        return Err(invalid("These are too many actions."));
    }
    let mut actions = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::String(name) if matches!(name.as_str(), "dont_notify" | "coalesce") => continue,
            Value::String(name) if name == "notify" => {}
            Value::Object(action) if is_tweak(action) => {}
            _ => return Err(invalid("An action is 'notify' or sets a tweak.")),
        }
        let action = serde_json::from_value(value.clone());
        actions.push(action.map_err(|error| invalid(format!("This is not an action: {error}.")))?);
    }
    Ok(actions)
}

fn is_tweak(action: &Map<String, Value>) -> bool {
    action.get("set_tweak").is_some_and(Value::is_string)
}

fn conditions(values: &[Value]) -> Result<Vec<PushCondition>, Error> {
    if values.len() > CONDITIONS_MAX {
        return Err(invalid("These are too many conditions."));
    }
    let condition = |value: &Value| {
        if value.to_string().len() > PARTS_SIZE_MAX {
            return Err(invalid("This condition is too large."));
        }
        if value["pattern"].as_str().is_some_and(|pattern| pattern.len() > PATTERN_SIZE_MAX) {
            return Err(invalid("A pattern has at most 512 bytes."));
        }
        if let Some(field) =
            TEXTS.into_iter().find(|field| !value[*field].is_null() && !value[*field].is_string())
        {
            return Err(invalid(format!("'{field}' of a condition is a string.")));
        }
        let condition = serde_json::from_value(value.clone());
        condition.map_err(|error| invalid(format!("This is not a condition: {error}.")))
    };
    values.iter().map(condition).collect()
}

fn pattern(definition: &Definition) -> Result<String, Error> {
    match &definition.pattern {
        Some(pattern) if pattern.len() <= PATTERN_SIZE_MAX => Ok(pattern.clone()),
        Some(_) => Err(invalid("A pattern has at most 512 bytes.")),
        None => Err(invalid("A content rule needs a pattern.")),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}
