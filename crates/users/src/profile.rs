//! Profiles of local users (Client-Server API, "Profiles"). Propagation to member events follows the log, elsewhere.

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{PROFILES, ProfileFieldRecord},
};
use ruma::{MxcUri, UserId};
use serde_json::{Map, Value};

use crate::{Error, Users, transaction::transact};

pub const DISPLAYNAME: &str = "displayname";
pub const AVATAR_URL: &str = "avatar_url";
const TIME_ZONE: &str = "m.tz";

/// Characters; it is repeated in every member event.
const DISPLAYNAME_LENGTH_MAX: usize = 256;
const AVATAR_URL_SIZE_MAX: usize = 1000;
const FIELDS_MAX: usize = limits::PROFILE_SIZE_MAX;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ProfileError {
    #[error("'{0}' is not a name of a profile field")]
    InvalidKey(String),
    #[error("the name of a profile field has at most {} bytes", limits::PROFILE_KEY_SIZE_MAX)]
    KeyTooLarge,
    #[error("a profile has at most {} bytes", limits::PROFILE_SIZE_MAX)]
    TooLarge,
    #[error("{0}")]
    InvalidValue(&'static str),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    /// All fields; `None` if there is no such local account, or nothing of it is left.
    pub async fn profile(&self, user_id: &UserId) -> Result<Option<Map<String, Value>>, Error> {
        let Some(account) = self.account(user_id).await? else { return Ok(None) };
        let fields = self.profile_fields(account.user).await?;
        if fields.is_empty() && account.record.deactivated {
            return Ok(None);
        }
        fields.into_iter().map(|(field, json)| Ok((field, parse(&json)?))).collect::<Result<_, _>>().map(Some)
    }

    pub async fn profile_field(&self, user_id: &UserId, field: &str) -> Result<Option<Value>, Error> {
        let Some(account) = self.account(user_id).await? else { return Ok(None) };
        let row = self.view.store.get(&PROFILES, &(account.user, field.to_owned())).await?;
        row.map(|row| parse(&row.json)).transpose()
    }

    /// Sets one field. An empty or null display name or avatar removes it, as clients mean it.
    pub async fn set_profile_field(
        &self,
        user: UserNid,
        field: &str,
        value: &Value,
    ) -> Result<(), ProfileError> {
        check_key(field)?;
        if is_removal(field, value) {
            return self.write_profile_field(user, field, None).await;
        }
        check_value(field, value)?;
        self.write_profile_field(user, field, Some(value.to_string())).await
    }

    pub async fn delete_profile_field(&self, user: UserNid, field: &str) -> Result<(), ProfileError> {
        check_key(field)?;
        self.write_profile_field(user, field, None).await
    }

    async fn write_profile_field(
        &self,
        user: UserNid,
        field: &str,
        json: Option<String>,
    ) -> Result<(), ProfileError> {
        let key = (user, field.to_owned());
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let fields = self.profile_fields(user).await?;
            let old = fields.iter().find(|(name, _)| name == field).map(|(_, json)| json.clone());
            if old == json {
                return Ok((batch, ()));
            }
            let old = old.map(|json| ProfileFieldRecord { json });
            batch.require_unchanged(&PROFILES, &key, old.as_ref());
            match &json {
                Some(json) => {
                    check_size(&fields, field, json)?;
                    batch.put(&PROFILES, &key, &ProfileFieldRecord { json: json.clone() });
                }
                None => batch.delete(&PROFILES, &key),
            }
            batch.log(&LogEntry::Profile { user });
            Ok((batch, ()))
        })
        .await
    }

    async fn profile_fields(&self, user: UserNid) -> Result<Vec<(String, String)>, Error> {
        let rows = self.view.store.scan(&PROFILES, &user, Direction::Forward, FIELDS_MAX).await?;
        Ok(rows.into_iter().map(|((_, field), row)| (field, row.json)).collect())
    }
}

fn parse(json: &str) -> Result<Value, Error> {
    serde_json::from_str(json).map_err(|e| Error::Damaged(format!("a profile field: {e}")))
}

/// `displayname`, `avatar_url`, or a name of the Common Namespaced Identifier Grammar.
fn check_key(key: &str) -> Result<(), ProfileError> {
    if key.len() > limits::PROFILE_KEY_SIZE_MAX {
        return Err(ProfileError::KeyTooLarge);
    }
    let grammar = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let namespaced =
        key.contains('.') && key.starts_with(|c: char| c.is_ascii_lowercase()) && key.bytes().all(grammar);
    match key {
        DISPLAYNAME | AVATAR_URL => Ok(()),
        _ if namespaced => Ok(()),
        _ => Err(ProfileError::InvalidKey(key.to_owned())),
    }
}

