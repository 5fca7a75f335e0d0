//! Thread subscriptions: `/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRootId}/subscription`
//! (MSC4306) and `GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions` (MSC4308).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{MethodRouter, get},
};
use http::StatusCode;
use myelin_core::{Position, SlidingToken};
use myelin_sync::{
    Sync,
    thread_subscriptions::{CHANGES_MAX, SubscriptionError, parse_token},
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path, Query},
    rate_limit::{Class, Limits},
    respond::{Empty, Json, RawJson},
};

const LIMIT_DEFAULT: usize = 100;

pub fn routes() -> Router<AppState> {
    let subscription: MethodRouter<AppState> = get(subscription).put(subscribe).delete(unsubscribe);
    Router::new()
        .route(
            "/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRootId}/subscription",
            subscription,
        )
        .route("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions", get(changes))
}

type Thread = (OwnedRoomId, OwnedEventId);

#[derive(Deserialize)]
struct Body {
    /// The event for which the client subscribes by itself.
    automatic: Option<OwnedEventId>,
}

#[derive(Deserialize)]
struct Params {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
}

async fn subscription(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    Path((room_id, root)): Path<Thread>,
) -> Result<Json<Value>, ApiError> {
    match sync.thread_subscription(&auth.requester(), &room_id, &root).await? {
        Some(automatic) => Ok(Json(json!({ "automatic": automatic }))),
        None => Err(ApiError::not_found("You are not subscribed to this thread.")),
    }
}

async fn subscribe(
    auth: Auth,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    Path((room_id, root)): Path<Thread>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let cause = body.automatic.as_deref();
    sync.subscribe_to_thread(&auth.requester(), &room_id, &root, cause).await?;
    Ok(Empty)
}

async fn unsubscribe(
    auth: Auth,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    Path((room_id, root)): Path<Thread>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    sync.unsubscribe_from_thread(&auth.requester(), &room_id, &root).await?;
    Ok(Empty)
}

async fn changes(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    if params.dir.as_deref().is_some_and(|dir| dir != "b") {
        return Err(ApiError::invalid_param("dir: changes are only given backwards ('b')."));
    }
    let limit = params.limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(limit).unwrap_or(CHANGES_MAX));
    if limit == 0 {
        return Err(ApiError::invalid_param("limit has to be greater than 0."));
    }
    let (from, to) = (position("from", params.from)?, position("to", params.to)?);
    let page = sync.thread_subscription_page(&auth.requester(), from, to, limit.min(CHANGES_MAX)).await?;
    Ok(RawJson(page.into()))
}

/// A token of this endpoint, or the position of a sliding sync.
fn position(name: &str, token: Option<String>) -> Result<Option<Position>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let sliding = || token.parse::<SlidingToken>().ok().map(|token| token.position);
    let position = parse_token(&token).or_else(sliding);
    position
        .map(Some)
        .ok_or_else(|| ApiError::invalid_param(format!("{name}: this server did not give it out.")))
}

impl From<SubscriptionError> for ApiError {
    fn from(error: SubscriptionError) -> Self {
        let message = error.to_string();
        match error {
            SubscriptionError::Sync(error) => error.into(),
            SubscriptionError::NotInThread => {
                Self::new(StatusCode::BAD_REQUEST, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", message)
            }
            SubscriptionError::Unsubscribed => {
                Self::new(StatusCode::CONFLICT, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", message)
            }
        }
    }
}
