//! What can be asked of a room: one file per command, named with the verb. Each reads guard, guard, act, commit.

pub mod ban;
pub mod canonical_alias;
pub mod create;
pub mod forget;
pub mod invite;
pub mod join;
pub mod kick;
pub mod knock;
pub mod leave;
pub mod membership;
pub mod redact;
pub mod send_message;
pub mod send_state;
pub mod succession;
pub mod unban;
pub mod update_profile;
pub mod upgrade;

use std::sync::Arc;

use myelin_core::RoomNid;
use myelin_dag::{NewEvent, canonical::check_name};
use myelin_view::Event;
use ruma::{OwnedEventId, RoomId, events::TimelineEventType};
use serde::Serialize;

use crate::{Error, Rooms, Sender};

impl Rooms {
    /// For what only members do: to others an unknown room and a foreign one are the same.
    pub(crate) async fn own_room(&self, room_id: &RoomId) -> Result<RoomNid, Error> {
        let room = self.view.room_by_id(room_id).await?.map(|room| room.nid());
        room.ok_or_else(|| Error::not_in_room(room_id))
    }
}

/// A state event of `sender`.
pub fn state_event(
    sender: &Sender,
    event_type: impl Into<TimelineEventType>,
    state_key: &str,
    content: &impl Serialize,
) -> Result<NewEvent, Error> {
    Ok(NewEvent::state(sender.user_id.clone(), event_type, state_key, content)?)
}

pub fn id_of(event: &Arc<Event>) -> OwnedEventId {
    event.pdu.event_id.clone()
}

/// Guards an event type or a state key that a client chose.
pub fn check_names(event_type: &TimelineEventType, state_key: &str) -> Result<(), Error> {
    for (name, text) in [("type", event_type.to_string().as_str()), ("state key", state_key)] {
        check_name(text).map_err(|error| match error {
            myelin_dag::canonical::NameError::TooLong => Error::TooLarge(format!("The {name} is {error}.")),
            myelin_dag::canonical::NameError::Nul => Error::InvalidParam(format!("The {name} {error}.")),
        })?;
    }
    Ok(())
}
