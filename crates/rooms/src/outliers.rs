//! Outliers: events that are held because others refer to them (auth events, the state of a room that is joined), without
//! a place in the timeline and without a state of their own (Server-Server API, "Outliers" of the definitions).
//!
//! Checked are signatures (by the type), the state-independent rules and authorisation by their own auth events; what
//! fails is kept as rejected. No head is touched, so no turn at the room is needed.
//!
//! Must not know: networks, or where keys come from.

mod order;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_core::{EventNid, Position, StateKeyNid, UserNid};
use myelin_dag::{
    AuthChain, Pdu,
    checks::{VerifiedPdu, missing_auth_events},
};
use myelin_store::{
    Batch, CommitError, NidKind,
    tables::{AUTH_CHAINS, EVENT_NIDS, EVENTS, Placement, VerdictRecord},
};
use myelin_view::{Event, RoomInfo, StateKey};
use ruma::{OwnedEventId, OwnedUserId};

use self::order::{Ordered, in_order};
use crate::{Error, Rooms};

/// Events written in one commit.
const COMMIT_EVENTS_MAX: usize = 500;
/// Tries against others who store the same events.
const ATTEMPTS_MAX: usize = 8;

/// What became of events that were offered as outliers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outliers {
    /// Held now as rejected, and why.
    pub rejected: Vec<(OwnedEventId, String)>,
    /// Auth events that are neither held nor offered. What depends on them was not stored.
    pub missing: Vec<OwnedEventId>,
    /// Not stored: of another room, dependent on what is missing, or on themselves.
    pub left_out: Vec<OwnedEventId>,
}

/// An event that others are authorised by.
struct Known {
    nid: EventNid,
    pdu: Arc<Pdu>,
    chain: Arc<AuthChain>,
}

/// A checked event with its numbers, ready to be stored.
struct Ready {
    event: Event,
    chain: Option<Arc<AuthChain>>,
    is_new: bool,
}

/// What a round goes over.
struct Offer<'a> {
    info: &'a RoomInfo,
    graph: &'a HashMap<OwnedEventId, Vec<OwnedEventId>>,
    offered: &'a HashMap<OwnedEventId, VerifiedPdu>,
    /// Numbers of what is held, also of what is held without its auth chain.
    held: &'a HashMap<OwnedEventId, EventNid>,
}

