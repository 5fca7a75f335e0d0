//! The profile of a local user as it goes into member events.

use myelin_core::UserNid;
use myelin_store::tables::{PROFILES, ProfileFieldRecord};
use serde_json::{Map, Value};

use crate::{Error, Rooms};

const FIELDS: [&str; 2] = ["displayname", "avatar_url"];

impl Rooms {
    /// `displayname` and `avatar_url`, as far as they are set.
    pub(crate) async fn profile(&self, user: UserNid) -> Result<Map<String, Value>, Error> {
        let keys = FIELDS.map(|field| (user, field.to_owned()));
        let rows = self.view.store.multi_get(&PROFILES, &keys).await?;
        let fields =
            FIELDS.iter().zip(rows).filter_map(|(name, row)| Some(((*name).to_owned(), text(row?)?)));
        Ok(fields.collect())
    }
}

/// Fields of the profile that are no strings stay out of events.
fn text(row: ProfileFieldRecord) -> Option<Value> {
    serde_json::from_str::<Value>(&row.json).ok().filter(Value::is_string)
}
