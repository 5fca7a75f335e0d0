//! `/_matrix/client/v3/account/3pid` and what is below it (Client-Server API, "Adding Account Administrative Contact
//! Information"). The `requestToken`s are in [`super::request_token`].

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use myelin_federation::{Identity, IdentityError};
use myelin_users::{Users, threepids::Threepid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState, Session,
    extract::{Auth, JsonBody},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct AddBody {
    client_secret: Option<String>,
    sid: Option<String>,
}

#[derive(Deserialize)]
struct BindBody {
    client_secret: String,
    sid: String,
    id_server: String,
    /// Servers can treat it as optional; an identity server will say no.
    #[serde(default)]
    id_access_token: String,
}

#[derive(Deserialize)]
struct OldBindBody {
    three_pid_creds: BindBody,
}

#[derive(Deserialize)]
struct AddressBody {
    medium: Medium,
    address: String,
    id_server: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Medium {
    Email,
    Msisdn,
}

impl Medium {
    fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Msisdn => "msisdn",
        }
    }
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/account/3pid", get(list).post(bind_as_before))
        .route("/_matrix/client/v3/account/3pid/add", post(add))
        .route("/_matrix/client/v3/account/3pid/bind", post(bind))
        .route("/_matrix/client/v3/account/3pid/delete", post(delete))
        .route("/_matrix/client/v3/account/3pid/unbind", post(unbind))
}

async fn list(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    let threepids = users.threepids(auth.user).await?;
    let threepids: Vec<_> = threepids.into_iter().map(describe).collect();
    Ok(Json(json!({ "threepids": threepids })))
}

fn describe(threepid: Threepid) -> Value {
    let Threepid { medium, address, validated_ms, added_ms } = threepid;
    json!({ "medium": medium, "address": address, "validated_at": validated_ms, "added_at": added_ms })
}

async fn add(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<AddBody>,
) -> Result<Empty, ApiError> {
    uia.confirm("POST /account/3pid/add", &auth, &body).await?;
    let missing = |name: &str| ApiError::missing_param(format!("'{name}' is missing."));
    let sid = body.body.sid.ok_or_else(|| missing("sid"))?;
    let client_secret = body.body.client_secret.ok_or_else(|| missing("client_secret"))?;
    users.add_threepid(auth.user, &sid, &client_secret).await?;
    Ok(Empty)
}

async fn bind(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(identity): State<Arc<Identity>>,
    JsonBody(body): JsonBody<BindBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Invite, &auth)?;
    let BindBody { client_secret, sid, id_server, id_access_token } = body;
    let bound = identity.bind(&auth.user_id, &id_server, &id_access_token, &sid, &client_secret).await?;
    users.set_bind(auth.user, &bound.medium, &bound.address, &id_server, true).await?;
    Ok(Empty)
}

/// Deprecated; since its `bind` parameter is gone it is an equivalent of `/3pid/bind`.
async fn bind_as_before(
    auth: Auth,
    limits: Limits,
    users: State<Arc<Users>>,
    identity: State<Arc<Identity>>,
    JsonBody(body): JsonBody<OldBindBody>,
) -> Result<Empty, ApiError> {
    bind(auth, limits, users, identity, JsonBody(body.three_pid_creds)).await
}

async fn delete(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(identity): State<Arc<Identity>>,
    JsonBody(body): JsonBody<AddressBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Invite, &auth)?;
    let unbound = unbind_everywhere(&users, &identity, &auth, &body).await;
    users.remove_threepid(auth.user, body.medium.as_str(), &body.address).await?;
    Ok(Json(json!({ "id_server_unbind_result": told(unbound?) })))
}

async fn unbind(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(identity): State<Arc<Identity>>,
    JsonBody(body): JsonBody<AddressBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Invite, &auth)?;
    let unbound = unbind_everywhere(&users, &identity, &auth, &body).await?;
    Ok(Json(json!({ "id_server_unbind_result": told(unbound) })))
}

fn told(unbound: bool) -> &'static str {
    if unbound { "success" } else { "no-support" }
}

/// From the server that is named, or from those at which the address was bound. `false`: none, or one does not do it.
async fn unbind_everywhere(
    users: &Users,
    identity: &Identity,
    session: &Session,
    body: &AddressBody,
) -> Result<bool, ApiError> {
    let medium = body.medium.as_str();
    let servers = match &body.id_server {
        Some(id_server) => vec![id_server.clone()],
        None => users.binds(session.user, medium, &body.address).await?,
    };
    let mut unbound = !servers.is_empty();
    for id_server in servers {
        match identity.unbind(&session.user_id, &id_server, medium, &body.address).await {
            Ok(true) => users.set_bind(session.user, medium, &body.address, &id_server, false).await?,
            Ok(false) | Err(IdentityError::NotTrusted(_)) => unbound = false,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unbound)
}

/// Before an account ends: whether every binding of its addresses is gone.
pub(super) async fn unbind_all(
    users: &Users,
    identity: &Identity,
    session: &Session,
) -> Result<bool, ApiError> {
    let mut unbound = true;
    for (medium, address, id_server) in users.all_binds(session.user).await? {
        match identity.unbind(&session.user_id, &id_server, &medium, &address).await {
            Ok(true) => users.set_bind(session.user, &medium, &address, &id_server, false).await?,
            // An account can be left without anybody's help.
            Ok(false) | Err(_) => unbound = false,
        }
    }
    Ok(unbound)
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::NotTrusted(_) => Self::server_not_trusted(message),
            IdentityError::Invalid(_) => Self::invalid_param(message),
            IdentityError::Failed { .. } => Self::unknown(message).with_status(StatusCode::BAD_GATEWAY),
            IdentityError::Refused { status, errcode, message } => passed_on(status, &errcode, message),
            IdentityError::Handshake(error) => error.into(),
        }
    }
}

/// "Homeservers should simply proxy any errors received by the identity server to the caller."
fn passed_on(status: StatusCode, errcode: &str, message: String) -> ApiError {
    const KNOWN: [&str; 14] = [
        "M_FORBIDDEN",
        "M_INVALID_ADDRESS",
        "M_INVALID_EMAIL",
        "M_INVALID_PARAM",
        "M_INVALID_PEPPER",
        "M_LIMIT_EXCEEDED",
        "M_MISSING_PARAMS",
        "M_NOT_FOUND",
        "M_NO_VALID_SESSION",
        "M_SESSION_EXPIRED",
        "M_SESSION_NOT_VALIDATED",
        "M_TERMS_NOT_SIGNED",
        "M_THREEPID_IN_USE",
        "M_UNRECOGNIZED",
    ];
    // An answer of 401 would end the session of the client here.
    let status = match status {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status if status.is_client_error() => status,
        _ => StatusCode::BAD_GATEWAY,
    };
    let errcode = match errcode {
        "M_UNAUTHORIZED" => "M_THREEPID_AUTH_FAILED",
        other => KNOWN.into_iter().find(|known| *known == other).unwrap_or("M_UNKNOWN"),
    };
    ApiError::new(status, errcode, message)
}
