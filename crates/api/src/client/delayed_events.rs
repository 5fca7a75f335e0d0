//! Delayed events (MSC4140), under its unstable prefix: scheduling, and what becomes of them. The endpoints that manage
//! one need no access token: whoever knows the id may use it.
//!
//! Earlier drafts scheduled through `/send` and `/state` with `org.matrix.msc4140.delay` in the query, and named the
//! action in the body; clients of them are served too.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    extract::State,
    routing::{get, post, put},
};
use http::StatusCode;
use myelin_rooms::{
    Rooms, Transaction,
    delayed::{Ask, DelayAction, DelayError, NewDelayedEvent, Order, Outcome, Status},
};
use myelin_store::tables::DelayedEventRecord;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::room_send::transaction;
use crate::{
    ApiError, AppState, ServerConfig,
    extract::{Auth, GuestsNotSuspended, JsonBody, OptionalJsonBody, Path, Query, WithGuests},
    rate_limit::{Class, Limits, RateLimiter, Subject},
    respond::{Empty, Json},
};

#[derive(Deserialize)]
struct ScheduleBody {
    delay: u64,
    state_key: Option<String>,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct ScheduleQuery {
    #[serde(rename = "org.matrix.msc4354.sticky_duration_ms")]
    sticky_duration_ms: Option<u64>,
}

#[derive(Deserialize)]
struct ActionBody {
    action: Option<String>,
}

#[derive(Deserialize)]
struct ListQuery {
    order_by: Option<String>,
    dir: Option<String>,
    from: Option<String>,
    since_ts: Option<String>,
    status: Option<String>,
    room_id: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
}

pub fn routes() -> Router<AppState> {
    const PREFIX: &str = "/_matrix/client/unstable/org.matrix.msc4140";
    Router::new()
        .route(&format!("{PREFIX}/rooms/{{roomId}}/delayed_event/{{eventType}}/{{txnId}}"), put(schedule))
        .route(&format!("{PREFIX}/delayed_events"), get(list))
        .route(&format!("{PREFIX}/delayed_events/{{delayId}}"), get(one).post(manage_by_body))
        .route(&format!("{PREFIX}/delayed_events/{{delayId}}/{{action}}"), post(manage))
}

/// What `/send` and `/state` schedule if the query names a delay.
pub(super) async fn schedule_with(
    auth: &Auth<GuestsNotSuspended>,
    rooms: &Rooms,
    config: &ServerConfig,
    new: NewDelayedEvent<'_>,
) -> Result<String, DelayError> {
    rooms.schedule_event(&auth.sender(), &new, &config.delayed_events).await
}

async fn schedule(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(config): State<Arc<ServerConfig>>,
    Path((room_id, event_type, txn_id)): Path<(OwnedRoomId, String, String)>,
    Query(query): Query<ScheduleQuery>,
    JsonBody(body): JsonBody<ScheduleBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Message, &auth)?;
    let transaction: Transaction = transaction(&auth, txn_id);
    let new = NewDelayedEvent {
        room_id,
        event_type: event_type.into(),
        state_key: body.state_key,
        content: &body.content,
        delay_ms: body.delay,
        sticky_duration_ms: query.sticky_duration_ms.map(super::room_send::check_sticky).transpose()?,
        transaction: Some(transaction),
    };
    let delay_id = schedule_with(&auth, &rooms, &config, new).await?;
    Ok(Json(json!({ "delay_id": delay_id })))
}

async fn manage(
    limits: Limits,
    State(limiter): State<Arc<RateLimiter>>,
    State(rooms): State<Arc<Rooms>>,
    Path((delay_id, action)): Path<(String, String)>,
    OptionalJsonBody(_): OptionalJsonBody<Map<String, Value>>,
) -> Result<Empty, ApiError> {
    act(&limits, &limiter, &rooms, &delay_id, &action).await
}

