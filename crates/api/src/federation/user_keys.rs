//! `POST /_matrix/federation/v1/user/keys/query` and `/user/keys/claim` (Server-Server API, "End-to-End Encryption").

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::post};
use myelin_users::{Users, keys::query::Asker};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    ApiError, AppState,
    client::keys::{claimed_answer, claims, keys_answer},
    extract::SignedRequest,
    respond::Json,
};

#[derive(Deserialize)]
struct QueryBody {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

#[derive(Deserialize)]
struct ClaimBody {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/user/keys/query", post(query))
        .route("/_matrix/federation/v1/user/keys/claim", post(claim))
}

/// Users of other servers are left out.
async fn query(
    State(users): State<Arc<Users>>,
    request: SignedRequest<QueryBody>,
) -> Result<Json<Value>, ApiError> {
    let mut found = Vec::new();
    for (user_id, devices) in request.content.device_keys {
        if let Some(account) = users.account(&user_id).await? {
            let keys = users.keys_of(account.user, &user_id, &devices, Asker::Server).await?;
            found.push((user_id, keys));
        }
    }
    Ok(Json(keys_answer(found)))
}

async fn claim(
    State(users): State<Arc<Users>>,
    request: SignedRequest<ClaimBody>,
) -> Result<Json<Value>, ApiError> {
    let keys = users.claim_keys(claims(request.content.one_time_keys)).await?;
    Ok(Json(claimed_answer(keys)?))
}
