//! Leaves that were made here and that the resident server of a join had not heard of.
//!
//! When the last user of this server leaves and another one joins through a server that has not been told yet, the state
//! that comes with the join still has the first one in the room. The leave is not taken back by that: it is a branch of
//! its own beside the join, as it is on all servers that get both.

use std::sync::Arc;

use myelin_core::{EventNid, Position};
use myelin_store::tables::{Membership, USER_ROOMS};
use myelin_view::Event;

use crate::{
    Error,
    writer::{Change, Draft},
};

impl Draft<'_> {
    /// Leaves of local users that come after the joins which `members`, from another server, has for them.
    pub(super) async fn unheard_leaves(
        &self,
        members: &[(Change, EventNid)],
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut leaves = Vec::new();
        for (change, join) in members {
            if change.local && change.membership == Membership::Join {
                leaves.extend(self.leave_after(change, *join).await?);
            }
        }
        let mut newest = Vec::new();
        for leave in &leaves {
            if !self.is_known_to_any(leave, &leaves).await? {
                newest.push(leave.clone());
            }
        }
        Ok(newest)
    }

    /// Who left later knew of those who left before.
    async fn is_known_to_any(&self, leave: &Event, others: &[Arc<Event>]) -> Result<bool, Error> {
        for other in others.iter().filter(|other| other.nid != leave.nid) {
            let state = self.state_after(other).await?;
            if leave.state_key.and_then(|key| state.get(key)) == Some(leave.nid) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The leave by which this server knows that a join is over.
    async fn leave_after(&self, change: &Change, join: EventNid) -> Result<Option<Arc<Event>>, Error> {
        let room = self.room.nid();
        let held = match self.room.members.get(&change.user) {
            Some(held) => Some(*held),
            None => {
                let row = self.rooms().view().store.get(&USER_ROOMS, &(change.user, room)).await?;
                row.map(|row| (row.value.membership, row.value.event))
            }
        };
        let Some((Membership::Leave | Membership::Ban, leave)) = held else { return Ok(None) };
        let chain = self.rooms().chains.lookup_many(&[leave]).await?.pop().flatten();
        if !chain.is_some_and(|chain| chain.contains(join)) {
            return Ok(None);
        }
        let leave = self.event(leave).await?;
        Ok((leave.accepted() && leave.state_before.is_some()).then_some(leave))
    }

    /// These are forward extremities beside those that there are.
    pub(super) async fn go_on_from(
        &mut self,
        leaves: &[Arc<Event>],
        position: Position,
    ) -> Result<(), Error> {
        if leaves.is_empty() {
            return Ok(());
        }
        let mut states = vec![self.room.current_state.clone()];
        for leave in leaves {
            states.push(self.state_after(leave).await?);
            self.room.head.extremities.push(leave.nid);
            self.room.head.depth = self.room.head.depth.max(leave.pdu.depth);
        }
        let state = self.resolve(&states).await?;
        self.turn_to(state, None, position).await
    }
}
