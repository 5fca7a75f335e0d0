//! The iterative auth checks, in a form that can be gone on with: which events have been allowed at which place, and who
//! looked at what. If something changes, those are judged again who look at it, and those who look at what they say.
//!
//! Invariant: afterwards each event is allowed or not as in one pass over all of them in their order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use myelin_core::{EventNid, StateKeyNid};
use roaring::RoaringTreemap;
use ruma::events::StateEventType;

use super::{
    Basis,
    held::Held,
    order::{Mainline, Place, Placed, by_power, labels},
};
use crate::{
    Pdu,
    auth::{auth_types, authorize_by_state},
    resolve::{
        Graph,
        conflict::{self, Key},
    },
};

type Span<'a> = (Bound<&'a Placed>, Bound<&'a Placed>);

#[derive(Clone, Default)]
pub struct Checks {
    held: OrdMap<EventNid, Arc<Held>>,
    placed: OrdMap<EventNid, Placed>,
    power_events: RoaringTreemap,
    /// The labels of the power events and of what is in their auth chains.
    labels: OrdMap<EventNid, u64>,
    /// `None` until the power events have been judged.
    mainline: Option<Mainline>,
    /// Who looks at a key.
    readers: OrdMap<StateKeyNid, OrdSet<Placed>>,
    /// Who was allowed to set it.
    allowed: OrdMap<StateKeyNid, OrdSet<Placed>>,
}

/// What is to be taken in.
#[derive(Default)]
pub struct Turn {
    pub gone: RoaringTreemap,
    pub come: Vec<Arc<Held>>,
    /// The keys whose agreed events may be others.
    pub changed: BTreeSet<StateKeyNid>,
}

/// What a change bears on.
#[derive(Default)]
struct Ripple {
    /// To be judged (again).
    pending: BTreeSet<Placed>,
    /// Keys that others set, or nobody any more.
    written: BTreeSet<StateKeyNid>,
}

impl Checks {
    /// The keys for which the outcome may be another now; `None` if this has to begin anew.
    pub fn turn<G: Graph>(&mut self, turn: Turn, basis: &Basis<'_, G>) -> Option<BTreeSet<StateKeyNid>> {
        let mut ripple = Ripple::default();
        for nid in turn.gone.iter().map(EventNid) {
            self.withdraw(nid, &mut ripple);
            self.held.remove(&nid);
            self.power_events.remove(nid.0);
        }
        let mut unplaced: Vec<EventNid> = turn.come.iter().map(|held| held.nid).collect();
        for held in turn.come {
            if held.is_power_event {
                self.power_events.insert(held.nid.0);
            }
            self.held.insert(held.nid, held);
        }
        unplaced.extend(self.order_power_events(&mut ripple)?);
        turn.changed.iter().for_each(|key| self.mark(*key, None, &mut ripple));
        self.judge(&mut ripple, basis, Placed::is_power);
        self.order_the_rest(&unplaced, &mut ripple, basis)?;
        self.judge(&mut ripple, basis, |_| true);
        Some(ripple.written)
    }

    /// Who has set a key in the end.
    pub fn outcome(&self, key: StateKeyNid) -> Option<EventNid> {
        Some(self.allowed.get(&key)?.get_max()?.held().nid)
    }

    /// Whether the mainline says where this event stands.
    pub fn knows_place_of(&self, held: &Held) -> bool {
        self.mainline.as_ref().is_some_and(|mainline| mainline.is_next_to(held))
    }

    /// Gives those that belong to the rest now.
    fn order_power_events(&mut self, ripple: &mut Ripple) -> Option<Vec<EventNid>> {
        let phase = self.power_phase();
        if phase.len() == self.labels.len() && phase.keys().all(|nid| self.labels.contains_key(nid)) {
            return Some(Vec::new());
        }
        let order = by_power(&phase);
        let labels = labels(&order, |nid| self.labels.get(&nid).copied())?;
        let before = std::mem::replace(&mut self.labels, order.iter().copied().zip(labels.clone()).collect());
        let left: Vec<EventNid> = before.keys().copied().filter(|nid| !phase.contains_key(nid)).collect();
        left.iter().for_each(|nid| self.withdraw(*nid, ripple));
        for (nid, label) in order.into_iter().zip(labels) {
            // A label that is there stays.
            if !before.contains_key(&nid) {
                self.withdraw(nid, ripple);
                self.place(nid, Place::Power(label), ripple);
            }
        }
        Some(left.into_iter().filter(|nid| self.held.contains_key(nid)).collect())
    }

    /// The power events and what of the full conflicted set is in their auth chains.
    fn power_phase(&self) -> BTreeMap<EventNid, Arc<Held>> {
        let mut phase = BTreeMap::new();
        let mut pending: Vec<EventNid> = self.power_events.iter().map(EventNid).collect();
        while let Some(nid) = pending.pop() {
            let Some(held) = self.held.get(&nid).filter(|_| !phase.contains_key(&nid)) else { continue };
            pending.extend(&held.auth);
            phase.insert(nid, held.clone());
        }
        phase
    }

