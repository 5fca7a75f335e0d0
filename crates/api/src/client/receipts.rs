//! Receipts and read markers (Client-Server API, "Receipts", "Read and unread markers").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_core::UserNid;
use myelin_sync::{Requester, Sync, receipts::NewReceipt};
use myelin_users::Users;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::{json, value::to_raw_value};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, OptionalJsonBody, Path, WithGuests},
    rate_limit::{Class, Limits},
    respond::Empty,
};

const FULLY_READ: &str = "m.fully_read";
const READ: &str = "m.read";
const READ_PRIVATE: &str = "m.read.private";
/// The thread of everything that is in no thread.
const MAIN_THREAD: &str = "main";

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}", post(receipt))
        .route("/_matrix/client/v3/rooms/{roomId}/read_markers", post(read_markers))
}

#[derive(Deserialize)]
struct ReceiptBody {
    thread_id: Option<String>,
}

async fn receipt(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    State(users): State<Arc<Users>>,
    Path((room_id, receipt_type, event_id)): Path<(OwnedRoomId, String, OwnedEventId)>,
    OptionalJsonBody(body): OptionalJsonBody<ReceiptBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let requester = auth.requester();
    match receipt_type.as_str() {
        FULLY_READ if body.thread_id.is_some() => {
            return Err(ApiError::invalid_param("m.fully_read has no thread_id."));
        }
        FULLY_READ => set_fully_read(&sync, &users, &requester, &room_id, &event_id).await?,
        READ | READ_PRIVATE => {
            let thread_id = thread_of(body.thread_id)?;
            let receipt = NewReceipt { receipt_type, thread_id };
            sync.set_receipt(&requester, &room_id, &event_id, &receipt).await?;
        }
        _ => {
            return Err(ApiError::invalid_param(
                "The receipt type is m.read, m.read.private or m.fully_read.",
            ));
        }
    }
    Ok(Empty)
}

/// "" for an unthreaded receipt, "main", or the id of a thread's root.
fn thread_of(thread_id: Option<String>) -> Result<String, ApiError> {
    match thread_id {
        None => Ok(String::new()),
        Some(main) if main == MAIN_THREAD => Ok(main),
        Some(root) if <&EventId>::try_from(root.as_str()).is_ok() => Ok(root),
        Some(_) => Err(ApiError::invalid_param("thread_id is 'main' or the event id of a thread's root.")),
    }
}

#[derive(Deserialize)]
struct MarkersBody {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    read_private: Option<OwnedEventId>,
}

async fn read_markers(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    State(users): State<Arc<Users>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<MarkersBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let requester = auth.requester();
    if let Some(event_id) = body.fully_read {
        set_fully_read(&sync, &users, &requester, &room_id, &event_id).await?;
    }
    for (receipt_type, event_id) in [(READ, body.read), (READ_PRIVATE, body.read_private)] {
        if let Some(event_id) = event_id {
            let receipt = NewReceipt { receipt_type: receipt_type.to_owned(), thread_id: String::new() };
            sync.set_receipt(&requester, &room_id, &event_id, &receipt).await?;
        }
    }
    Ok(Empty)
}

/// The marker only moves forward.
async fn set_fully_read(
    sync: &Sync,
    users: &Users,
    requester: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(), ApiError> {
    let room = sync.joined_room_of(requester, room_id).await?;
    sync.visible_event(requester, room_id, event_id).await?;
    let user: UserNid = requester.user;
    let held = users.account_data(user, room.nid(), FULLY_READ).await.map_err(ApiError::internal)?;
    if let Some(held) = held.as_deref().and_then(marked)
        && !sync.is_after(event_id, &held).await?
    {
        return Ok(());
    }
    let content = to_raw_value(&json!({ "event_id": event_id })).map_err(ApiError::internal)?;
    users.put_account_data(user, room.nid(), FULLY_READ, &content).await.map_err(ApiError::internal)
}

/// The event that the marker stands at.
fn marked(content: &str) -> Option<OwnedEventId> {
    let content: serde_json::Value = serde_json::from_str(content).ok()?;
    content["event_id"].as_str()?.try_into().ok()
}
