//! Whose invites a local user wants (Client-Server API, "Invite permission"; MSC4155 for the lists).

use myelin_core::{RoomNid, UserNid, patterns::glob};
use myelin_store::tables::ACCOUNT_DATA;
use ruma::UserId;
use serde::Deserialize;

use crate::{Error, View};

const CONFIG: &str = "m.invite_permission_config";
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";
/// Entries of one list that count.
const ENTRIES_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitePermission {
    Allow,
    /// It is taken, and the user does not see it.
    Ignore,
    /// It is refused: `M_INVITE_BLOCKED`.
    Block,
}

/// Lists of globs; who is in several is judged by the first, users before servers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lists {
    enabled: Option<bool>,
    allowed_users: Vec<String>,
    ignored_users: Vec<String>,
    blocked_users: Vec<String>,
    allowed_servers: Vec<String>,
    ignored_servers: Vec<String>,
    blocked_servers: Vec<String>,
}

impl View {
    pub async fn invite_permission(
        &self,
        user: UserNid,
        inviter: &UserId,
    ) -> Result<InvitePermission, Error> {
        let keys = [CONFIG, LISTS].map(|kind| (user, RoomNid::GLOBAL, kind.to_owned()));
        let rows = self.store.multi_get(&ACCOUNT_DATA, &keys).await?;
        let mut configs = rows.into_iter().map(|row| row.map(|row| row.value.json));
        if configs.next().flatten().is_some_and(|json| blocks_all(&json)) {
            return Ok(InvitePermission::Block);
        }
        let lists = configs.next().flatten().and_then(|json| serde_json::from_str::<Lists>(&json).ok());
        Ok(lists.map_or(InvitePermission::Allow, |lists| lists.judge(inviter)))
    }
}

fn blocks_all(json: &str) -> bool {
    let config: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    config.get("default_action").and_then(serde_json::Value::as_str) == Some("block")
}

impl Lists {
    fn judge(&self, inviter: &UserId) -> InvitePermission {
        use InvitePermission::{Allow, Block, Ignore};
        if self.enabled == Some(false) {
            return Allow;
        }
        let (user, server) = (inviter.as_str(), inviter.server_name().host());
        let lists = [
            (&self.allowed_users, user, Allow),
            (&self.ignored_users, user, Ignore),
            (&self.blocked_users, user, Block),
            (&self.allowed_servers, server, Allow),
            (&self.ignored_servers, server, Ignore),
            (&self.blocked_servers, server, Block),
        ];
        let holds =
            |globs: &[String], text: &str| globs.iter().take(ENTRIES_MAX).any(|entry| glob(entry, text));
        let found = lists.into_iter().find(|(globs, text, _)| holds(globs, text));
        found.map_or(Allow, |(_, _, permission)| permission)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_list_judges() {
        let lists = |value: serde_json::Value| serde_json::from_value::<Lists>(value).unwrap();
        let inviter = user_id!("@bad:evil.org");
        let check = |value, expected| assert_eq!(lists(value).judge(inviter), expected);
        check(json!({}), InvitePermission::Allow);
        check(json!({ "blocked_servers": ["*.org"] }), InvitePermission::Block);
        check(json!({ "blocked_servers": ["*"], "allowed_users": ["@bad:*"] }), InvitePermission::Allow);
        check(
            json!({ "ignored_users": ["@bad:evil.org"], "blocked_servers": ["*"] }),
            InvitePermission::Ignore,
        );
        check(json!({ "enabled": false, "blocked_servers": ["*"] }), InvitePermission::Allow);
        assert!(blocks_all(r#"{"default_action":"block"}"#));
        assert!(!blocks_all(r#"{"default_action":"allow"}"#) && !blocks_all("[]"));
    }
}
