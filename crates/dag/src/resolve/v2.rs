//! The second state resolution algorithm (room version 2, "State resolution"; room version 12 for its revision), over
//! the conflict alone: by numbers and bitmaps where that is all that is asked, with ruma's authorisation rules.
//!
//! An unconflicted event bears on the outcome only through the auth types of an event in the full conflicted set, so
//! no others are looked at. The tests hold this to ruma's resolution of whole states.

mod order;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
};

use self::order::Orders;
use super::{
    Graph, Lookup, Need, ResolveError,
    conflict::{self, Conflict, Key},
    difference::{chains, union},
};
use crate::{
    Pdu, StateTree,
    auth::{auth_types, authorize_by_state, implied_create_event},
};

/// `states` are two or more, and distinct.
pub fn resolve(
    rules: &RoomVersionRules,
    v2_rules: &StateResolutionV2Rules,
    states: &[&StateTree],
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    let conflict = Conflict::find(v2_rules, states, graph)?;
    let agreed = conflict.keys.iter().fold(states[0].clone(), |state, key| state.remove(*key));
    let unconflicted = match v2_rules.begin_iterative_auth_checks_with_empty_state_map {
        true => HashMap::new(),
        false => conflict::known(rules, &agreed, &conflict.full, graph)?,
    };
    let at_hand = AtHand { graph, missing: RefCell::default() };
    let listed = auth_events(&conflict, &at_hand);
    at_hand.check()?;
    let judging = conflict.full.iter().map(|(_, pdu)| pdu).chain(unconflicted.values()).chain(&listed);
    mainlines(judging, graph)?;
    let resolved = run(rules, &conflict, unconflicted, &at_hand);
    at_hand.check()?;
    merge(agreed, resolved, graph)
}

fn auth_events<G: Graph>(conflict: &Conflict, at_hand: &AtHand<'_, G>) -> Vec<Arc<Pdu>> {
    let ids: HashSet<&OwnedEventId> = conflict.full.iter().flat_map(|(_, pdu)| &pdu.auth_events).collect();
    ids.into_iter().filter_map(|id| at_hand.event(id)).collect()
}

/// Mainlines are walked from one power levels event to the one before it. So that not each step asks for the next, all
/// that they can lead to is asked for at once.
fn mainlines<'p>(
    judging: impl Iterator<Item = &'p Arc<Pdu>>,
    graph: &impl Graph,
) -> Result<(), ResolveError> {
    let levels = judging.filter(|pdu| pdu.event_type == TimelineEventType::RoomPowerLevels);
    let levels: BTreeSet<EventNid> = levels.filter_map(|pdu| graph.event_nid(&pdu.event_id)).collect();
    let ancestors = union(&chains(levels.into_iter(), graph)?);
    conflict::events(&ancestors.into_iter().map(EventNid).collect(), graph).map(drop)
}

/// The events outside the conflict: those in the auth events of others.
pub struct AtHand<'a, G> {
    graph: &'a G,
    missing: RefCell<BTreeSet<OwnedEventId>>,
}

impl<G: Graph> AtHand<'_, G> {
    /// Whether nothing has been missing so far.
    fn check(&self) -> Result<(), ResolveError> {
        let missing = self.missing.take();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(ResolveError::Need(Need::Events(missing.into_iter().collect()))),
        }
    }

    /// What is missing is noted, and what cannot be had passed over.
    pub fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        match self.graph.event(id) {
            Lookup::Found(pdu) => Some(pdu),
            Lookup::Unobtainable => None,
            Lookup::Missing => {
                self.missing.borrow_mut().insert(id.to_owned());
                None
            }
        }
    }
}

/// The state as it is being put together.
#[derive(Default)]
struct Partial {
    unconflicted: HashMap<Key, Arc<Pdu>>,
    resolved: HashMap<Key, (EventNid, Arc<Pdu>)>,
}

impl Partial {
    fn get(&self, key: &Key) -> Option<&Arc<Pdu>> {
        let resolved = self.resolved.get(key).map(|(_, pdu)| pdu);
        resolved.or_else(|| self.unconflicted.get(key))
    }
}

fn run<G: Graph>(
    rules: &RoomVersionRules,
    conflict: &Conflict,
    unconflicted: HashMap<Key, Arc<Pdu>>,
    at_hand: &AtHand<'_, G>,
) -> HashMap<Key, (EventNid, Arc<Pdu>)> {
    let orders = Orders::new(rules, &conflict.full, at_hand);
    let mut state = Partial { unconflicted, resolved: HashMap::with_capacity(conflict.full.len()) };
    let power_events = orders.by_power();
    let check = |state: &mut Partial, index: usize| {
        let (nid, pdu) = &conflict.full[index];
        check(rules, *nid, pdu, state, at_hand);
    };
    power_events.iter().for_each(|index| check(&mut state, *index));
    let levels = state.get(&(StateEventType::RoomPowerLevels, String::new())).cloned();
    let is_power_event: BTreeSet<usize> = power_events.into_iter().collect();
    let rest = (0..conflict.full.len()).filter(|index| !is_power_event.contains(index));
    let rest = orders.by_mainline(rest.collect(), levels);
    rest.into_iter().for_each(|index| check(&mut state, index));
    state.resolved
}

/// One step of the iterative auth checks.
fn check<G: Graph>(
    rules: &RoomVersionRules,
    nid: EventNid,
    pdu: &Arc<Pdu>,
    state: &mut Partial,
    at_hand: &AtHand<'_, G>,
) {
    let Some(key) = conflict::key_of(pdu) else { return };
    // A malformed event is allowed nowhere.
    let Ok(types) = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content)
    else {
        return;
    };
    let ids = pdu.auth_events.iter().cloned().chain(implied_create_event(pdu, rules));
    let of_auth_events = ids.filter_map(|id| at_hand.event(&id)).filter(|event| !event.rejected);
    let mut auth: HashMap<Key, Arc<Pdu>> =
        of_auth_events.filter_map(|event| Some((conflict::key_of(&event)?, event))).collect();
    for key in types {
        if let Some(event) = state.get(&key).filter(|event| !event.rejected).cloned() {
            auth.insert(key, event);
        }
    }
    let fetch =
        |event_type: &StateEventType, state_key: &str| auth.get(&(event_type.clone(), state_key.to_owned()));
    if authorize_by_state(rules, pdu, fetch).is_ok() {
        state.resolved.insert(key, (nid, pdu.clone()));
    }
}

/// What all states agree on prevails.
fn merge(
    agreed: StateTree,
    resolved: HashMap<Key, (EventNid, Arc<Pdu>)>,
    graph: &impl Graph,
) -> Result<StateTree, ResolveError> {
    let mut changes: Vec<(StateKeyNid, EventNid)> = Vec::with_capacity(resolved.len());
    for ((event_type, state_key), (nid, pdu)) in resolved {
        match graph.state_key_nid(&event_type, &state_key) {
            Some(key) => changes.push((key, nid)),
            None => return Err(ResolveError::NoNid(pdu.event_id.clone())),
        }
    }
    changes.retain(|(key, _)| agreed.get(*key).is_none());
    Ok(changes.into_iter().fold(agreed, |state, (key, event)| state.insert(key, event)))
}
