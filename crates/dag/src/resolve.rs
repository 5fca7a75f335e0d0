//! State resolution over state trees (room versions, "State resolution"): version 1 has one algorithm, version 2 and
//! up another, revised in version 12. Conflicts are found by the difference of the trees.
//!
//! Must not know: where events come from; what is not at hand comes back as a [`Need`].

mod conflict;
mod difference;
mod v1;
mod v2;

use std::sync::Arc;

use myelin_core::{EventNid, StateKeyNid};
use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use crate::{Pdu, StateTree, auth_chain::AuthChain};

/// What the driver has at hand.
pub trait Graph {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>>;
    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>>;
    fn event_nid(&self, id: &EventId) -> Option<EventNid>;
    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>>;
    fn state_key(&self, nid: StateKeyNid) -> Option<(StateEventType, String)>;
    /// `None` if the pair was never interned, so that no state has it.
    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid>;
}

pub enum Lookup<T> {
    Found(T),
    /// Not at hand: will be asked for in a [`Need`].
    Missing,
    /// Cannot be had, neither from the store nor from any server; resolution goes on without it.
    Unobtainable,
}

/// What is to be brought before asking again. Each names all that is known to be missing at that point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    Events(Vec<OwnedEventId>),
    EventNids(Vec<EventNid>),
    AuthChains(Vec<EventNid>),
    StateKeys(Vec<StateKeyNid>),
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("not everything is at hand: {0:?}")]
    Need(Need),
    #[error("the resolved event {0} or its state key has no nid")]
    NoNid(OwnedEventId),
}

/// The state of a room from the states after several events; the order of `states` does not matter.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[StateTree],
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    Resolution::of(rules, states, graph).map(|resolution| resolution.state)
}

/// The outcome, and what led to it. Copies share what they have in common.
#[derive(Clone)]
pub struct Resolution {
    pub state: StateTree,
    /// `None` where there was no conflict, and in version 1.
    fork: Option<v2::Fork>,
}

impl Resolution {
    /// See [`resolve`].
    pub fn of(
        rules: &RoomVersionRules,
        states: &[StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        Self::by(rules, states, graph, None)
    }

    /// The same outcome as [`Resolution::of`], for less if one or two of the states have become others since `self`.
    /// Both are of one room.
    pub fn follow(
        &self,
        rules: &RoomVersionRules,
        states: &[StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        Self::by(rules, states, graph, self.fork.as_ref())
    }

    fn by(
        rules: &RoomVersionRules,
        states: &[StateTree],
        graph: &impl Graph,
        before: Option<&v2::Fork>,
    ) -> Result<Self, ResolveError> {
        let mut distinct: Vec<&StateTree> = states.iter().collect();
        distinct.sort_unstable_by_key(|state| state.root());
        distinct.dedup_by_key(|state| state.root());
        match (distinct.as_slice(), rules.state_res.v2_rules()) {
            ([], _) => Ok(StateTree::new().into()),
            ([only], _) => Ok((*only).clone().into()),
            (_, None) => v1::resolve(rules, &distinct, graph).map(Self::from),
            (_, Some(v2_rules)) => {
                let fork = match before {
                    None => v2::Fork::of(rules, v2_rules, &distinct, graph)?,
                    Some(before) => before.follow(rules, v2_rules, &distinct, graph)?,
                };
                Ok(Self { state: fork.resolved.clone(), fork: Some(fork) })
            }
        }
    }

    /// Whether it is worth keeping for [`Resolution::follow`], and how much that is, in events.
    pub fn weight(&self) -> Option<u64> {
        self.fork.as_ref().map(v2::Fork::weight)
    }
}

impl From<StateTree> for Resolution {
    fn from(state: StateTree) -> Self {
        Self { state, fork: None }
    }
}

#[cfg(test)]
pub(crate) mod tests;
