//! `PUT /_matrix/federation/v1/send/{txnId}` (Server-Server API, "Transactions").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_core::limits::PDU_SIZE_MAX;
use myelin_federation::{
    Inbound,
    inbound::{Transaction, TransactionError},
};
use serde_json::{Map, Value, json};

use crate::{
    ApiError, AppState,
    extract::{FEDERATION_BODY_SIZE_MAX, Path, SignedRequest},
    respond::Json,
};

/// What a server that sends too much at once is told to wait, in milliseconds.
const PAUSE_MS: u64 = 1_000;

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/send/{txnId}", put(send))
}

/// How deep its PDUs and EDUs are is judged one by one: what is refused as a whole comes again, for ever.
async fn send(
    State(inbound): State<Arc<Inbound>>,
    Path(transaction_id): Path<String>,
    request: SignedRequest<Transaction, FEDERATION_BODY_SIZE_MAX, PDU_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    let answers = inbound.receive_transaction(&request.origin, &transaction_id, request.content).await;
    let answers = answers.map_err(refused)?;
    let answer = |error: &Option<String>| match error {
        Some(error) => json!({ "error": error }),
        None => json!({}),
    };
    let pdus: Map<String, Value> =
        answers.iter().map(|(id, error)| (id.to_string(), answer(error))).collect();
    Ok(Json(json!({ "pdus": pdus })))
}

fn refused(error: TransactionError) -> ApiError {
    match error {
        TransactionError::TooLarge => ApiError::bad_json(error.to_string()),
        TransactionError::Busy => ApiError::limit_exceeded(PAUSE_MS),
        TransactionError::Storage => ApiError::internal(error.to_string()),
    }
}
