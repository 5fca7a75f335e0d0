//! `GET /_matrix/client/v3/sync` (Client-Server API, "Syncing").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_core::SyncToken;
use myelin_sync::{Error, Sync, filter::Filter, parse_filter, v2};
use ruma::presence::PresenceState;
use serde::Deserialize;

use crate::{
    ApiError, AppState, Session,
    extract::{Auth, Query, WithGuests},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/sync", get(sync))
}

#[derive(Deserialize)]
struct Params {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    set_presence: Option<String>,
    #[serde(default)]
    timeout: u64,
    /// v1.16.
    #[serde(default)]
    use_state_after: bool,
    /// Its name before that; the answer has its earlier name then, too.
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    unstable_use_state_after: bool,
}

async fn sync(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    let request = v2::Request {
        requester: auth.requester(),
        since: params.since.as_deref().map(parse_since).transpose()?,
        filter: filter_of(&sync, &auth, params.filter.as_deref()).await?,
        full_state: params.full_state,
        state_form: params.state_form(),
        timeout_ms: params.timeout,
        set_presence: presence_of(params.set_presence.as_deref())?,
    };
    Ok(RawJson(sync.sync(request).await?.into()))
}

impl Params {
    fn state_form(&self) -> v2::StateForm {
        match (self.use_state_after, self.unstable_use_state_after) {
            (true, _) => v2::StateForm::After,
            (false, true) => v2::StateForm::AfterUnstable,
            (false, false) => v2::StateForm::Before,
        }
    }
}

fn parse_since(token: &str) -> Result<SyncToken, ApiError> {
    token.parse().map_err(|error| ApiError::invalid_param(format!("since: {error}.")))
}

/// A filter id, or a filter as JSON, told apart by the first character.
pub async fn filter_of(sync: &Sync, session: &Session, filter: Option<&str>) -> Result<Arc<Filter>, Error> {
    match filter {
        None | Some("") => Ok(Arc::default()),
        Some(json) if json.starts_with('{') => parse_filter(json).map(Arc::new),
        Some(id) => sync.stored_filter(session.user, id).await,
    }
}

pub fn presence_of(name: Option<&str>) -> Result<PresenceState, ApiError> {
    match name {
        None | Some("online") => Ok(PresenceState::Online),
        Some("unavailable") => Ok(PresenceState::Unavailable),
        Some("offline") => Ok(PresenceState::Offline),
        Some(_) => Err(ApiError::invalid_param("Presence is 'online', 'unavailable' or 'offline'.")),
    }
}
