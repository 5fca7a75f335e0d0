//! `POST /_matrix/client/v3/rooms/{roomId}/report`, `/rooms/{roomId}/report/{eventId}` and `/users/{userId}/report`
//! (Client-Server API, "Reporting Content").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::{
    Users,
    reports::{ReportError, Reported},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Empty,
};

#[derive(Deserialize)]
struct Report {
    reason: String,
}

/// `score` was in the specification up to version 1.17.
#[derive(Deserialize)]
struct EventReport {
    reason: Option<String>,
    score: Option<i64>,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{room_id}/report", post(room))
        .route("/_matrix/client/v3/rooms/{room_id}/report/{event_id}", post(event))
        .route("/_matrix/client/v3/users/{user_id}/report", post(user))
}

async fn room(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Report>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Report, &auth)?;
    users.report(auth.user, Reported::Room(&room_id), Some(body.reason), None).await?;
    Ok(Empty)
}

async fn event(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    JsonBody(body): JsonBody<EventReport>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Report, &auth)?;
    users.report(auth.user, Reported::Event(&room_id, &event_id), body.reason, body.score).await?;
    Ok(Empty)
}

async fn user(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(user_id): Path<OwnedUserId>,
    JsonBody(body): JsonBody<Report>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Report, &auth)?;
    users.report(auth.user, Reported::User(&user_id), Some(body.reason), None).await?;
    Ok(Empty)
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        let message = error.to_string();
        match error {
            ReportError::NoRoom | ReportError::NoEvent | ReportError::NoUser => Self::not_found(message),
            ReportError::Reason => Self::invalid_param(message),
            ReportError::Failed(error) => error.into(),
        }
    }
}
