//! State resolution over state trees (room versions, "State resolution"): ruma's algorithm, shown only the conflict
//! and the unconflicted events that can bear on it, instead of whole states. Version 1 has an algorithm of its own
//! ([`v1`]).
//!
//! The result is the same as that of resolving the full maps (a property test says so), because the algorithm reads
//! an unconflicted event only through the auth types of an event in the full conflicted set. Must not know: where
//! events come from; what is not at hand comes back as a [`Need`].

mod conflict;
mod difference;
mod v1;

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
    state_res,
};

use self::conflict::Conflict;
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
    #[error("state resolution failed: {0}")]
    Failed(#[from] state_res::Error),
}

/// The state of a room from the states after several events; the order of `states` does not matter.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[StateTree],
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    let mut distinct: Vec<&StateTree> = states.iter().collect();
    distinct.sort_unstable_by_key(|state| state.root());
    distinct.dedup_by_key(|state| state.root());
    match distinct.as_slice() {
        [] => Ok(StateTree::new()),
        [only] => Ok((*only).clone()),
        [first, ..] => match rules.state_res.v2_rules() {
            None => v1::resolve(rules, &distinct, graph),
            Some(v2_rules) => {
                let conflict = Conflict::find(rules, v2_rules, &distinct, graph)?;
                let resolved = run(rules, v2_rules, &conflict, graph)?;
                merge(first, &conflict, resolved, graph)
            }
        },
    }
}

fn run(
    rules: &RoomVersionRules,
    v2_rules: &StateResolutionV2Rules,
    conflict: &Conflict,
    graph: &impl Graph,
) -> Result<state_res::StateMap<OwnedEventId>, ResolveError> {
    let missing = RefCell::new(BTreeSet::new());
    let fetch_event = |id: &EventId| match graph.event(id) {
        Lookup::Found(pdu) => Some(pdu),
        Lookup::Unobtainable => None,
        Lookup::Missing => {
            missing.borrow_mut().insert(id.to_owned());
            None
        }
    };
    // ruma takes the difference of the chains it is given; shown the difference and nothing, it finds the difference.
    let chains = vec![conflict.auth_difference.iter().cloned().collect(), Default::default()];
    let subgraph = |_: &_| Some(conflict.subgraph.iter().cloned().collect());
    let (auth_rules, maps) = (&rules.authorization, &conflict.maps);
    let resolved = state_res::resolve(auth_rules, v2_rules, maps, chains, fetch_event, subgraph);
    let missing = missing.into_inner();
    if !missing.is_empty() {
        return Err(ResolveError::Need(Need::Events(missing.into_iter().collect())));
    }
    Ok(resolved?)
}

/// Applies the outcome for the conflicted keys to what all states agree on.
fn merge(
    agreed: &StateTree,
    conflict: &Conflict,
    resolved: state_res::StateMap<OwnedEventId>,
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    let mut state = conflict.keys.iter().fold(agreed.clone(), |state, key| state.remove(*key));
    for ((event_type, state_key), id) in resolved {
        let key = graph.state_key_nid(&event_type, &state_key);
        let (Some(key), Some(event)) = (key, graph.event_nid(&id)) else {
            return Err(ResolveError::NoNid(id));
        };
        // What is still there is unconflicted, and prevails.
        if state.get(key).is_none() {
            state = state.insert(key, event);
        }
    }
    Ok(state)
}

#[cfg(test)]
pub(crate) mod tests;
