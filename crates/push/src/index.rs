//! Whose rules may see an event otherwise than the shared rules do: looked up by what the event has, so that its cost
//! does not depend on how many users have rules about something else.

use imbl::{HashMap, OrdMap, OrdSet};
use myelin_core::UserNid;
use serde_json::Value;

use crate::{
    path::Path,
    subject::{Property, Subject},
    trigger::Trigger,
};

type Users = OrdSet<UserNid>;

/// Cheap to clone: whoever changes it leaves those alone who read it.
#[derive(Clone, Debug, Default)]
pub struct Index {
    texts: OrdMap<Path, HashMap<String, Users>>,
    contained: OrdMap<Path, HashMap<String, Users>>,
    words: HashMap<String, Users>,
    always: Users,
}

impl Index {
    pub fn add(&mut self, user: UserNid, triggers: &[Trigger]) {
        for trigger in triggers {
            match trigger {
                Trigger::Text(path, text) => insert(self.texts.entry(path.clone()).or_default(), text, user),
                Trigger::Contains(path, text) => {
                    insert(self.contained.entry(path.clone()).or_default(), text, user);
                }
                Trigger::Word(word) => insert(&mut self.words, word, user),
                Trigger::Always => drop(self.always.insert(user)),
                // Whom an event names is asked anyway.
                Trigger::Named => {}
            }
        }
    }

    pub fn remove(&mut self, user: UserNid, triggers: &[Trigger]) {
        for trigger in triggers {
            match trigger {
                Trigger::Text(path, text) => take(&mut self.texts, path, text, user),
                Trigger::Contains(path, text) => take(&mut self.contained, path, text, user),
                Trigger::Word(word) => remove(&mut self.words, word, user),
                Trigger::Always => drop(self.always.remove(&user)),
                Trigger::Named => {}
            }
        }
    }

    /// Those of `among` whose own rules have to be asked. Whom the event names is to be asked besides.
    pub fn concerned(&self, subject: &Subject<'_>, among: &Users) -> Users {
        let mut found = Users::new();
        common(&self.always, among, &mut found);
        for (path, by_text) in &self.texts {
            let text = subject.property(path).and_then(|property| text_of(&property));
            let users = text.and_then(|text| by_text.get(&text));
            users.into_iter().for_each(|users| common(users, among, &mut found));
        }
        for (path, by_text) in &self.contained {
            let Some(Property::Json(Value::Array(values))) = subject.property(path) else { continue };
            for text in values.iter().filter_map(scalar_text) {
                by_text.get(&text).into_iter().for_each(|users| common(users, among, &mut found));
            }
        }
        if !self.words.is_empty() {
            for word in subject.words() {
                self.words.get(word).into_iter().for_each(|users| common(users, among, &mut found));
            }
        }
        found
    }
}

/// O(the smaller of the two).
fn common(users: &Users, among: &Users, found: &mut Users) {
    let (few, many) = if users.len() <= among.len() { (users, among) } else { (among, users) };
    for user in few.iter().filter(|user| many.contains(*user)) {
        found.insert(*user);
    }
}

fn insert(by_text: &mut HashMap<String, Users>, text: &str, user: UserNid) {
    by_text.entry(text.to_owned()).or_default().insert(user);
}

fn remove(by_text: &mut HashMap<String, Users>, text: &str, user: UserNid) {
    let Some(users) = by_text.get_mut(text) else { return };
    users.remove(&user);
    if users.is_empty() {
        by_text.remove(text);
    }
}

fn take(by_path: &mut OrdMap<Path, HashMap<String, Users>>, path: &Path, text: &str, user: UserNid) {
    let Some(by_text) = by_path.get_mut(path) else { return };
    remove(by_text, text, user);
    if by_text.is_empty() {
        by_path.remove(path);
    }
}

fn text_of(property: &Property<'_>) -> Option<String> {
    match property {
        Property::Text(text) => Some(text.to_lowercase()),
        Property::Json(value) => scalar_text(value),
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.to_lowercase()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
