//! `POST /_matrix/client/v3/search` (Client-Server API, "Server Side Search").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_search::{Criteria, GroupKey, Order, Search, Searched, Surrounding};
use myelin_sync::filter::EventFilter;
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Query},
    rate_limit::{Class, Limits},
    respond::RawJson,
};

/// Events before and after a result, if context is asked for.
const CONTEXT_DEFAULT: usize = 5;

#[derive(Deserialize)]
struct Params {
    next_batch: Option<String>,
}

#[derive(Deserialize)]
struct SearchBody {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<RoomEvents>,
}

#[derive(Deserialize)]
struct RoomEvents {
    search_term: String,
    keys: Option<Vec<String>>,
    #[serde(default)]
    filter: EventFilter,
    order_by: Option<String>,
    event_context: Option<EventContext>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Deserialize)]
struct EventContext {
    before_limit: Option<usize>,
    after_limit: Option<usize>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Default, Deserialize)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: Option<String>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/search", post(search))
}

async fn search(
    auth: Auth,
    limits: Limits,
    State(index): State<Arc<Search>>,
    Query(params): Query<Params>,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<RawJson, ApiError> {
    limits.check(Class::Search, &auth)?;
    let Some(wanted) = body.search_categories.room_events else {
        return Ok(RawJson(r#"{"search_categories":{}}"#.into()));
    };
    let criteria = wanted.criteria(params.next_batch)?;
    let found = index.room_events(&auth.requester(), &criteria).await?;
    Ok(RawJson(format!(r#"{{"search_categories":{{"room_events":{found}}}}}"#).into()))
}

impl RoomEvents {
    fn criteria(self, next_batch: Option<String>) -> Result<Criteria, ApiError> {
        let order = match self.order_by.as_deref() {
            None | Some("rank") => Order::Rank,
            Some("recent") => Order::Recent,
            Some(other) => return Err(unknown("order_by", other, "rank or recent")),
        };
        let groups = self.groupings.group_by.into_iter().filter_map(|grouping| grouping.key);
        let mut group_by: Vec<GroupKey> = Vec::new();
        for key in groups {
            let key = match key.as_str() {
                "room_id" => GroupKey::RoomId,
                "sender" => GroupKey::Sender,
                other => return Err(unknown("group_by", other, "room_id or sender")),
            };
            if !group_by.contains(&key) {
                group_by.push(key);
            }
        }
        let surrounding = self.event_context.map(|context| Surrounding {
            before: context.before_limit.unwrap_or(CONTEXT_DEFAULT),
            after: context.after_limit.unwrap_or(CONTEXT_DEFAULT),
            profiles: context.include_profile,
        });
        Ok(Criteria {
            term: self.search_term,
            keys: self.keys.map(searched).transpose()?,
            filter: self.filter,
            order,
            surrounding,
            include_state: self.include_state,
            group_by,
            next_batch,
        })
    }
}

fn searched(keys: Vec<String>) -> Result<Vec<Searched>, ApiError> {
    let mut searched = Vec::new();
    for key in keys {
        let found = Searched::ALL.into_iter().find(|searched| searched.as_str() == key);
        let found =
            found.ok_or_else(|| unknown("keys", &key, "content.body, content.name or content.topic"))?;
        if !searched.contains(&found) {
            searched.push(found);
        }
    }
    Ok(searched)
}

fn unknown(field: &str, value: &str, expected: &str) -> ApiError {
    let value: String = value.chars().take(64).collect();
    ApiError::invalid_param(format!("{field}: '{value}' is not {expected}."))
}
