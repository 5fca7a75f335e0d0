//! What another server told of a state turns out otherwise: what comes after the event that it told it of is judged by the
//! states that follow from the truth.
//!
//! Only what forward extremities come after is looked at. An event that was rejected may be accepted now, and clients see
//! it when they read back; one that counted and that the truth does not allow stays as it was judged, with what follows
//! from it.

use std::{collections::HashMap, sync::Arc};

use myelin_core::EventNid;
use myelin_dag::{Pdu, StateTree, checks::VerifiedPdu};
use myelin_store::{
    log::LogEntry,
    tables::{EVENTS, Placement, VerdictRecord},
};
use myelin_view::{Event, Landing};

use super::{Incoming, record_of};
use crate::{Error, writer::Draft};

/// Events that follow from a told state, looked at for one that was told.
const EVENTS_MAX: usize = 5_000;

/// What is known so far.
#[derive(Default)]
struct Truth {
    /// The states before and after events that differ from those that are stored.
    before: HashMap<EventNid, StateTree>,
    after: HashMap<EventNid, StateTree>,
    /// Whether they may yet be others.
    is_told: HashMap<EventNid, bool>,
}

impl Draft<'_> {
    /// Some events that were judged by a told state have been judged again, with another outcome.
    pub(super) async fn follow_the_truth(&mut self) -> Result<(), Error> {
        let corrected = std::mem::take(&mut self.corrected);
        self.all_durable().await?;
        let mut truth = Truth::default();
        for event in &corrected {
            truth.after.insert(event.nid, self.state_after(event).await?);
            truth.is_told.insert(event.nid, event.is_doubtful());
        }
        let depth = corrected.iter().map(|event| event.pdu.depth).min().unwrap_or_default();
        for event in self.followers_of_told(depth).await? {
            if !truth.after.contains_key(&event.nid) {
                self.judge_by_truth(&event, &mut truth).await?;
            }
        }
        self.turn_to_truth(&truth).await
    }

    /// Events deeper than that which follow from told states, by way of such, from the forward extremities back; parents
    /// before children.
    async fn followers_of_told(&self, depth: u64) -> Result<Vec<Arc<Event>>, Error> {
        let (mut seen, mut ordered) = (HashMap::new(), Vec::new());
        let mut pending: Vec<(EventNid, bool)> =
            self.room.head.extremities.iter().map(|nid| (*nid, false)).collect();
        while let Some((nid, parents_are_done)) = pending.pop() {
            if parents_are_done {
                ordered.extend(seen.get(&nid).cloned());
                continue;
            }
            let event = self.event(nid).await?;
            let follows = event.state_is_told && event.room == self.room.nid() && event.pdu.depth > depth;
            if !follows || seen.contains_key(&nid) {
                continue;
            }
            if seen.len() == EVENTS_MAX {
                tracing::warn!(room_id = %self.room.info.room_id, "too much follows from a state that was told");
                return Ok(Vec::new());
            }
            pending.push((nid, true));
            for id in &event.pdu.prev_events {
                pending.extend(self.find(id).await?.map(|prev| (prev.nid, false)));
            }
            seen.insert(nid, event);
        }
        Ok(ordered)
    }

    async fn judge_by_truth(&mut self, event: &Arc<Event>, truth: &mut Truth) -> Result<(), Error> {
        let mut prevs = Vec::with_capacity(event.pdu.prev_events.len());
        for id in &event.pdu.prev_events {
            prevs.extend(self.find(id).await?.filter(|prev| prev.carries(self.room.partial)));
        }
        let follows = prevs.len() == event.pdu.prev_events.len();
        if !follows || !prevs.iter().any(|prev| truth.after.contains_key(&prev.nid)) {
            return Ok(());
        }
        let mut states = Vec::with_capacity(prevs.len());
        for prev in &prevs {
            states.push(match truth.after.get(&prev.nid) {
                Some(state) => state.clone(),
                None => self.state_after(prev).await?,
            });
        }
        let state = self.resolve(&states).await?;
        let told =
            |prev: &Arc<Event>| truth.is_told.get(&prev.nid).copied().unwrap_or_else(|| prev.is_doubtful());
        let is_told = prevs.iter().any(told);
        let Some(judged) = self.judged_by(event, &state, is_told).await? else { return Ok(()) };
        self.keep_beside(event, &prevs, &state, truth).await?;
        truth.after.insert(event.nid, self.state_after(&judged).await?);
        truth.is_told.insert(event.nid, judged.is_doubtful());
        truth.before.insert(event.nid, state);
        Ok(())
    }

    /// The event with this state before it, on its way into the store; `None`: it stays as it is.
    async fn judged_by(
        &mut self,
        event: &Arc<Event>,
        state: &StateTree,
        is_told: bool,
    ) -> Result<Option<Arc<Event>>, Error> {
        let rejected = event.is_rejected();
        if !rejected && self.forbidden_by(event, state).await?.is_some() {
            return Ok(None);
        }
        // The row has its place, which memory may not have yet.
        let Some(mut row) = self.stored(event.nid).await? else { return Ok(None) };
        if rejected {
            let Some(verdict) = self.verdict_by(event, state).await? else { return Ok(None) };
            let accepted = verdict == VerdictRecord::Accepted;
            self.rejects_held |= accepted;
            row.value.verdict = verdict;
            // Clients have not been shown it.
            row.value.placement = if accepted || is_told { Placement::Told } else { Placement::Outside };
        }
        row.value.state_before = Some(state.root().0);
        row.value.state_is_told = is_told;
        let judged = Arc::new(Event::from_row(event.nid, row.clone(), &self.room.info)?);
        self.batch.put(&EVENTS, &event.nid, &row);
        self.add_outside(Landing { event: judged.clone(), redacted: None, snapshot: None });
        Ok(Some(judged))
    }

    /// Of an event that was rejected.
    async fn verdict_by(&self, event: &Event, state: &StateTree) -> Result<Option<VerdictRecord>, Error> {
        let rules = &self.room.info.rules;
        let pdu = Pdu::parse(event.pdu.json.clone(), event.pdu.event_id.clone(), rules);
        let pdu = pdu.map_err(|error| Error::damaged(format!("{:?} does not parse: {error}", event.nid)))?;
        let Ok((_, auth)) = self.ancestors(&pdu).await? else { return Ok(None) };
        // Its signatures were verified when it came.
        let incoming = Incoming::from(VerifiedPdu::made_here(pdu));
        let (_, verdict) = self.judge_as_of(&incoming, &auth, state, event.state_is_partial).await?;
        Ok(Some(record_of(&verdict)))
    }

    async fn keep_beside(
        &mut self,
        event: &Event,
        prevs: &[Arc<Event>],
        state: &StateTree,
        truth: &Truth,
    ) -> Result<(), Error> {
        let mut stored = vec![self.room.current_state.clone()];
        if let Some(root) = event.state_before {
            stored.push(self.state_of(root).await?);
        }
        stored.extend(prevs.iter().filter_map(|prev| truth.before.get(&prev.nid)).cloned());
        self.keep_nodes(state, &stored.iter().collect::<Vec<_>>());
        Ok(())
    }

    async fn turn_to_truth(&mut self, truth: &Truth) -> Result<(), Error> {
        let mut states = Vec::new();
        for nid in &self.room.head.extremities {
            states.push(match truth.after.get(nid) {
                Some(state) => state.clone(),
                None => self.state_after(&*self.event(*nid).await?).await?,
            });
        }
        let current = self.resolve(&states).await?;
        if current.root() == self.room.current_state.root() {
            return Ok(());
        }
        // Whoever has the room at hand reads it again.
        let position = self.batch.log(&LogEntry::Completed { room: self.room.nid() });
        self.turn_to(current, None, position).await
    }
}
