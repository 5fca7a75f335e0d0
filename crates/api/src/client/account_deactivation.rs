//! `POST /_matrix/client/v3/account/deactivate` (Client-Server API, "Account deactivation").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_federation::Identity;
use myelin_users::Users;
use serde::Deserialize;
use serde_json::{Value, json};

use super::administrative_contact::unbind_all;
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
    /// Of the identity server that is to forget the account: none is told.
    #[serde(rename = "id_server")]
    _id_server: Option<String>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/account/deactivate", post(deactivate))
}

async fn deactivate(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    State(identity): State<Arc<Identity>>,
    body: UiaBody<DeactivateBody>,
) -> Result<Json<Value>, ApiError> {
    uia.confirm("POST /account/deactivate", &auth, &body).await?;
    let unbound = unbind_all(&users, &identity, &auth).await?;
    users.deactivate(auth.user, body.body.erase).await?;
    Ok(Json(json!({ "id_server_unbind_result": if unbound { "success" } else { "no-support" } })))
}
