//! `POST /_matrix/client/v3/createRoom` (Client-Server API, "Creation").

use std::{collections::BTreeSet, sync::Arc};

use axum::{Router, extract::State, routing::post};
use futures::{FutureExt, StreamExt, stream};
use myelin_federation::{AddressInvite, Handshakes, Identity};
use myelin_rooms::{CreateRoom, InitialState, MembershipChange, Preset, Rooms, Visibility};
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/createRoom", post(create_room))
}

/// Addresses that a new room invites.
const INVITES_MAX: usize = 20;
/// Users of other servers who are invited at the same time.
const AT_ONCE: usize = 10;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    visibility: VisibilityName,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    invite: Vec<OwnedUserId>,
    #[serde(default)]
    invite_3pid: Vec<AddressInvite>,
    room_version: Option<RoomVersionId>,
    #[serde(default)]
    creation_content: Map<String, Value>,
    #[serde(default)]
    initial_state: Vec<StateEvent>,
    preset: Option<PresetName>,
    #[serde(default)]
    is_direct: bool,
    #[serde(default)]
    power_level_content_override: Map<String, Value>,
}

#[derive(Deserialize, Serialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum VisibilityName {
    Public,
    #[default]
    Private,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names of the specification")]
enum PresetName {
    PrivateChat,
    PublicChat,
    TrustedPrivateChat,
}

#[derive(Deserialize)]
struct StateEvent {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    state_key: String,
    content: Box<RawValue>,
}

#[derive(Serialize)]
struct Created {
    room_id: OwnedRoomId,
}

async fn create_room(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(handshakes): State<Arc<Handshakes>>,
    State(identity): State<Arc<Identity>>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Created>, ApiError> {
    limits.check(Class::RoomCreation, &auth)?;
    if body.invite_3pid.len() > INVITES_MAX {
        return Err(ApiError::invalid_param(format!("At most {INVITES_MAX} addresses are invited at once.")));
    }
    let addresses = body.invite_3pid.clone();
    let (is_direct, sender) = (body.is_direct, auth.sender());
    let remote = body.invite.iter().filter(|user_id| user_id.server_name() != sender.user_id.server_name());
    let remote: BTreeSet<OwnedUserId> = remote.cloned().collect();
    let alone = body.invite.len() + addresses.len() == 1;
    let room_id = rooms.create_room(&sender, &body.into()).await?;
    let invites = remote.iter().map(|user_id| {
        let invited = handshakes.invite(&sender, &room_id, user_id, direct(is_direct));
        invited.map(move |invited| (user_id, invited))
    });
    let invites: Vec<_> = invites.collect();
    let invited: Vec<_> = stream::iter(invites).buffer_unordered(AT_ONCE).collect().await;
    for (user_id, invited) in invited {
        let Err(error) = invited else { continue };
        tracing::info!(%room_id, %user_id, %error, "nobody was invited to a new room");
        // The room is there; who cannot be invited now can be invited again. But nobody should talk to nobody.
        if is_direct && alone {
            return Err(error.into());
        }
    }
    for invite in addresses {
        if let Err(error) = identity.invite(&sender, &room_id, &invite, direct(is_direct)).await {
            tracing::info!(%room_id, %error, "nobody was invited to a new room by address");
        }
    }
    Ok(Json(Created { room_id }))
}

fn direct(is_direct: bool) -> MembershipChange {
    let mut change = MembershipChange::default();
    if is_direct {
        change.content.insert("is_direct".to_owned(), true.into());
    }
    change
}

impl From<VisibilityName> for Visibility {
    fn from(name: VisibilityName) -> Self {
        match name {
            VisibilityName::Public => Self::Public,
            VisibilityName::Private => Self::Private,
        }
    }
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::PrivateChat => Self::PrivateChat,
            PresetName::PublicChat => Self::PublicChat,
            PresetName::TrustedPrivateChat => Self::TrustedPrivateChat,
        }
    }
}

impl From<Body> for CreateRoom {
    fn from(body: Body) -> Self {
        let state = body.initial_state.into_iter().map(|state| InitialState {
            event_type: state.event_type,
            state_key: state.state_key,
            content: state.content,
        });
        Self {
            visibility: body.visibility.into(),
            room_alias_name: body.room_alias_name,
            name: body.name,
            topic: body.topic,
            invite: body.invite,
            room_version: body.room_version,
            creation_content: body.creation_content,
            initial_state: state.collect(),
            preset: body.preset.map(Into::into),
            is_direct: body.is_direct,
            power_level_content_override: body.power_level_content_override,
        }
    }
}
