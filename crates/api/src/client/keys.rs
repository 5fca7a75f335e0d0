//! `/_matrix/client/v3/keys/upload`, `/query`, `/claim` and `/changes` (Client-Server API, "Key management API").

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_core::SyncToken;
use myelin_federation::{Devices, devices::Failures};
use myelin_sync::Sync;
use myelin_users::{
    Users,
    keys::{
        Json as JsonObject,
        claim::{ClaimedKey, KeyClaim},
        query::UserKeys,
        upload::{KeyUpload, KeyUploadError},
    },
};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, OptionalJsonBody, Query, WithGuests},
    rate_limit::{Class, Limits},
    respond::{Json, RawJson},
};

/// How long other servers are waited for.
const TIMEOUT_MS_DEFAULT: u64 = 10_000;
const TIMEOUT_MS_MAX: u64 = 30_000;

#[derive(Deserialize)]
struct UploadBody {
    device_keys: Option<JsonObject>,
    #[serde(default)]
    one_time_keys: JsonObject,
    /// Its name before v1.2 is still sent by some.
    #[serde(default, alias = "org.matrix.msc2732.fallback_keys")]
    fallback_keys: JsonObject,
}

#[derive(Deserialize)]
struct QueryBody {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct ClaimBody {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct Interval {
    from: String,
    to: String,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/keys/upload", post(upload))
        .route("/_matrix/client/v3/keys/query", post(query))
        .route("/_matrix/client/v3/keys/claim", post(claim))
        .route("/_matrix/client/v3/keys/changes", get(changes))
}

async fn upload(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(users): State<Arc<Users>>,
    OptionalJsonBody(body): OptionalJsonBody<UploadBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let UploadBody { device_keys, one_time_keys, fallback_keys } = body;
    let upload = KeyUpload { device_keys, one_time_keys, fallback_keys };
    let counts = users.upload_keys(&auth, &upload).await?;
    Ok(Json(json!({ "one_time_key_counts": counts })))
}

async fn query(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(devices): State<Arc<Devices>>,
    JsonBody(body): JsonBody<QueryBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Read, &auth)?;
    let asker = (auth.user, &*auth.user_id);
    let found = devices.query(asker, body.device_keys, timeout(body.timeout)).await?;
    let mut answer = keys_answer(found.users);
    answer["failures"] = failures(&found.failures);
    Ok(Json(answer))
}

async fn claim(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(devices): State<Arc<Devices>>,
    JsonBody(body): JsonBody<ClaimBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let claimed = devices.claim(claims(body.one_time_keys), timeout(body.timeout)).await?;
    let mut answer = claimed_answer(claimed.keys)?;
    answer["failures"] = failures(&claimed.failures);
    Ok(Json(answer))
}

async fn changes(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Query(interval): Query<Interval>,
) -> Result<RawJson, ApiError> {
    let token = |name: &str, text: &str| {
        text.parse::<SyncToken>().map_err(|error| ApiError::invalid_param(format!("{name}: {error}.")))
    };
    let (from, to) = (token("from", &interval.from)?, token("to", &interval.to)?);
    Ok(RawJson(sync.key_changes(auth.requester(), from, to).await?.into()))
}

fn timeout(ms: Option<u64>) -> Duration {
    Duration::from_millis(ms.unwrap_or(TIMEOUT_MS_DEFAULT).min(TIMEOUT_MS_MAX))
}

fn failures(failures: &Failures) -> Value {
    let told = failures.iter().map(|(server, message)| {
        (server.to_string(), json!({ "status": 503, "errcode": "M_UNKNOWN", "message": message }))
    });
    Value::Object(told.collect())
}

pub(crate) fn claims(wanted: BTreeMap<OwnedUserId, BTreeMap<String, String>>) -> Vec<KeyClaim> {
    let mut claims = Vec::new();
    for (user_id, devices) in wanted {
        claims.extend(devices.into_iter().map(|(device_id, algorithm)| KeyClaim {
            user_id: user_id.clone(),
            device_id,
            algorithm,
        }));
    }
    claims
}

/// What client and server API have in common of `/keys/query`.
pub(crate) fn keys_answer(users: impl IntoIterator<Item = (OwnedUserId, UserKeys)>) -> Value {
    let mut answer = json!({ "device_keys": {} });
    for (user_id, keys) in users {
        answer["device_keys"][user_id.as_str()] = json!(keys.devices);
        let keys = [
            ("master_keys", keys.master),
            ("self_signing_keys", keys.self_signing),
            ("user_signing_keys", keys.user_signing),
        ];
        for (name, key) in keys {
            if let Some(key) = key {
                answer[name][user_id.as_str()] = Value::Object(key);
            }
        }
    }
    answer
}

pub(crate) fn claimed_answer(keys: Vec<ClaimedKey>) -> Result<Value, ApiError> {
    let mut by_user: HashMap<OwnedUserId, HashMap<String, JsonObject>> = HashMap::new();
    for ClaimedKey { user_id, device_id, name, json } in keys {
        let key = serde_json::from_str(&json).map_err(ApiError::internal)?;
        by_user.entry(user_id).or_default().entry(device_id).or_default().insert(name, key);
    }
    Ok(json!({ "one_time_keys": by_user }))
}

impl From<KeyUploadError> for ApiError {
    fn from(error: KeyUploadError) -> Self {
        let message = error.to_string();
        match error {
            KeyUploadError::DeviceKeys(_) | KeyUploadError::Key(_) => Self::invalid_param(message),
            KeyUploadError::Signature => Self::invalid_signature(message),
            KeyUploadError::InUse(_) => Self::unknown(message),
            KeyUploadError::TooMany => Self::invalid_param(message),
            KeyUploadError::NoDevice => Self::unknown_token(message),
            KeyUploadError::Failed(error) => error.into(),
        }
    }
}