async fn manage_by_body(
    limits: Limits,
    State(limiter): State<Arc<RateLimiter>>,
    State(rooms): State<Arc<Rooms>>,
    Path(delay_id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody<ActionBody>,
) -> Result<Empty, ApiError> {
    let missing = || ApiError::missing_param("The body names an 'action'.");
    act(&limits, &limiter, &rooms, &delay_id, &body.action.ok_or_else(missing)?).await
}

async fn act(
    limits: &Limits,
    limiter: &RateLimiter,
    rooms: &Rooms,
    delay_id: &str,
    action: &str,
) -> Result<Empty, ApiError> {
    // Many clients may stand behind the one address of a media server.
    limits.check_address(Class::Write)?;
    let action = match action {
        "send" => DelayAction::Send,
        "cancel" => DelayAction::Cancel,
        "restart" => DelayAction::Restart,
        _ => return Err(ApiError::invalid_param("An action is send, cancel or restart.")),
    };
    if action == DelayAction::Send
        && let Some(user) = rooms.owner_of_delayed_event(delay_id).await?
    {
        limiter.check_subject(Class::Message, Subject::User(user))?;
    }
    rooms.manage_delayed_event(delay_id, action).await?;
    Ok(Empty)
}

async fn one(
    auth: Auth<WithGuests>,
    State(rooms): State<Arc<Rooms>>,
    Path(delay_id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let record = rooms.delayed_event(auth.user, &delay_id).await?;
    Ok(Json(describe(&delay_id, &record)?))
}

async fn list(
    auth: Auth<WithGuests>,
    State(rooms): State<Arc<Rooms>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let ask = ask(query)?;
    let page = rooms.delayed_events(auth.user, &ask).await?;
    let events: Result<Vec<_>, _> = page.events.iter().map(|(id, record)| describe(id, record)).collect();
    let mut answer = json!({ "delayed_events": events? });
    if let Some((ms, id)) = page.next {
        let name = if ask.backwards { "prev_batch" } else { "next_batch" };
        answer[name] = format!("{ms}_{id}").into();
    }
    Ok(Json(answer))
}

fn ask(query: ListQuery) -> Result<Ask, ApiError> {
    let backwards = choice("dir", query.dir, &[("f", false), ("b", true)])?.unwrap_or_default();
    let orders = [
        ("send_ts", Order::SendTs),
        ("origin_server_ts", Order::OriginServerTs),
        ("running_since", Order::RunningSince),
    ];
    let outcomes = [("send", Outcome::Send), ("cancel", Outcome::Cancel), ("error", Outcome::Error)];
    Ok(Ask {
        order: choice("order_by", query.order_by, &orders)?.unwrap_or_default(),
        backwards,
        since_ts: query.since_ts.as_deref().map(since_ts).transpose()?,
        from: query.from.as_deref().map(place).transpose()?,
        status: choice(
            "status",
            query.status,
            &[("scheduled", Status::Scheduled), ("finalised", Status::Finalised)],
        )?,
        room_id: query.room_id,
        event_type: query.event_type,
        outcome: choice("outcome", query.outcome, &outcomes)?,
        by_action: choice("reason", query.reason, &[("action", true), ("delay", false)])?,
    })
}

fn choice<T: Copy>(name: &str, value: Option<String>, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let found = choices.iter().find(|(text, _)| *text == value).map(|(_, choice)| *choice);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
        ApiError::invalid_param(format!("'{name}' is one of {}.", names.join(", ")))
    })
}

fn since_ts(text: &str) -> Result<u64, ApiError> {
    match text {
        "end" => Ok(u64::MAX),
        number => number
            .parse()
            .map_err(|_| ApiError::invalid_param("'since_ts' is a time in milliseconds, or 'end'.")),
    }
}

fn place(token: &str) -> Result<(u64, String), ApiError> {
    let parts = token.split_once('_').and_then(|(ms, id)| Some((ms.parse().ok()?, id.to_owned())));
    parts.ok_or_else(|| ApiError::invalid_param("'from' is not a token of this endpoint."))
}

fn describe(delay_id: &str, record: &DelayedEventRecord) -> Result<Value, ApiError> {
    let content: Value = serde_json::from_str(&record.content).map_err(ApiError::internal)?;
    let mut answer = json!({
        "delay_id": delay_id,
        "room_id": record.room_id,
        "type": record.event_type,
        "delay": record.delay_ms,
        "running_since": record.running_since_ms,
        "content": content,
    });
    if let Some(state_key) = &record.state_key {
        answer["state_key"] = json!(state_key);
    }
    if let Some(outcome) = &record.outcome {
        answer["origin_server_ts"] = json!(outcome.at_ms);
        if let Some(event_id) = &outcome.event_id {
            answer["event_id"] = json!(event_id);
        }
        if let Some((errcode, message)) = &outcome.error {
            answer["error"] = json!({ "errcode": errcode, "error": message });
        }
    }
    Ok(answer)
}

impl From<DelayError> for ApiError {
    fn from(error: DelayError) -> Self {
        let message: Cow<'static, str> = error.to_string().into();
        match error {
            DelayError::NoDelay => Self::invalid_param(message),
            // Released clients look for the code of the earlier drafts beside a generic one.
            DelayError::TooLong(ms) => Self::unknown(message)
                .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
                .with("org.matrix.msc4140.max_delay", ms),
            DelayError::TooMany(ms) => {
                Self::limit_exceeded(ms).with("org.matrix.msc4140.errcode", "M_MAX_DELAYED_EVENTS_EXCEEDED")
            }
            DelayError::NotFound => Self::not_found(message),
            DelayError::Decided(_) => Self::unknown(message).with_status(StatusCode::CONFLICT),
            DelayError::Room(error) => error.into(),
        }
    }
}
