//! The second state resolution algorithm (room version 2, "State resolution"; room version 12 for its revision), over
//! the conflict alone: by numbers and bitmaps where that is all that is asked, with ruma's authorisation rules.
//!
//! An unconflicted event bears on the outcome only through the auth types of an event in the full conflicted set, so
//! no others are looked at. The tests hold this to ruma's resolution of whole states.
//!
//! A [`Fork`] is a resolution with all that led to it. Where one of its states has become another, as with each event of
//! the other side of a netsplit, only what that bears on is looked at again: the outcome is that of a resolution anew,
//! and the cost is that of the change.

mod checks;
mod held;
mod order;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use roaring::RoaringTreemap;
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
};

use self::{
    checks::{Checks, Turn},
    held::Held,
};
use super::{
    Graph, Lookup, Need, ResolveError,
    conflict::{self, Conflict},
    difference::{chains, union},
};
use crate::{Pdu, StateTree};

/// More changes of a state at once than these are resolved anew.
const CHANGES_MAX: usize = 256;

/// Copies share what they have in common.
#[derive(Clone)]
pub struct Fork {
    conflict: Conflict,
    checks: Checks,
    pub resolved: StateTree,
}

/// What a resolution goes by.
pub struct Basis<'a, G> {
    rules: &'a RoomVersionRules,
    v2_rules: &'a StateResolutionV2Rules,
    conflict: &'a Conflict,
    at_hand: &'a AtHand<'a, G>,
}

impl Fork {
    /// `states` are two or more, and distinct.
    pub fn of(
        rules: &RoomVersionRules,
        v2_rules: &StateResolutionV2Rules,
        states: &[&StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let conflict = Conflict::of(v2_rules, states, graph)?;
        let at_hand = AtHand::new(graph);
        let basis = Basis { rules, v2_rules, conflict: &conflict, at_hand: &at_hand };
        let come = held_of(&conflict.full, &basis)?;
        mainlines(&come, &basis)?;
        let mut checks = Checks::default();
        let written = checks.turn(Turn { come, ..Turn::default() }, &basis);
        at_hand.check()?;
        let written = written.unwrap_or_default();
        let keys = conflict.keys().chain(written);
        let resolved = resolve_keys(states[0], keys, &conflict, &checks);
        Ok(Self { conflict, checks, resolved })
    }

    /// The same outcome as [`Fork::of`]. For less if all but one of the states are those of this, or all but two.
    pub fn follow(
        &self,
        rules: &RoomVersionRules,
        v2_rules: &StateResolutionV2Rules,
        states: &[&StateTree],
        graph: &impl Graph,
    ) -> Result<Self, ResolveError> {
        let followed = match self.replaced_in(states) {
            Some(replaced) => self.with(rules, v2_rules, &replaced, graph)?,
            None => None,
        };
        followed.map_or_else(|| Self::of(rules, v2_rules, states, graph), Ok)
    }

    /// Which of the states have become which ones.
    fn replaced_in<'s>(&self, states: &[&'s StateTree]) -> Option<Vec<(usize, &'s StateTree)>> {
        let before = &self.conflict.states;
        let gone: Vec<_> = (0..before.len()).filter(|at| !states.contains(&&before[*at])).collect();
        let come: Vec<_> = states.iter().copied().filter(|state| !before.contains(state)).collect();
        match (&gone[..], &come[..]) {
            ([at], [state]) => Some(vec![(*at, *state)]),
            ([first, second], [one, other]) => {
                let near = |at: usize, state: &StateTree| before[at].diff(state).len() <= CHANGES_MAX;
                let (one, other) = if near(*first, one) { (*one, *other) } else { (*other, *one) };
                Some(vec![(*first, one), (*second, other)])
            }
            _ => None,
        }
    }

    /// `None` if so much depends on the change that it is resolved anew.
    fn with(
        &self,
        rules: &RoomVersionRules,
        v2_rules: &StateResolutionV2Rules,
        replaced: &[(usize, &StateTree)],
        graph: &impl Graph,
    ) -> Result<Option<Self>, ResolveError> {
        let mut changed: BTreeSet<StateKeyNid> = BTreeSet::new();
        for (at, state) in replaced {
            changed.extend(self.conflict.states[*at].diff(state).into_iter().map(|(key, ..)| key));
        }
        if changed.len() > CHANGES_MAX {
            return Ok(None);
        }
        let conflict = self.conflict.with(v2_rules, replaced, &changed, graph)?;
        let at_hand = AtHand::new(graph);
        let basis = Basis { rules, v2_rules, conflict: &conflict, at_hand: &at_hand };
        let before = &self.conflict.full;
        let come = held_of(&(&conflict.full - before), &basis)?;
        let gone = before - &conflict.full;
        let elsewhere: Vec<_> =
            come.iter().filter(|held| !self.checks.knows_place_of(held)).cloned().collect();
        if !elsewhere.is_empty() {
            mainlines(&elsewhere, &basis)?;
        }
        let mut checks = self.checks.clone();
        let written = checks.turn(Turn { gone, come, changed: changed.clone() }, &basis);
        at_hand.check()?;
        let Some(written) = written else { return Ok(None) };
        let keys = changed.into_iter().chain(written);
        let resolved = resolve_keys(&self.resolved, keys, &conflict, &checks);
        Ok(Some(Self { conflict, checks, resolved }))
    }

    /// How much there is to keep, in events.
    pub fn weight(&self) -> u64 {
        self.conflict.full.len()
    }
}

