//! Push rules as account data (Client-Server API, "Push Rules: Events"): what is stored are the rules in full, the default
//! ones as they were then; reading brings them up to date.

use myelin_core::{RoomNid, UserNid};
use myelin_push::edit;
use ruma::{UserId, push::Ruleset};
use serde_json::json;

use crate::{Error, Users, account_data::AccountDataError};

pub const PUSH_RULES: &str = "m.push_rules";

#[derive(Debug, Clone, thiserror::Error)]
pub enum PushRulesError {
    #[error(transparent)]
    Edit(#[from] edit::Error),
    #[error(transparent)]
    Data(#[from] AccountDataError),
}

impl From<Error> for PushRulesError {
    fn from(error: Error) -> Self {
        Self::Data(error.into())
    }
}

impl Users {
    pub async fn push_rules(&self, user: UserNid, user_id: &UserId) -> Result<Ruleset, Error> {
        let stored = self.account_data(user, RoomNid::GLOBAL, PUSH_RULES).await?;
        Ok(edit::load(user_id, stored.as_deref()))
    }

    /// Durable, and heeded from the next event on, when it returns.
    pub async fn change_push_rules(
        &self,
        user: UserNid,
        user_id: &UserId,
        change: impl Fn(&mut Ruleset) -> Result<(), edit::Error>,
    ) -> Result<(), PushRulesError> {
        self.update_account_data(user, RoomNid::GLOBAL, PUSH_RULES, |stored| {
            let mut rules = edit::load(user_id, stored);
            change(&mut rules)?;
            let json = json!({ "global": edit::to_json(&rules) }).to_string();
            Ok(Some(json).filter(|json| Some(json.as_str()) != stored))
        })
        .await
    }
}