fn is_removal(field: &str, value: &Value) -> bool {
    matches!(field, DISPLAYNAME | AVATAR_URL) && (value.is_null() || value.as_str() == Some(""))
}

fn check_value(field: &str, value: &Value) -> Result<(), ProfileError> {
    let refused = match (field, value.as_str()) {
        (DISPLAYNAME, None) => "a displayname is a string",
        (DISPLAYNAME, Some(name)) if name.chars().count() > DISPLAYNAME_LENGTH_MAX => {
            "a displayname has at most 256 characters"
        }
        (AVATAR_URL, None) => "an avatar_url is a string",
        (AVATAR_URL, Some(url)) if url.len() > AVATAR_URL_SIZE_MAX || !<&MxcUri>::from(url).is_valid() => {
            "an avatar_url is an mxc:// URI"
        }
        (TIME_ZONE, None) => "m.tz is a string",
        _ => return Ok(()),
    };
    Err(ProfileError::InvalidValue(refused))
}

/// As if the whole profile were one object: names, values, and the punctuation around them.
fn check_size(fields: &[(String, String)], field: &str, json: &str) -> Result<(), ProfileError> {
    let size = |name: &str, json: &str| name.len() + json.len() + 4;
    let others = fields.iter().filter(|(name, _)| name != field);
    let total: usize = others.map(|(name, json)| size(name, json)).sum::<usize>() + size(field, json) + 2;
    if total > limits::PROFILE_SIZE_MAX { Err(ProfileError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::World;

    #[test]
    fn keys() {
        for key in ["displayname", "avatar_url", "m.tz", "org.example.job_title", "org.ex-ample.x1"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in ["", "nick", "Org.example", "org example.x", "1.x", ".x", "ä.x", "a\0.x"] {
            assert!(matches!(check_key(key), Err(ProfileError::InvalidKey(_))), "{key}");
        }
        let long = format!("a.{}", "x".repeat(254));
        assert!(matches!(check_key(&long), Err(ProfileError::KeyTooLarge)));
    }

    #[test]
    fn values() {
        for (field, value) in [
            ("displayname", json!("Alice")),
            ("avatar_url", json!("mxc://example.org/abc")),
            ("m.tz", json!("Europe/London")),
            ("org.example.x", json!({ "any": [1, null] })),
        ] {
            assert!(check_value(field, &value).is_ok(), "{field}");
        }
        for (field, value) in [
            ("displayname", json!(7)),
            ("displayname", json!("x".repeat(257))),
            ("avatar_url", json!("https://example.org/abc")),
            ("avatar_url", json!(["mxc://example.org/abc"])),
            ("avatar_url", json!(format!("mxc://example.org/{}", "x".repeat(1000)))),
            ("m.tz", json!(1)),
        ] {
            assert!(
                matches!(check_value(field, &value), Err(ProfileError::InvalidValue(_))),
                "{field} {value}"
            );
        }
    }

    #[test]
    fn fields_are_set_and_removed() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let before = world.view.store.position();
            let set = async |field, value| world.users.set_profile_field(user, field, &value).await.unwrap();
            set("displayname", json!("Alice")).await;
            set("org.example.x", json!(null)).await;
            set("avatar_url", json!("mxc://example.org/abc")).await;
            set("displayname", json!("Alice")).await;
            assert_eq!(world.view.store.position().0, before.0 + 3, "what does not change is not logged");
            set("avatar_url", json!("")).await;
            let profile = world.users.profile(&grant.user_id).await.unwrap().unwrap();
            let expected = json!({ "displayname": "Alice", "org.example.x": null });
            assert_eq!(Value::Object(profile), expected);
            world.users.delete_profile_field(user, "displayname").await.unwrap();
            world.users.delete_profile_field(user, "displayname").await.unwrap();
            let field = world.users.profile_field(&grant.user_id, "displayname").await.unwrap();
            assert_eq!(field, None);
            let field = world.users.profile_field(&grant.user_id, "org.example.x").await.unwrap();
            assert_eq!(field, Some(Value::Null));
        });
    }

    #[test]
    fn a_profile_has_a_size() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let half = json!("x".repeat(33_000));
            world.users.set_profile_field(user, "org.example.a", &half).await.unwrap();
            world.users.set_profile_field(user, "org.example.a", &half).await.unwrap();
            let refused = world.users.set_profile_field(user, "org.example.b", &half).await;
            assert!(matches!(refused, Err(ProfileError::TooLarge)));
        });
    }

    #[test]
    fn nobody_has_no_profile() {
        let world = World::new();
        for user_id in ["@nobody:example.org", "@alice:elsewhere.org"] {
            let user_id = <&UserId>::try_from(user_id).unwrap();
            assert_eq!(world.run(world.users.profile(user_id)).unwrap(), None);
            assert_eq!(world.run(world.users.profile_field(user_id, "displayname")).unwrap(), None);
        }
    }
}
