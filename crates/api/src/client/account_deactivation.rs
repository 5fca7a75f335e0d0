//! `POST /_matrix/client/v3/account/deactivate` (Client-Server API, "Account deactivation").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::Users;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::Auth,
    respond::Json,
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct DeactivateBody {
    #[serde(default)]
    erase: bool,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/account/deactivate", post(deactivate))
}

async fn deactivate(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<DeactivateBody>,
) -> Result<Json<Value>, ApiError> {
    uia.confirm("POST /account/deactivate", &auth, &body).await?;
    users.deactivate(auth.user, body.body.erase).await?;
    // Nobody here has third-party identifiers, so all of them are unbound.
    Ok(Json(json!({ "id_server_unbind_result": "success" })))
}