/// What all states agree on prevails.
fn resolve_keys(
    state: &StateTree,
    keys: impl Iterator<Item = StateKeyNid>,
    conflict: &Conflict,
    checks: &Checks,
) -> StateTree {
    keys.fold(state.clone(), |state, key| match conflict.agreed(key).or_else(|| checks.outcome(key)) {
        Some(event) => state.insert(key, event),
        None => state.remove(key),
    })
}

/// The events, with what they go by. All of that is brought, the agreed state too.
fn held_of<G: Graph>(events: &RoaringTreemap, basis: &Basis<'_, G>) -> Result<Vec<Arc<Held>>, ResolveError> {
    let graph = basis.at_hand.graph;
    let pdus = conflict::events(&events.iter().map(EventNid).collect(), graph)?;
    for id in pdus.iter().flat_map(|(_, pdu)| Held::by(pdu, basis.rules)).collect::<HashSet<_>>() {
        basis.at_hand.event(&id);
    }
    basis.at_hand.check()?;
    let mut creators = None;
    // All are asked before the first one fails.
    let held: Vec<_> = pdus.into_iter().map(|(nid, pdu)| Held::new(nid, pdu, basis, &mut creators)).collect();
    let held = held.into_iter().collect::<Result<Vec<_>, _>>()?;
    let reads: BTreeSet<StateKeyNid> = held.iter().flat_map(|held| held.reads.iter().copied()).collect();
    conflict::events(&reads.into_iter().filter_map(|key| basis.agreed(key)).collect(), graph)?;
    Ok(held)
}

/// Mainlines are walked from one power levels event to the one before it. So that not each step asks for the next, all
/// that they can lead to is asked for at once.
fn mainlines<G: Graph>(held: &[Arc<Held>], basis: &Basis<'_, G>) -> Result<(), ResolveError> {
    let graph = basis.at_hand.graph;
    let is_levels = |pdu: &Pdu| pdu.event_type == TimelineEventType::RoomPowerLevels;
    let own = held.iter().filter(|held| is_levels(&held.pdu)).map(|held| held.nid);
    let listed: BTreeSet<EventNid> = held.iter().flat_map(|held| held.auth.iter().copied()).collect();
    let listed = conflict::events(&listed, graph)?.into_iter().filter(|(_, pdu)| is_levels(pdu));
    let agreed = basis.levels_key().and_then(|key| basis.agreed(key));
    let levels: BTreeSet<EventNid> = own.chain(listed.map(|(nid, _)| nid)).chain(agreed).collect();
    let ancestors = union(&chains(levels.into_iter(), graph)?);
    conflict::events(&ancestors.into_iter().map(EventNid).collect(), graph).map(drop)
}

impl<G: Graph> Basis<'_, G> {
    /// What the checks begin with under a key.
    fn agreed(&self, key: StateKeyNid) -> Option<EventNid> {
        let empty = self.v2_rules.begin_iterative_auth_checks_with_empty_state_map;
        self.conflict.agreed(key).filter(|_| !empty)
    }

    fn key(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        self.at_hand.graph.state_key_nid(event_type, state_key)
    }

    fn levels_key(&self) -> Option<StateKeyNid> {
        self.key(&StateEventType::RoomPowerLevels, "")
    }
}

/// The events that are asked for one by one. What is missing is noted, and what cannot be had passed over.
pub struct AtHand<'a, G> {
    graph: &'a G,
    missing: RefCell<BTreeSet<OwnedEventId>>,
    missing_nids: RefCell<BTreeSet<EventNid>>,
}

impl<'a, G: Graph> AtHand<'a, G> {
    fn new(graph: &'a G) -> Self {
        Self { graph, missing: RefCell::default(), missing_nids: RefCell::default() }
    }

    /// Whether nothing has been missing so far.
    fn check(&self) -> Result<(), ResolveError> {
        let (ids, nids) = (self.missing.take(), self.missing_nids.take());
        if !ids.is_empty() {
            return Err(ResolveError::Need(Need::Events(ids.into_iter().collect())));
        }
        match nids.is_empty() {
            true => Ok(()),
            false => Err(ResolveError::Need(Need::EventNids(nids.into_iter().collect()))),
        }
    }

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

    fn event_by_nid(&self, nid: EventNid) -> Option<Arc<Pdu>> {
        match self.graph.event_by_nid(nid) {
            Lookup::Found(pdu) => Some(pdu),
            Lookup::Unobtainable => None,
            Lookup::Missing => {
                self.missing_nids.borrow_mut().insert(nid);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