    /// `None` if the power levels are others now, and with them the order of all.
    fn order_the_rest<G: Graph>(
        &mut self,
        unplaced: &[EventNid],
        ripple: &mut Ripple,
        basis: &Basis<'_, G>,
    ) -> Option<()> {
        let levels = basis.levels_key().and_then(|key| self.look(key, None, basis));
        let mainline = match &self.mainline {
            None => Mainline::of(levels, basis.at_hand),
            Some(mainline) => {
                let same = mainline.levels == levels.map(|(nid, _)| nid);
                Some(mainline.clone()).filter(|_| same)?
            }
        };
        let (mut known, labels) = (HashMap::new(), self.labels.clone());
        for nid in unplaced.iter().filter(|nid| !labels.contains_key(*nid)) {
            let Some(held) = self.held.get(nid) else { continue };
            let place = Place::Rest(mainline.position(held, basis.at_hand, &mut known));
            self.place(*nid, place, ripple);
        }
        self.mainline = Some(mainline);
        Some(())
    }

    fn place(&mut self, nid: EventNid, place: Place, ripple: &mut Ripple) {
        // What is no state event sets nothing.
        let Some(held) = self.held.get(&nid).filter(|held| held.key.is_some()) else { return };
        let placed = Placed::new(place, held.clone());
        for key in &placed.held().reads {
            self.readers.entry(*key).or_default().insert(placed.clone());
        }
        ripple.pending.insert(placed.clone());
        self.placed.insert(nid, placed);
    }

    fn withdraw(&mut self, nid: EventNid, ripple: &mut Ripple) {
        let Some(placed) = self.placed.remove(&nid) else { return };
        for key in &placed.held().reads {
            if let Some(readers) = self.readers.get_mut(key) {
                readers.remove(&placed);
            }
        }
        self.set_allowed(&placed, false, ripple);
        ripple.pending.remove(&placed);
    }

    fn set_allowed(&mut self, placed: &Placed, is_allowed: bool, ripple: &mut Ripple) {
        let Some(key) = placed.held().key else { return };
        let allowed = self.allowed.entry(key).or_default();
        let changed = match is_allowed {
            true => allowed.insert(placed.clone()).is_none(),
            false => allowed.remove(placed).is_some(),
        };
        if changed {
            ripple.written.insert(key);
            self.mark(key, Some(placed), ripple);
        }
    }

    /// Those who look at a key after one who sets it, or from the beginning on, until another one sets it.
    fn mark(&self, key: StateKeyNid, from: Option<&Placed>, ripple: &mut Ripple) {
        let Some(readers) = self.readers.get(&key) else { return };
        let from = from.map_or(Unbounded, Excluded);
        let next = self
            .allowed
            .get(&key)
            .and_then(|allowed| allowed.range::<Span<'_>, Placed>((from, Unbounded)).next());
        // The next one that sets it looks at it before.
        let until = next.map_or(Unbounded, Included);
        ripple.pending.extend(readers.range::<Span<'_>, Placed>((from, until)).cloned());
    }

    fn judge<G: Graph>(&mut self, ripple: &mut Ripple, basis: &Basis<'_, G>, which: fn(&Placed) -> bool) {
        while let Some(placed) = ripple.pending.first().filter(|placed| which(placed)).cloned() {
            ripple.pending.remove(&placed);
            let is_allowed = self.allows(&placed, basis);
            self.set_allowed(&placed, is_allowed, ripple);
        }
    }

    /// One step of the iterative auth checks.
    fn allows<G: Graph>(&self, placed: &Placed, basis: &Basis<'_, G>) -> bool {
        let (pdu, rules) = (&placed.held().pdu, basis.rules);
        // A malformed event is allowed nowhere.
        let Ok(types) =
            auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content)
        else {
            return false;
        };
        let of_auth_events = Held::by(pdu, rules).filter_map(|id| basis.at_hand.event(&id));
        let mut auth: HashMap<Key, Arc<Pdu>> = of_auth_events
            .filter(|event| !event.rejected)
            .filter_map(|event| Some((conflict::key_of(&event)?, event)))
            .collect();
        for key in types {
            let event = basis.key(&key.0, &key.1).and_then(|nid| self.look(nid, Some(placed), basis));
            if let Some((_, event)) = event.filter(|(_, event)| !event.rejected) {
                auth.insert(key, event);
            }
        }
        let fetch = |event_type: &StateEventType, state_key: &str| {
            auth.get(&(event_type.clone(), state_key.to_owned()))
        };
        authorize_by_state(rules, pdu, fetch).is_ok()
    }

    /// What a key has before the event at a place, or after all that have been judged.
    fn look<G: Graph>(
        &self,
        key: StateKeyNid,
        before: Option<&Placed>,
        basis: &Basis<'_, G>,
    ) -> Option<(EventNid, Arc<Pdu>)> {
        let allowed = self.allowed.get(&key);
        let set = allowed.and_then(|allowed| match before {
            Some(before) => allowed.range::<Span<'_>, Placed>((Unbounded, Excluded(before))).next_back(),
            None => allowed.get_max(),
        });
        match set {
            Some(placed) => Some((placed.held().nid, placed.held().pdu.clone())),
            None => {
                let nid = basis.agreed(key)?;
                Some((nid, basis.at_hand.event_by_nid(nid)?))
            }
        }
    }
}
