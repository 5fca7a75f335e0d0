//! Account data in sync: global, and per room (Client-Server API, "Client Config").

use std::collections::BTreeSet;

use myelin_core::{Position, RoomNid};
use myelin_push::edit;
use myelin_store::{Direction, tables::ACCOUNT_DATA};

use super::{Changes, Context};
use crate::{Error, Sync, client_event::small_event, filter::EventFilter, json::Object};

const TYPES_MAX: usize = 10_000;
const PUSH_RULES: &str = "m.push_rules";

impl Sync {
    pub(crate) async fn push_account_data(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        body: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let events = self.account_data_of_user(context, changes).await?;
        let news = !events.is_empty();
        if news {
            body.events("account_data", events);
        }
        Ok(news)
    }

    pub(crate) async fn account_data_of_user(
        &self,
        context: &Context<'_>,
        changes: &Changes,
    ) -> Result<Vec<String>, Error> {
        let filter = &context.request.filter.account_data;
        if context.since.is_some() {
            let changed = changes.account_data.get(&RoomNid::GLOBAL);
            return self.changed_account_data(context, RoomNid::GLOBAL, changed, filter).await;
        }
        let mut events = self.all_account_data(context, RoomNid::GLOBAL, filter).await?;
        if filter.allows_type(PUSH_RULES) {
            events.extend(self.default_push_rules(context).await?);
        }
        Ok(events)
    }

    pub(crate) async fn changed_account_data(
        &self,
        context: &Context<'_>,
        room: RoomNid,
        changed: Option<&BTreeSet<String>>,
        filter: &EventFilter,
    ) -> Result<Vec<String>, Error> {
        let Some(types) = changed else { return Ok(Vec::new()) };
        let user = context.request.requester.user;
        let types = types.iter().filter(|kind| filter.allows_type(kind));
        let keys: Vec<_> = types.map(|kind| (user, room, kind.clone())).collect();
        let rows = self.view.store.multi_get(&ACCOUNT_DATA, &keys).await?;
        let found = keys.into_iter().zip(rows);
        Ok(found.filter_map(|((_, _, kind), row)| Some(small_event(&kind, &row?.value.json))).collect())
    }

    pub(crate) async fn all_account_data(
        &self,
        context: &Context<'_>,
        room: RoomNid,
        filter: &EventFilter,
    ) -> Result<Vec<String>, Error> {
        self.account_data_since(context, room, None, filter).await
    }

    /// What was written after `since`.
    pub(crate) async fn account_data_since(
        &self,
        context: &Context<'_>,
        room: RoomNid,
        since: Option<Position>,
        filter: &EventFilter,
    ) -> Result<Vec<String>, Error> {
        let prefix = (context.request.requester.user, room);
        let rows = self.view.store.scan(&ACCOUNT_DATA, &prefix, Direction::Forward, TYPES_MAX).await?;
        let later = rows.into_iter().filter(|(_, row)| since.is_none_or(|since| row.position > since));
        let wanted = later.filter(|((_, _, kind), _)| filter.allows_type(kind));
        Ok(wanted.map(|((_, _, kind), row)| small_event(&kind, &row.value.json)).collect())
    }

    /// Clients evaluate push rules themselves; whoever has not changed any has the specification's defaults.
    async fn default_push_rules(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        let requester = &context.request.requester;
        let key = (requester.user, RoomNid::GLOBAL, PUSH_RULES.to_owned());
        if self.view.store.get(&ACCOUNT_DATA, &key).await?.is_some() {
            return Ok(None);
        }
        let rules = edit::to_json(&edit::load(&requester.user_id, None));
        let content = serde_json::json!({ "global": rules }).to_string();
        Ok(Some(small_event(PUSH_RULES, &content)))
    }
}
