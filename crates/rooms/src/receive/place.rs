//! Events at the far end of a gap: outliers that get the state before them from another server, so that others can be
//! judged after them. They stay outside the timeline; backfill may bring them in.

use std::sync::Arc;

use myelin_core::RoomNid;
use myelin_dag::{StateTree, auth::authorize_by_state, auth_types};
use myelin_store::tables::VerdictRecord;
use myelin_view::Event;
use ruma::{EventId, OwnedEventId};

use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

struct PlaceOutlier<'a> {
    event_id: &'a EventId,
    state: StateTree,
}

impl Rooms {
    /// `state` names the events of the state before an outlier; those that are not held or were rejected do not count.
    /// `false` if there is no such outlier.
    pub async fn place_outlier(
        &self,
        room: RoomNid,
        event_id: &EventId,
        state: &[OwnedEventId],
    ) -> Result<bool, Error> {
        let state = self.state_of(room, state).await?;
        self.run(room, &PlaceOutlier { event_id, state }).await
    }

    /// A state out of the events that make it up.
    pub(crate) async fn state_of(&self, room: RoomNid, ids: &[OwnedEventId]) -> Result<StateTree, Error> {
        let held = self.view.interner.lookup_events(ids).await?;
        let nids: Vec<_> = ids.iter().filter_map(|id| held.get(id).copied()).collect();
        let events = self.view.events.load_many(&nids).await?;
        let mut state = StateTree::new();
        for event in events.into_iter().flatten() {
            let rejected = matches!(event.verdict, VerdictRecord::Rejected { .. });
            if let Some(key) = event.state_key.filter(|_| event.room == room && !rejected) {
                state = state.insert(key, event.nid);
            }
        }
        Ok(state)
    }
}

impl Command for PlaceOutlier<'_> {
    type Output = bool;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<bool, Error> {
        let Some(outlier) = draft.find(self.event_id).await? else { return Ok(false) };
        if outlier.room != draft.room.nid() {
            return Ok(false);
        }
        if outlier.state_before.is_none() {
            draft.place_outlier(&outlier, &self.state).await?;
        }
        Ok(true)
    }
}

impl Draft<'_> {
    async fn place_outlier(&mut self, outlier: &Event, state: &StateTree) -> Result<(), Error> {
        let (verdict, pdu) = match self.rejected_by(outlier, state).await? {
            Some(reason) if outlier.accepted() => {
                self.rejects_held = true;
                let pdu = (*outlier.pdu).clone().into_rejected();
                (VerdictRecord::Rejected { reason }, Arc::new(pdu))
            }
            _ => (outlier.verdict.clone(), outlier.pdu.clone()),
        };
        let (nid, sender, key) = (outlier.nid, outlier.sender, outlier.state_key);
        let root = Some(state.root());
        let event = Event::new(nid, outlier.room, sender, key, root, verdict, None, pdu);
        self.keep_nodes(state, &[&self.room.current_state.clone()]);
        self.put_outside(&Arc::new(event));
        Ok(())
    }

    async fn rejected_by(&self, event: &Event, state: &StateTree) -> Result<Option<String>, Error> {
        let (pdu, rules) = (&event.pdu, &self.room.info.rules);
        let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
        let set = self.auth_set(types.unwrap_or_default(), state).await?;
        let allowed = authorize_by_state(rules, pdu, |event_type, key| set.state(event_type, key));
        Ok(allowed.err().map(|rejection| rejection.reason))
    }
}
