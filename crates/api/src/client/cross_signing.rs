//! `/_matrix/client/v3/keys/device_signing/upload` and `/keys/signatures/upload` (Client-Server API, "Cross-signing").

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::post};
use myelin_users::{
    Users,
    cross_signing::{CrossSigningError, CrossSigningKeys, SignatureRefusal},
    keys::Json as JsonObject,
};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct DeviceSigningBody {
    master_key: Option<JsonObject>,
    self_signing_key: Option<JsonObject>,
    user_signing_key: Option<JsonObject>,
}

impl DeviceSigningBody {
    fn check(&self) -> Result<(), ApiError> {
        let keys = [&self.master_key, &self.self_signing_key, &self.user_signing_key].into_iter().flatten();
        let mut signatures = keys.filter_map(|key| key.get("signatures"));
        match signatures.all(|signatures| signatures.is_object()) {
            true => Ok(()),
            false => Err(ApiError::bad_json("'signatures' is an object.")),
        }
    }
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/keys/device_signing/upload", post(upload_keys))
        .route("/_matrix/client/v3/keys/signatures/upload", post(upload_signatures))
}

/// The password is asked for where a key that is there would be replaced.
async fn upload_keys(
    auth: Auth,
    limits: Limits,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<DeviceSigningBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    body.body.check()?;
    let keys = CrossSigningKeys {
        master: body.body.master_key.clone(),
        self_signing: body.body.self_signing_key.clone(),
        user_signing: body.body.user_signing_key.clone(),
    };
    if users.replaces_cross_signing(auth.user, &keys).await? {
        uia.confirm("POST /keys/device_signing/upload", &auth, &body).await?;
    }
    users.upload_cross_signing(&auth, &keys).await?;
    Ok(Empty)
}

async fn upload_signatures(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(signed): JsonBody<BTreeMap<OwnedUserId, BTreeMap<String, JsonObject>>>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let mut failures = json!({});
    for (user_id, keys) in users.upload_signatures(&auth, &signed).await? {
        for (key_id, refusal) in keys {
            failures[user_id.as_str()][key_id] = describe(refusal);
        }
    }
    Ok(Json(json!({ "failures": failures })))
}

fn describe(refusal: SignatureRefusal) -> Value {
    let errcode = match refusal {
        SignatureRefusal::Unknown => "M_NOT_FOUND",
        SignatureRefusal::Different | SignatureRefusal::Invalid => "M_INVALID_SIGNATURE",
    };
    json!({ "errcode": errcode, "error": refusal.to_string() })
}

impl From<CrossSigningError> for ApiError {
    fn from(error: CrossSigningError) -> Self {
        let message = error.to_string();
        match error {
            CrossSigningError::Key(_) => Self::invalid_param(message),
            CrossSigningError::NoMaster => Self::missing_param(message),
            CrossSigningError::Signature(_) => Self::invalid_signature(message),
            CrossSigningError::IdInUse(_) => Self::forbidden(message),
            CrossSigningError::Failed(error) => error.into(),
        }
    }
}
