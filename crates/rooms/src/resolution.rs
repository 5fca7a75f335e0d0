//! Drives state resolution: brings what the pure algorithm asks for, and asks again.

mod kept;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_core::{EventNid, StateKeyNid};
use myelin_dag::{
    AuthChain, Pdu, StateTree,
    resolve::{Graph, Lookup, Need, Resolution, ResolveError},
    state_tree::NodeHash,
};
use myelin_view::Event;
use ruma::{EventId, OwnedEventId, events::StateEventType};

pub use self::kept::Resolutions;
use crate::{Error, writer::Draft};

/// Rounds of asking; each brings a level of what is missing.
const ROUNDS_MAX: usize = 1_000;
/// Of more events than this a resolution takes milliseconds: others do not wait for it.
const IN_PLACE_MAX: usize = 100;

type Key = (StateEventType, String);

/// What has been brought so far.
#[derive(Default)]
struct AtHand {
    by_nid: HashMap<EventNid, Arc<Pdu>>,
    /// `None`: not held.
    nids: HashMap<OwnedEventId, Option<EventNid>>,
    chains: HashMap<EventNid, Arc<AuthChain>>,
    keys: HashMap<StateKeyNid, Key>,
    /// `None`: never interned.
    key_nids: HashMap<Key, Option<StateKeyNid>>,
    /// Keys that were asked for in vain: the answer has no way to say so.
    wanted: RefCell<BTreeSet<Key>>,
}

impl Graph for AtHand {
    fn event(&self, id: &EventId) -> Lookup<Arc<Pdu>> {
        match self.nids.get(id) {
            Some(Some(nid)) => self.event_by_nid(*nid),
            Some(None) => Lookup::Unobtainable,
            None => Lookup::Missing,
        }
    }

    fn event_by_nid(&self, nid: EventNid) -> Lookup<Arc<Pdu>> {
        self.by_nid.get(&nid).map_or(Lookup::Missing, |pdu| Lookup::Found(pdu.clone()))
    }

    fn event_nid(&self, id: &EventId) -> Option<EventNid> {
        self.nids.get(id).copied().flatten()
    }

    fn auth_chain(&self, nid: EventNid) -> Option<Arc<AuthChain>> {
        self.chains.get(&nid).cloned()
    }

    fn state_key(&self, nid: StateKeyNid) -> Option<Key> {
        self.keys.get(&nid).cloned()
    }

    fn state_key_nid(&self, event_type: &StateEventType, state_key: &str) -> Option<StateKeyNid> {
        let key = (event_type.clone(), state_key.to_owned());
        match self.key_nids.get(&key) {
            Some(nid) => *nid,
            None => {
                self.wanted.borrow_mut().insert(key);
                None
            }
        }
    }
}

impl AtHand {
    /// Whether nothing was passed over because it is not held: once it is, the outcome may be another.
    fn is_whole(&self) -> bool {
        self.nids.values().all(Option::is_some)
    }
}

