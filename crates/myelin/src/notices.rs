//! Server notices from the command line: what the server that runs, or the command itself, says to a user.

use anyhow::anyhow;
use myelin_api::Notices;
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::maintenance::Outcome;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub user_id: OwnedUserId,
    pub text: String,
}

/// Without what is said: that is between the server and the user.
impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

pub async fn say(notices: &Notices, notice: Notice) -> anyhow::Result<Outcome> {
    let Notice { user_id, text } = notice;
    let mut content = Map::new();
    content.insert("body".to_owned(), Value::String(text));
    let said = notices.send(user_id.clone(), content, None).await;
    let said = said.map_err(|error| anyhow!("{user_id}: {}", error.message()))?;
    Ok(Outcome { good: true, text: format!("{user_id} was told, in {}", said.room_id) })
}
