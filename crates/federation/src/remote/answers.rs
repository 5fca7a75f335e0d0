//! What other servers answer to look-ups, in the fields that are passed on.

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Rooms of one page.
const PAGE_MAX: u64 = 500;

#[derive(Deserialize)]
pub(super) struct Alias {
    pub room_id: OwnedRoomId,
    #[serde(default)]
    pub servers: Vec<OwnedServerName>,
}

#[derive(Deserialize)]
pub(super) struct EventAt {
    pub event_id: OwnedEventId,
    pub origin_server_ts: u64,
}

#[derive(Clone, Debug, Default)]
pub struct PublicRoomsRequest {
    pub limit: Option<u64>,
    pub since: Option<String>,
    pub filter: PublicRoomsFilter,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct PublicRoomsFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generic_search_term: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_types: Option<Vec<Option<String>>>,
}

/// `POST /publicRooms` between servers.
#[derive(Serialize)]
pub(super) struct PublicRoomsBody<'a> {
    limit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    filter: &'a PublicRoomsFilter,
}

impl<'a> From<&'a PublicRoomsRequest> for PublicRoomsBody<'a> {
    fn from(request: &'a PublicRoomsRequest) -> Self {
        let limit = request.limit.unwrap_or(100).clamp(1, PAGE_MAX);
        Self { limit, since: request.since.as_deref(), filter: &request.filter }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PublicRoomsPage {
    pub chunk: Vec<PublicRoom>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_room_count_estimate: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PublicRoom {
    pub room_id: OwnedRoomId,
    pub num_joined_members: u64,
    #[serde(default)]
    pub world_readable: bool,
    #[serde(default)]
    pub guest_can_join: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

/// Fields that are not set may be there as `null`.
pub(super) fn without_nulls(profile: Map<String, Value>) -> Map<String, Value> {
    profile.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