impl Rooms {
    /// Stores events of a room that is known by name (see [`Rooms::know_room`]), in few commits. Idempotent: what is
    /// held already stays as it is.
    pub async fn take_outliers(&self, info: &RoomInfo, events: Vec<VerifiedPdu>) -> Result<Outliers, Error> {
        let mut outcome = Outliers::default();
        let (own, foreign): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| event.pdu().room_id == info.room_id);
        outcome.left_out.extend(foreign.iter().map(|event| event.pdu().event_id.clone()));
        let mut offered: HashMap<OwnedEventId, VerifiedPdu> =
            own.into_iter().map(|event| (event.pdu().event_id.clone(), event)).collect();
        for _ in 0..ATTEMPTS_MAX {
            match self.try_outliers(info, &mut offered, &mut outcome).await {
                Err(Error::Busy) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(outcome),
            }
        }
        Err(Error::Busy)
    }

    /// Those of some events that nothing can be authorised by: not held, or for themselves alone (an invite from outside).
    pub async fn without_authority(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let known = self.known(&self.view.interner.lookup_events(ids).await?).await?;
        Ok(ids.iter().filter(|id| !known.contains_key(*id)).cloned().collect())
    }

    async fn try_outliers(
        &self,
        info: &RoomInfo,
        offered: &mut HashMap<OwnedEventId, VerifiedPdu>,
        outcome: &mut Outliers,
    ) -> Result<(), Error> {
        let held = self.held(info, offered).await?;
        let mut known = self.known(&held).await?;
        offered.retain(|id, _| !known.contains_key(id));
        let auth = |event: &VerifiedPdu| missing_auth_events(event.pdu(), &info.rules, |_| false);
        let graph = offered.iter().map(|(id, event)| (id.clone(), auth(event))).collect();
        let Ordered { order, missing, left_out } = in_order(&graph, |id| known.contains_key(id));
        for ids in order.chunks(COMMIT_EVENTS_MAX) {
            let offer = Offer { info, graph: &graph, offered, held: &held };
            let ready = self.ready(&offer, ids, &mut known, outcome).await?;
            self.store_outliers(ready).await?;
            ids.iter().for_each(|id| drop(offered.remove(id)));
        }
        outcome.missing = missing;
        outcome.left_out.extend(left_out);
        Ok(())
    }

    /// Which of the offered events and of their auth events are held.
    async fn held(
        &self,
        info: &RoomInfo,
        offered: &HashMap<OwnedEventId, VerifiedPdu>,
    ) -> Result<HashMap<OwnedEventId, EventNid>, Error> {
        let auth =
            offered.values().flat_map(|event| missing_auth_events(event.pdu(), &info.rules, |_| false));
        let ids: BTreeSet<_> = offered.keys().cloned().chain(auth).collect();
        Ok(self.view.interner.lookup_events(&ids.into_iter().collect::<Vec<_>>()).await?)
    }

    /// What others can be authorised by. An event without its auth chain cannot: it is held for itself alone.
    async fn known(
        &self,
        held: &HashMap<OwnedEventId, EventNid>,
    ) -> Result<HashMap<OwnedEventId, Known>, Error> {
        let nids: Vec<_> = held.values().copied().collect();
        let events = self.view.events.load_many(&nids).await?;
        let chains = self.chains.lookup_many(&nids).await?;
        let known = events.into_iter().zip(chains).filter_map(|(event, chain)| {
            let event = event?;
            let chain = chain.or_else(|| (!event.pdu.is_state()).then(Arc::default))?;
            let known = Known { nid: event.nid, pdu: event.pdu.clone(), chain };
            Some((event.pdu.event_id.clone(), known))
        });
        Ok(known.collect())
    }

    async fn ready(
        &self,
        offer: &Offer<'_>,
        ids: &[OwnedEventId],
        known: &mut HashMap<OwnedEventId, Known>,
        outcome: &mut Outliers,
    ) -> Result<Vec<Ready>, Error> {
        let events: Vec<_> = ids.iter().filter_map(|id| offer.offered.get(id)).collect();
        let numbers = self.numbers(&events).await?;
        let mut ready = Vec::with_capacity(ids.len());
        for (event, (sender, state_key)) in events.into_iter().zip(numbers) {
            let (pdu, verdict) = judge(offer.info, event, known);
            if let VerdictRecord::Rejected { reason } = &verdict {
                outcome.rejected.push((pdu.event_id.clone(), reason.clone()));
            }
            let bare = offer.held.get(&pdu.event_id).copied();
            let nid = match bare {
                Some(nid) => nid,
                None => EventNid(self.view.nids.allocate(NidKind::Event).await?),
            };
            let pdu = Arc::new(pdu);
            let chain = Arc::new(chain_of(&offer.graph[&pdu.event_id], known));
            known.insert(pdu.event_id.clone(), Known { nid, pdu: pdu.clone(), chain: chain.clone() });
            let chain = state_key.map(|_| chain);
            let event = Event::new(nid, offer.info.nid, sender, state_key, None, verdict, None, pdu);
            ready.push(Ready { event, chain, is_new: bare.is_none() });
        }
        Ok(ready)
    }

    /// Sender and state key of each, given out in bulk.
    async fn numbers(&self, events: &[&VerifiedPdu]) -> Result<Vec<(UserNid, Option<StateKeyNid>)>, Error> {
        let senders: Vec<OwnedUserId> = events.iter().map(|event| event.pdu().sender.clone()).collect();
        let names = events.iter().map(|event| {
            let event_type = event.pdu().event_type.to_string();
            Some(StateKey { event_type, state_key: event.pdu().state_key.clone()? })
        });
        let names: Vec<_> = names.collect();
        let given: Vec<_> = names.iter().flatten().cloned().collect();
        let senders = self.view.interner.users(&senders).await?;
        let mut keys = self.view.interner.state_keys(&given).await?.into_iter();
        let keys: Vec<_> = names.iter().map(|name| name.as_ref().and_then(|_| keys.next())).collect();
        Ok(senders.into_iter().zip(keys).collect())
    }

    async fn store_outliers(&self, ready: Vec<Ready>) -> Result<(), Error> {
        let mut batch = Batch::new();
        for Ready { event, chain, is_new } in &ready {
            let id = event.pdu.event_id.as_str().to_owned();
            if *is_new {
                batch.require_absent(&EVENT_NIDS, &id);
                batch.put(&EVENT_NIDS, &id, &event.nid);
            } else {
                batch.require_absent(&AUTH_CHAINS, &event.nid);
            }
            batch.put(&EVENTS, &event.nid, &event.row(Placement::Outside, Position::ZERO));
            if let Some(chain) = chain {
                batch.put(&AUTH_CHAINS, &event.nid, &chain.to_bytes());
            }
        }
        match self.view.store.commit(batch).await {
            Ok(_) => {
                let rewritten = ready.iter().filter(|ready| !ready.is_new);
                rewritten.for_each(|ready| self.view.events.forget(ready.event.nid));
                Ok(())
            }
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

fn judge(info: &RoomInfo, event: &VerifiedPdu, known: &HashMap<OwnedEventId, Known>) -> (Pdu, VerdictRecord) {
    let fetch = |id: &ruma::EventId| known.get(id).map(|known| known.pdu.clone());
    match event.clone().authorize(&info.rules, fetch) {
        Ok(authorized) => (authorized.into_pdu(), VerdictRecord::Accepted),
        Err(unauthorized) => {
            let reason = unauthorized.rejection.reason;
            (*unauthorized.pdu, VerdictRecord::Rejected { reason })
        }
    }
}

fn chain_of(auth: &[OwnedEventId], known: &HashMap<OwnedEventId, Known>) -> AuthChain {
    let auth = auth.iter().filter_map(|id| known.get(id));
    AuthChain::of(auth.map(|known| (known.nid, &*known.chain)))
}
