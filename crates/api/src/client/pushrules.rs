//! `/_matrix/client/v3/pushrules/` and below (Client-Server API, "Push Rules: API").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use myelin_push::edit::{self, Definition, Error, Kind, Place};
use myelin_users::{Users, push_rules::PushRulesError};
use ruma::push::Ruleset;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState, Session,
    extract::{Auth, JsonBody, Path, Query},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/pushrules", get(all))
        .route("/_matrix/client/v3/pushrules/", get(all))
        .route("/_matrix/client/v3/pushrules/global", get(global))
        .route("/_matrix/client/v3/pushrules/global/", get(global))
        .route("/_matrix/client/v3/pushrules/global/{kind}/{ruleId}", get(one).put(set).delete(delete))
        .route("/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled", get(enabled).put(set_enabled))
        .route("/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions", get(actions).put(set_actions))
}

async fn all(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "global": edit::to_json(&load(&users, &auth).await?) })))
}

async fn global(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(edit::to_json(&load(&users, &auth).await?)))
}

async fn one(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(rule(&users, &auth, &kind, &rule_id).await?))
}

#[derive(Deserialize)]
struct Params {
    before: Option<String>,
    after: Option<String>,
}

async fn set(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
    Query(params): Query<Params>,
    JsonBody(definition): JsonBody<Definition>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let kind: Kind = kind.parse()?;
    let place = Place { before: params.before, after: params.after };
    change(&users, &auth, |rules| edit::put(rules, kind, &rule_id, &definition, &place)).await
}

async fn delete(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let kind: Kind = kind.parse()?;
    change(&users, &auth, |rules| edit::delete(rules, kind, &rule_id)).await
}

async fn enabled(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let rule = rule(&users, &auth, &kind, &rule_id).await?;
    Ok(Json(json!({ "enabled": rule["enabled"] })))
}

#[derive(Deserialize)]
struct EnabledBody {
    enabled: bool,
}

async fn set_enabled(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
    JsonBody(body): JsonBody<EnabledBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let kind: Kind = kind.parse()?;
    change(&users, &auth, |rules| edit::set_enabled(rules, kind, &rule_id, body.enabled)).await
}

async fn actions(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let rule = rule(&users, &auth, &kind, &rule_id).await?;
    Ok(Json(json!({ "actions": rule["actions"] })))
}

#[derive(Deserialize)]
struct ActionsBody {
    actions: Vec<Value>,
}

async fn set_actions(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((kind, rule_id)): Path<(String, String)>,
    JsonBody(body): JsonBody<ActionsBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let kind: Kind = kind.parse()?;
    change(&users, &auth, |rules| edit::set_actions(rules, kind, &rule_id, &body.actions)).await
}

async fn load(users: &Users, session: &Session) -> Result<Ruleset, ApiError> {
    Ok(users.push_rules(session.user, &session.user_id).await?)
}

async fn rule(users: &Users, session: &Session, kind: &str, rule_id: &str) -> Result<Value, ApiError> {
    let kind: Kind = kind.parse()?;
    Ok(edit::get(&load(users, session).await?, kind, rule_id)?)
}

async fn change(
    users: &Users,
    session: &Session,
    change: impl Fn(&mut Ruleset) -> Result<(), Error>,
) -> Result<Empty, ApiError> {
    users.change_push_rules(session.user, &session.user_id, change).await?;
    Ok(Empty)
}

impl From<PushRulesError> for ApiError {
    fn from(error: PushRulesError) -> Self {
        match error {
            PushRulesError::Edit(error) => error.into(),
            PushRulesError::Data(error) => error.into(),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::UnknownKind => Self::unrecognized(message).with_status(StatusCode::BAD_REQUEST),
            Error::NotFound => Self::not_found(message),
            Error::Reserved | Error::Invalid(_) => Self::invalid_param(message),
            Error::NoSuchPlace(_) => Self::unknown(message),
            Error::TooMany => Self::resource_limit_exceeded(message),
        }
    }
}
