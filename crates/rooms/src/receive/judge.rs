//! Checks 4 to 7 on a PDU whose ancestors are held: by its auth events, by the state before it, by the current state,
//! and by the room's policy server.

use std::sync::Arc;

use myelin_dag::{Pdu, StateTree, Verdict, auth_types, state_tree::NodeHash};
use myelin_view::Event;
use ruma::{EventId, events::StateEventType};

use super::Incoming;
use crate::{Error, writer::Draft};

/// What an event is held against.
#[derive(Clone, Copy)]
pub(super) struct States<'s> {
    before: &'s StateTree,
    current: &'s StateTree,
    /// Members may lack in them; where they do, the auth events tell.
    partial: bool,
}

impl Draft<'_> {
    pub(super) async fn judge(
        &self,
        incoming: &Incoming,
        auth: &[Arc<Event>],
        before: &StateTree,
        partial: bool,
    ) -> Result<(Pdu, Verdict), Error> {
        let states = States { before, current: &self.room.current_state, partial };
        let (pdu, verdict) = self.judge_by_rules(incoming, auth, states).await?;
        Ok(match &incoming.refusal {
            Some(reason) if verdict.is_accepted() => (pdu, Verdict::SoftFailed { reason: reason.clone() }),
            _ => (pdu, verdict),
        })
    }

    /// Checks 4 and 5 only: what is history is not held against the present.
    pub(super) async fn judge_as_of(
        &self,
        incoming: &Incoming,
        auth: &[Arc<Event>],
        before: &StateTree,
        partial: bool,
    ) -> Result<(Pdu, Verdict), Error> {
        let states = States { before, current: before, partial };
        self.judge_by_rules(incoming, auth, states).await
    }

    async fn judge_by_rules(
        &self,
        incoming: &Incoming,
        auth: &[Arc<Event>],
        states: States<'_>,
    ) -> Result<(Pdu, Verdict), Error> {
        let rules = &self.room.info.rules;
        let by_id =
            |id: &EventId| auth.iter().map(|event| &event.pdu).find(|pdu| pdu.event_id == id).cloned();
        let authorized = incoming.pdu.clone().authorize(rules, by_id);
        let authorized = match authorized {
            Ok(authorized) => authorized,
            Err(unauthorized) => {
                let verdict = Verdict::Rejected { reason: unauthorized.rejection.reason };
                return Ok((*unauthorized.pdu, verdict));
            }
        };
        let pdu = authorized.pdu();
        let (kind, key) = (&pdu.event_type, pdu.state_key.as_deref());
        // What has passed so far is well-formed, and so has types.
        let types = auth_types(rules, kind, &pdu.sender, key, &pdu.content).unwrap_or_default();
        let before = self.auth_set(types.clone(), states.before).await?;
        let at_head = states.before.root() == states.current.root();
        if at_head && before.consists_of(auth) {
            return Ok(authorized.judge_by_same());
        }
        let before = |event_type: &StateEventType, key: &str| {
            before.state(event_type, key).or_else(|| states.partial.then(|| member(auth, event_type, key))?)
        };
        if at_head {
            return Ok(authorized.judge_at_head(rules, before));
        }
        let current = self.auth_set(types, states.current).await?;
        let current = |event_type: &StateEventType, key: &str| {
            current
                .state(event_type, key)
                .or_else(|| states.partial.then(|| member(auth, event_type, key))?)
        };
        Ok(authorized.judge(rules, before, current))
    }

    /// The state before an event whose prev events are held.
    pub(crate) async fn state_before(&self, pdu: &Pdu) -> Result<StateTree, Error> {
        let mut prev = Vec::with_capacity(pdu.prev_events.len());
        for id in &pdu.prev_events {
            let held = self.find(id).await?;
            prev.push(held.ok_or_else(|| Error::damaged(format!("event {id} is missing")))?);
        }
        self.state_after_all(&prev).await
    }

    /// The state from which an event goes on, from the states after its prev events.
    pub(crate) async fn state_after_all(&self, prev_events: &[Arc<Event>]) -> Result<StateTree, Error> {
        let mut states = Vec::with_capacity(prev_events.len());
        for prev in prev_events {
            states.push(self.state_after(prev).await?);
        }
        self.resolve(&states).await
    }

    pub(crate) async fn state_after(&self, event: &Event) -> Result<StateTree, Error> {
        let root =
            event.state_before.ok_or_else(|| Error::damaged(format!("{:?} has no state", event.nid)))?;
        let before = self.state_of(root).await?;
        let rejected = event.is_rejected();
        Ok(match event.state_key {
            Some(key) if !rejected => before.insert(key, event.nid),
            _ => before,
        })
    }

    pub(super) async fn state_of(&self, root: NodeHash) -> Result<StateTree, Error> {
        if root == self.room.current_state.root() {
            return Ok(self.room.current_state.clone());
        }
        Ok(self.rooms().view.states.load(root).await?)
    }
}

fn member<'a>(auth: &'a [Arc<Event>], event_type: &StateEventType, key: &str) -> Option<&'a Pdu> {
    let of_member = *event_type == StateEventType::RoomMember;
    let mut auth = auth.iter().map(|event| &*event.pdu).filter(|_| of_member);
    auth.find(|pdu| pdu.is_state_of("m.room.member", key))
}