impl Draft<'_> {
    /// The state of the room from the states after several events.
    pub(crate) async fn resolve(&self, states: &[StateTree]) -> Result<StateTree, Error> {
        let mut roots: Vec<NodeHash> = states.iter().map(StateTree::root).collect();
        roots.sort_unstable();
        roots.dedup();
        if roots.len() < 2 {
            return Ok(states.first().cloned().unwrap_or_default());
        }
        if self.is_rejudging() {
            let anew = Arc::new(StateTree::new().into());
            return Ok(self.resolve_from(&anew, states).await?.0.state);
        }
        let kept = &self.rooms().resolutions;
        if let Some(state) = kept.outcome(&roots) {
            return Ok(state);
        }
        let since = kept.generation();
        let nearby =
            kept.nearby(self.room.nid(), &roots).unwrap_or_else(|| Arc::new(StateTree::new().into()));
        let (resolution, is_whole) = self.resolve_from(&nearby, states).await?;
        let state = resolution.state.clone();
        if is_whole {
            kept.keep(self.room.nid(), roots, resolution, since);
        }
        Ok(state)
    }

    async fn resolve_from(
        &self,
        nearby: &Arc<Resolution>,
        states: &[StateTree],
    ) -> Result<(Resolution, bool), Error> {
        let mut at_hand = AtHand::default();
        for _ in 0..ROUNDS_MAX {
            let outcome;
            (outcome, at_hand) = self.follow(nearby, states, at_hand).await?;
            let wanted = at_hand.wanted.take();
            match outcome {
                Ok(resolution) if wanted.is_empty() => return Ok((resolution, at_hand.is_whole())),
                Err(ResolveError::Need(need)) => {
                    self.bring_keys(&mut at_hand, wanted).await?;
                    self.bring(&mut at_hand, need).await?;
                }
                // Some keys looked as if there were none of them.
                _ if !wanted.is_empty() => self.bring_keys(&mut at_hand, wanted).await?,
                Ok(resolution) => return Ok((resolution, at_hand.is_whole())),
                Err(error) => return Err(Error::damaged(format!("the state cannot be resolved: {error}"))),
            }
        }
        Err(Error::damaged("state resolution asks without end"))
    }

    async fn follow(
        &self,
        nearby: &Arc<Resolution>,
        states: &[StateTree],
        at_hand: AtHand,
    ) -> Result<(Result<Resolution, ResolveError>, AtHand), Error> {
        let info = &self.room.info;
        if at_hand.by_nid.len() <= IN_PLACE_MAX {
            return Ok((nearby.follow(&info.rules, states, &at_hand), at_hand));
        }
        let (nearby, states, info) = (nearby.clone(), states.to_vec(), info.clone());
        let work = move || (nearby.follow(&info.rules, &states, &at_hand), at_hand);
        let done = self.rooms().view.env.blocking(work).await;
        done.ok_or_else(|| Error::damaged("the state cannot be resolved: that panics"))
    }

    async fn bring(&self, at_hand: &mut AtHand, need: Need) -> Result<(), Error> {
        match need {
            Need::EventNids(nids) => self.bring_events(at_hand, &nids).await,
            Need::Events(ids) => self.bring_by_id(at_hand, ids).await,
            Need::AuthChains(nids) => {
                let chains = self.rooms().chains.load_many(&nids).await?;
                at_hand.chains.extend(nids.into_iter().zip(chains));
                Ok(())
            }
            Need::StateKeys(nids) => self.bring_key_names(at_hand, &nids).await,
        }
    }

    async fn bring_events(&self, at_hand: &mut AtHand, nids: &[EventNid]) -> Result<(), Error> {
        let (mut pending, mut durable) = (Vec::new(), Vec::with_capacity(nids.len()));
        for nid in nids {
            match self.pending(*nid) {
                Some(event) => pending.push(event),
                None => durable.push(*nid),
            }
        }
        let held = self.rooms().view.events.load_many(&durable).await?;
        for (nid, event) in durable.iter().zip(held) {
            pending.push(event.ok_or_else(|| Error::damaged(format!("{nid:?} is missing")))?);
        }
        for event in pending {
            at_hand.nids.insert(event.pdu.event_id.clone(), Some(event.nid));
            at_hand.by_nid.insert(event.nid, self.as_judged(&event));
        }
        Ok(())
    }

    /// As the events that follow see it.
    fn as_judged(&self, event: &Event) -> Arc<Pdu> {
        match self.rejected.contains(&event.nid) {
            true => Arc::new((*event.pdu).clone().into_rejected()),
            false => event.pdu.clone(),
        }
    }

    async fn bring_by_id(&self, at_hand: &mut AtHand, ids: Vec<OwnedEventId>) -> Result<(), Error> {
        for id in ids {
            let held = self.find(&id).await?;
            at_hand.nids.insert(id, held.as_ref().map(|event| event.nid));
            at_hand.by_nid.extend(held.map(|event| (event.nid, self.as_judged(&event))));
        }
        Ok(())
    }

    async fn bring_key_names(&self, at_hand: &mut AtHand, nids: &[StateKeyNid]) -> Result<(), Error> {
        let names = self.rooms().view.interner.state_key_names(nids).await?;
        for (nid, name) in nids.iter().zip(names) {
            let key = (StateEventType::from(name.event_type.as_str()), name.state_key.clone());
            at_hand.key_nids.insert(key.clone(), Some(*nid));
            at_hand.keys.insert(*nid, key);
        }
        Ok(())
    }

    async fn bring_keys(&self, at_hand: &mut AtHand, wanted: BTreeSet<Key>) -> Result<(), Error> {
        for key in wanted {
            let nid = self.rooms().view.interner.lookup_state_key(&key.0.to_string(), &key.1).await?;
            if let Some(nid) = nid {
                at_hand.keys.insert(nid, key.clone());
            }
            at_hand.key_nids.insert(key, nid);
        }
        Ok(())
    }
}
