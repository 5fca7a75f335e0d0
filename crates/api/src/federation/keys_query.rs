//! `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query` (Server-Server API, "Querying Keys Through
//! Another Server"): this server as a notary. Neither is signed as a request.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use myelin_core::Env;
use myelin_federation::{Client, Keyring, Wanted};
use ruma::{CanonicalJsonObject, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, AppState,
    extract::{JsonBody, Path, Query},
    rate_limit::{Class, Limits},
    respond::Json,
};

/// Servers in one question.
const SERVERS_MAX: usize = 200;
/// Servers asked at once for one question.
const PARALLEL_MAX: usize = 16;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/key/v2/query/{serverName}", get(query))
        .route("/_matrix/key/v2/query", post(bulk_query))
}

#[derive(Serialize)]
struct Answer {
    server_keys: Vec<CanonicalJsonObject>,
}

#[derive(Deserialize)]
struct Params {
    minimum_valid_until_ts: Option<u64>,
}

async fn query(
    limits: Limits,
    State(keys): State<Arc<Keyring>>,
    State(client): State<Arc<Client>>,
    State(env): State<Env>,
    Path(server): Path<OwnedServerName>,
    Query(params): Query<Params>,
) -> Result<Json<Answer>, ApiError> {
    limits.check_address(Class::Read)?;
    let at_ms = params.minimum_valid_until_ts.unwrap_or_else(|| env.now_ms());
    let wanted = vec![Wanted { server, key_ids: Vec::new(), at_ms }];
    Ok(Json(answer(&keys, &client, wanted).await?))
}

#[derive(Deserialize)]
struct Body {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

async fn bulk_query(
    limits: Limits,
    State(keys): State<Arc<Keyring>>,
    State(client): State<Arc<Client>>,
    State(env): State<Env>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Answer>, ApiError> {
    limits.check_address(Class::Read)?;
    if body.server_keys.len() > SERVERS_MAX {
        return Err(ApiError::too_large(format!("One question is about at most {SERVERS_MAX} servers.")));
    }
    let now_ms = env.now_ms();
    let wanted = body.server_keys.into_iter().map(|(server, keys)| {
        let latest = keys.values().map(|key| key.minimum_valid_until_ts.unwrap_or(now_ms)).max();
        let key_ids = keys.into_keys().collect();
        Wanted { server, key_ids, at_ms: latest.unwrap_or(now_ms) }
    });
    Ok(Json(answer(&keys, &client, wanted.collect()).await?))
}

/// Servers that do not answer and were never heard of are left out.
async fn answer(keys: &Keyring, client: &Client, wanted: Vec<Wanted>) -> Result<Answer, ApiError> {
    let wanted = wanted
        .into_iter()
        .filter(|wanted| wanted.server == client.server_name() || client.permits(&wanted.server));
    let answers = stream::iter(wanted).map(|wanted| keys.answer_as_notary(wanted));
    let answers: Vec<_> = answers.buffered(PARALLEL_MAX).collect().await;
    let answers: Result<Vec<Vec<_>>, _> = answers.into_iter().collect();
    Ok(Answer { server_keys: answers?.into_iter().flatten().collect() })
}
