//! What a partially joined room lacks for want of keys, as it was given. It may be as good as the rest: whoever asks for a
//! state of the room gets it, too, and checks it for itself; when the keys are here it is taken in.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{AuthChain, Pdu, StateTree, checks::missing_auth_events};
use myelin_store::{
    Direction,
    tables::{LEFT_OUT, LeftOutRecord, PARTIAL_ROOMS, PartialRoomRecord},
};
use myelin_view::RoomInfo;
use ruma::{EventId, OwnedEventId};

use crate::{Error, Rooms, writer::Draft};

/// Rooms in which one event was left out: in room versions 1 and 2 servers choose the names of their events.
const ROOMS_MAX: usize = 20;

/// An event that was given and is not held.
#[derive(Debug, Clone)]
pub struct LeftOut {
    pub event_id: OwnedEventId,
    /// As it travels. Nobody vouches for it.
    pub json: Arc<str>,
    /// Part of the state; else of what authorises that.
    pub of_state: bool,
}

/// What belongs to a state besides what is held of it. Nobody vouches for the events.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    pub state: Vec<Pdu>,
    pub auth_chain: Vec<Pdu>,
    /// What is held of the auth chains of these.
    pub held: AuthChain,
}

impl LeftOut {
    pub(super) fn ids(left_out: &[Self]) -> Vec<String> {
        left_out.iter().map(|left_out| left_out.event_id.to_string()).collect()
    }
}

impl Rooms {
    pub async fn left_out(&self, room: RoomNid, record: &PartialRoomRecord) -> Result<Vec<LeftOut>, Error> {
        let keys: Vec<_> = record.left_out.iter().map(|id| (id.clone(), room)).collect();
        let rows = self.view.store.multi_get(&LEFT_OUT, &keys).await?;
        let left_out = record.left_out.iter().zip(rows).filter_map(|(id, row)| {
            let LeftOutRecord { json, of_state } = row?;
            Some(LeftOut { event_id: id.as_str().try_into().ok()?, json: json.into(), of_state })
        });
        Ok(left_out.collect())
    }

    /// An event that is not held, as it was given with the state of these rooms.
    pub async fn left_out_event(&self, event_id: &EventId) -> Result<Vec<(RoomNid, Arc<str>)>, Error> {
        let id = event_id.to_string();
        let rows = self.view.store.scan(&LEFT_OUT, &id, Direction::Forward, ROOMS_MAX).await?;
        Ok(rows.into_iter().map(|((_, room), row)| (room, row.json.into())).collect())
    }

    /// What a state lacks for want of keys.
    pub async fn beside(&self, info: &RoomInfo, state: &StateTree) -> Result<Beside, Error> {
        let Some(record) = self.view.store.get(&PARTIAL_ROOMS, &info.nid).await? else {
            return Ok(Beside::default());
        };
        if record.left_out.is_empty() || !self.follows(&record, state).await? {
            return Ok(Beside::default());
        }
        let mut beside = Beside::default();
        for LeftOut { event_id, json, of_state } in self.left_out(info.nid, &record).await? {
            let Ok(pdu) = Pdu::parse(json, event_id, &info.rules) else { continue };
            // What came since stands in its place.
            match of_state && !self.has_entry_for(&pdu, state).await? {
                true => beside.state.push(pdu),
                false => beside.auth_chain.push(pdu),
            }
        }
        beside.held = self.held_authority(beside.state.iter().chain(&beside.auth_chain), info).await?;
        Ok(beside)
    }

    /// Whether a state is the one that lacks something, or comes after it: since the join, the joined user's membership is
    /// that or a later one.
    async fn follows(&self, record: &PartialRoomRecord, state: &StateTree) -> Result<bool, Error> {
        let Some(join) = self.view.events.load(record.join).await? else { return Ok(false) };
        let own = join.state_key.and_then(|key| state.get(key));
        Ok(own.is_some_and(|member| member >= record.join) || join.state_before == Some(state.root()))
    }

    async fn has_entry_for(&self, pdu: &Pdu, state: &StateTree) -> Result<bool, Error> {
        let Some(state_key) = &pdu.state_key else { return Ok(true) };
        let event_type = pdu.event_type.to_string();
        let key = self.view.interner.lookup_state_key(&event_type, state_key).await?;
        Ok(key.is_some_and(|key| state.get(key).is_some()))
    }

    async fn held_authority<'a>(
        &self,
        pdus: impl Iterator<Item = &'a Pdu>,
        info: &RoomInfo,
    ) -> Result<AuthChain, Error> {
        let ids: BTreeSet<_> =
            pdus.flat_map(|pdu| missing_auth_events(pdu, &info.rules, |_| false)).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let nids: Vec<EventNid> = self.view.interner.lookup_events(&ids).await?.into_values().collect();
        let chains = self.chains.lookup_many(&nids).await?;
        let held = nids.into_iter().zip(&chains).filter_map(|(nid, chain)| Some((nid, chain.as_deref()?)));
        Ok(AuthChain::of(held))
    }
}

impl Draft<'_> {
    /// In the place of what was left out before.
    pub(super) fn leave_out(&mut self, before: &[String], now: &[LeftOut]) {
        let room = self.room.nid();
        let kept: HashSet<&str> = now.iter().map(|left_out| left_out.event_id.as_str()).collect();
        for id in before.iter().filter(|id| !kept.contains(id.as_str())) {
            self.batch.delete(&LEFT_OUT, &(id.clone(), room));
        }
        for LeftOut { event_id, json, of_state } in now {
            let record = LeftOutRecord { json: json.to_string(), of_state: *of_state };
            self.batch.put(&LEFT_OUT, &(event_id.to_string(), room), &record);
        }
    }
}
