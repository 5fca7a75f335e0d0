//! Forward extremities that pile up are merged by an event that says nothing and that clients are not shown, made by
//! a local user who may send it (as Synapse does).

use std::collections::HashSet;

use myelin_core::RoomNid;
use myelin_dag::{NewEvent, StateTree};
use myelin_store::tables::Membership;
use ruma::events::room::power_levels::UserPowerLevel;
use serde_json::value::RawValue;

use crate::{
    Error, Rooms, Sender,
    writer::{Command, Draft},
};

/// More than these are merged.
pub const EXTREMITIES_MAX: usize = 10;
/// Members who are looked at to find one who may speak.
const MEMBERS_MAX: usize = 50;
/// Of those who may, how many try: after the branches that are named each may be refused.
const TRIES_MAX: usize = 5;

/// More than these are kept only where each adds something to the state: where nobody here may speak, nobody merges them.
const EXTREMITIES_HELD_MAX: usize = 100;

struct MergeExtremities;

impl Rooms {
    /// Merges forward extremities if there are many. Whether there is nothing left to merge.
    pub async fn merge_extremities(&self, room: RoomNid) -> Result<bool, Error> {
        self.run(room, &MergeExtremities).await
    }
}

impl Command for MergeExtremities {
    type Output = bool;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<bool, Error> {
        if draft.room.head.extremities.len() <= EXTREMITIES_MAX {
            return Ok(true);
        }
        draft.relay = Some(false);
        for sender in draft.who_may_merge().await? {
            match draft.append(&sender, dummy_event(&sender)?).await {
                // Not after the branches that are named; somebody else may be.
                Err(Error::Forbidden(_)) => {}
                merged => return merged.map(|_| draft.room.head.extremities.len() <= EXTREMITIES_MAX),
            }
        }
        Ok(false)
    }
}

fn dummy_event(sender: &Sender) -> Result<NewEvent, Error> {
    Ok(NewEvent {
        sender: sender.user_id.clone(),
        event_type: myelin_view::DUMMY_EVENT.into(),
        state_key: None,
        content: RawValue::from_string("{}".to_owned())?,
        redacts: None,
        sticky_duration_ms: None,
    })
}

impl Draft<'_> {
    /// Lets extremities go, oldest first, after which the state is that after another one. `states`: those after each.
    pub(super) fn let_go_of_equals(&mut self, states: &mut Vec<StateTree>) {
        let extremities = &mut self.room.head.extremities;
        if extremities.len() <= EXTREMITIES_HELD_MAX {
            return;
        }
        let (mut kept, mut roots) = (Vec::new(), HashSet::new());
        for (index, (nid, state)) in extremities.iter().zip(states.drain(..)).enumerate() {
            if roots.insert(state.root()) || index < EXTREMITIES_HELD_MAX {
                kept.push((*nid, state));
            }
        }
        (*extremities, *states) = kept.into_iter().unzip();
    }

    /// Local users whose power is enough, as the room is now.
    async fn who_may_merge(&self) -> Result<Vec<Sender>, Error> {
        let members: Vec<_> = self.room.local_joined.iter().copied().take(MEMBERS_MAX).collect();
        let mut senders = Vec::new();
        for user in members {
            let user_id = self.rooms().view.interner.user_id(user).await?;
            let may = self.power_levels(|levels| match levels.of_user(&user_id) {
                UserPowerLevel::Int(has) => has >= levels.to_send(&myelin_view::DUMMY_EVENT.into(), None),
                _ => true,
            });
            if may.await? && self.room.membership(user) == Some(Membership::Join) {
                senders.push(Sender { user, user_id, guest: false, suspended: false, admin: false });
            }
            if senders.len() == TRIES_MAX {
                break;
            }
        }
        Ok(senders)
    }
}
