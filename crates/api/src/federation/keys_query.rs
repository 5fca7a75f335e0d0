//! `GET /_matrix/key/v2/query/{serverName}` and `POST /_matrix/key/v2/query` (Server-Server API, "Querying Keys Through
//! Another Server"): this server as a notary. Neither is signed as a request.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use myelin_core::Env;
use myelin_federation::{Client, Keyring, Wanted, keys::own::OwnKeysError};
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
/// Servers asked at once for one question; not more than one address may have asked.
const PARALLEL_MAX: usize = 8;
/// How long others are asked on behalf of one question, altogether.
const PATIENCE: Duration = Duration::from_secs(15);

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
    let notary = Notary { keys: &keys, client: &client, limits: &limits, env: &env };
    Ok(Json(notary.answer(wanted).await?))
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
    let notary = Notary { keys: &keys, client: &client, limits: &limits, env: &env };
    Ok(Json(notary.answer(wanted.collect()).await?))
}

struct Notary<'a> {
    keys: &'a Keyring,
    client: &'a Client,
    limits: &'a Limits,
    env: &'a Env,
}

impl Notary<'_> {
    /// Servers that do not answer and were never heard of are left out.
    async fn answer(&self, wanted: Vec<Wanted>) -> Result<Answer, ApiError> {
        let until_ms = self.env.now_ms() + u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let own = self.client.server_name();
        let wanted =
            wanted.into_iter().filter(|wanted| wanted.server == own || self.client.permits(&wanted.server));
        let answers = stream::iter(wanted).map(|wanted| self.answer_one(wanted, until_ms));
        let answers: Vec<_> = answers.buffered(PARALLEL_MAX).collect().await;
        let answers: Result<Vec<Vec<_>>, _> = answers.into_iter().collect();
        Ok(Answer { server_keys: answers?.into_iter().flatten().collect() })
    }

    /// Whoever has many servers asked gets what is known.
    async fn answer_one(
        &self,
        wanted: Wanted,
        until_ms: u64,
    ) -> Result<Vec<CanonicalJsonObject>, OwnKeysError> {
        let may_ask = !self.keys.lacks(&wanted).await || self.limits.check_address(Class::KeyFetch).is_ok();
        let asker = may_ask.then(|| self.limits.address());
        let patience = Duration::from_millis(until_ms.saturating_sub(self.env.now_ms()));
        self.keys.answer_as_notary(wanted, asker, patience).await
    }
}
