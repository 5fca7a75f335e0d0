//! Member events that other servers hand in for their users (`send_join`, `send_leave`, `send_knock`). This server
//! answers for them: it brings them to all the others in the room.

use myelin_dag::{StateTree, Verdict, checks::VerifiedPdu};
use myelin_store::tables::VerdictRecord;
use myelin_view::RoomInfo;
use ruma::{OwnedServerName, OwnedUserId, RoomId};

use super::judge::Judged;
use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

/// An event that was taken, with the room as it was before.
#[derive(Debug, Clone)]
pub struct Taken {
    pub state_before: StateTree,
    /// Those with joined users before the event.
    pub servers: Vec<OwnedServerName>,
}

struct Accept<'a> {
    rooms: &'a Rooms,
    event: &'a VerifiedPdu,
}

impl Rooms {
    /// For events of a room that this server is in.
    pub async fn resident_info(&self, room_id: &RoomId) -> Result<std::sync::Arc<RoomInfo>, Error> {
        Ok(self.resident_room(room_id).await?.info.clone())
    }

    /// Takes a member event that the asking server made from a template. Refused unless the room accepts it fully:
    /// nothing of a rejected or soft-failed one is kept. Idempotent.
    pub async fn accept_member(&self, room_id: &RoomId, event: &VerifiedPdu) -> Result<Taken, Error> {
        let room = self.resident_room(room_id).await?;
        if let Some(user) = crate::writer::member_id(event.pdu()) {
            self.target(&user).await?;
        }
        self.view.interner.user(&event.pdu().sender).await?;
        self.run(room.nid(), &Accept { rooms: self, event }).await
    }

    /// The member of this server by whose leave a user may join a restricted room; `None` where none is needed.
    pub async fn authorising_member(
        &self,
        room_id: &RoomId,
        user_id: &ruma::UserId,
    ) -> Result<Option<OwnedUserId>, Error> {
        let room = self.resident_room(room_id).await?;
        self.run(room.nid(), &Authorising { rooms: self, user_id }).await
    }
}

struct Authorising<'a> {
    rooms: &'a Rooms,
    user_id: &'a ruma::UserId,
}

impl Command for Authorising<'_> {
    type Output = Option<OwnedUserId>;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Option<OwnedUserId>, Error> {
        self.rooms.authorising_user_of(draft, self.user_id).await
    }
}

impl Command for Accept<'_> {
    type Output = Taken;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Taken, Error> {
        let pdu = self.event.pdu();
        let servers = draft.room.servers.keys().cloned().collect();
        if let Some(held) = self.rooms.view.events.load_by_id(&pdu.event_id).await? {
            // In versions 1 and 2 servers choose the names of their events.
            let of_room = held.room == draft.room.nid();
            return match (&held.verdict, held.state_before) {
                (VerdictRecord::Accepted, Some(root)) if of_room => {
                    Ok(Taken { state_before: self.rooms.view.states.load(root).await?, servers })
                }
                _ => Err(Error::Forbidden("The event was refused before.".to_owned())),
            };
        }
        self.require_ancestors(draft).await?;
        let state_before = draft.state_before(pdu).await?;
        let Judged { pdu, verdict, auth } = draft.judge_after(self.event, &state_before).await?;
        let current = draft.room.current_state.clone();
        let now = draft.judge_after(self.event, &current).await?.verdict;
        for verdict in [&verdict, &now] {
            if let Verdict::Rejected { reason } | Verdict::SoftFailed { reason } = verdict {
                return Err(Error::Forbidden(format!("The room does not allow this: {reason}.")));
            }
        }
        draft.relay = Some(true);
        draft.take(pdu, &verdict, state_before.clone(), &auth, None).await?;
        Ok(Taken { state_before, servers })
    }
}

impl Accept<'_> {
    /// An event made from a template of this server comes after events that are held.
    async fn require_ancestors(&self, draft: &Draft<'_>) -> Result<(), Error> {
        let pdu = self.event.pdu();
        if pdu.prev_events.is_empty() {
            return Err(Error::InvalidParam("The event comes after no other.".to_owned()));
        }
        for id in &pdu.prev_events {
            let held = match draft.pending_by_id(id) {
                Some(event) => Some(event),
                None => self.rooms.view.events.load_by_id(id).await?,
            };
            let held = held.filter(|held| held.room == draft.room.nid() && held.carries(draft.room.partial));
            if held.is_none() {
                return Err(Error::InvalidParam(format!(
                    "The event comes after {id}, which is not held here."
                )));
            }
        }
        Ok(())
    }
}
