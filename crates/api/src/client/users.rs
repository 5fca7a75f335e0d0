//! `POST /_matrix/client/v3/user_directory/search` (Client-Server API, "User Directory").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_search::{FoundUser, Search};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody},
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct SearchBody {
    search_term: String,
    #[serde(default = "results_default")]
    limit: u32,
}

fn results_default() -> u32 {
    10
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/user_directory/search", post(search))
}

async fn search(
    auth: Auth,
    limits: Limits,
    State(index): State<Arc<Search>>,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Search, &auth)?;
    let found = index.directory(auth.user, &body.search_term, body.limit as usize).await?;
    let results: Vec<_> = found.users.into_iter().map(describe).collect();
    Ok(Json(json!({ "results": results, "limited": found.limited })))
}

fn describe(user: FoundUser) -> Value {
    let mut answer = json!({ "user_id": user.user_id });
    for (key, value) in [("display_name", user.display_name), ("avatar_url", user.avatar_url)] {
        if let Some(value) = value {
            answer[key] = value.into();
        }
    }
    answer
}
