//! An event whose ancestors are not held: brings them, then receives them in order, and the event last (Server-Server
//! API, "Retrieving missing events").
//!
//! First the events between it and what is held are asked for, a stretch at a time. If that does not close the gap,
//! the states before the events at its far end are, and the rest is left to backfill.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use myelin_dag::checks::VerifiedPdu;
use myelin_rooms::{Error, Incoming, Received};
use myelin_store::{Direction, tables::TIMELINE};
use myelin_view::RoomSnapshot;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::{
    Inbound,
    fetch::{MissingEvents, missing_events},
    verification::{KeylessPdu, Verified},
};
use crate::keys::Wanted;

/// Events between what is held and an event that came, their bytes, and how often servers are asked for more.
const EVENTS_MAX: usize = 500;
const BYTES_MAX: usize = 8 * 1024 * 1024;
const ROUNDS_MAX: usize = 40;
/// Events asked for at a time. Synapse gives twenty at most.
const AT_ONCE: usize = 50;
/// How long they are asked: a part of what one event may take. What came by then is kept, the state before it fetched, and
/// the rest is left to backfill.
const WALK_BUDGET: Duration = Duration::from_secs(60);
/// Servers that are asked.
const SERVERS_MAX: usize = 4;
/// Times that one event's ancestors are brought: what came may be of no use.
const TRIES_MAX: u32 = 3;
/// Events in a row of which none could be received, after which those that come after the last are not tried either.
const FAILURES_MAX: usize = 5;
/// Attempts at which a server that does not answer, and may have the events in between, is waited for: what is left out
/// of the timeline is not filled in later.
const PATIENT_ATTEMPTS: u32 = 3;
/// Events received in one change of the room.
const CHUNK: usize = 50;

/// What became of an event that lacked ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    /// Judged; the verdict is stored.
    Received,
    /// Nobody gives what it needs. `for_good`: who was asked answered.
    Unavailable { for_good: bool, lacks: Vec<OwnedEventId> },
}

/// What has been fetched for one event.
pub struct Gap<'a> {
    pub(super) inbound: &'a Inbound,
    pub(super) room: &'a RoomSnapshot,
    pub(super) servers: Vec<OwnedServerName>,
    events: HashMap<OwnedEventId, VerifiedPdu>,
    bytes: usize,
    /// Bytes of states and auth chains.
    pub(super) state_bytes: usize,
    /// Who does not answer now is waited for, rather than done without.
    pub(super) patient: bool,
    /// Somebody who was asked did not answer.
    pub(super) unreachable: bool,
    /// Something that came could not be checked, as the keys of its server were not to be had.
    pub(super) keyless: bool,
    /// These keys are waited for; else what they signed is done without.
    pub(super) awaits_keys: bool,
}

impl Inbound {
    pub(super) async fn fill_and_receive(
        &self,
        room: &RoomSnapshot,
        pdu: VerifiedPdu,
        origin: &ServerName,
        attempts: u32,
    ) -> Result<Filled, Error> {
        let mut incoming = [Incoming::from(pdu.clone())];
        self.ask_policy_server(room, &mut incoming).await?;
        let answer = self.receive_all(room.nid(), &incoming).await?.pop();
        let Some(Received::Need(lacks)) = answer else { return Ok(Filled::Received) };
        let servers = [origin, pdu.pdu().sender.server_name()];
        let servers = self.likely_servers(room, &servers, SERVERS_MAX).await?;
        let mut gap = Gap::new(self, room, servers);
        gap.patient = attempts < PATIENT_ATTEMPTS;
        let id = pdu.pdu().event_id.clone();
        gap.take(pdu);
        // If its time is over the walk stays where it is.
        self.view.env.timeout(WALK_BUDGET, gap.walk_back()).await.transpose()?;
        if gap.patient && gap.unreachable && !gap.open_ends().await?.is_empty() {
            return Ok(Filled::Unavailable { for_good: false, lacks });
        }
        let received = gap.receive(&id).await?;
        Ok(match received {
            true => Filled::Received,
            false => Filled::Unavailable { for_good: !gap.unreachable && !gap.awaits_keys, lacks },
        })
    }
}

impl<'a> Gap<'a> {
    pub(super) fn new(inbound: &'a Inbound, room: &'a RoomSnapshot, servers: Vec<OwnedServerName>) -> Self {
        Self {
            inbound,
            room,
            servers,
            events: HashMap::new(),
            bytes: 0,
            state_bytes: 0,
            patient: true,
            unreachable: false,
            keyless: false,
            awaits_keys: false,
        }
    }

    pub(super) fn note_keyless(&mut self, keyless: &[KeylessPdu]) {
        let now_ms = self.inbound.view.env.now_ms();
        for Wanted { server, .. } in keyless.iter().flat_map(|pdu| &pdu.wanted) {
            self.keyless = true;
            self.awaits_keys |= self.inbound.keyless.is_awaited(server, now_ms);
        }
    }

    fn take(&mut self, pdu: VerifiedPdu) {
        self.bytes += pdu.pdu().json.len();
        self.events.insert(pdu.pdu().event_id.clone(), pdu);
    }

    /// Asks for the events before those at the far end until what is held is reached, or a limit.
    async fn walk_back(&mut self) -> Result<(), Error> {
        let earliest = self.held_extremities().await?;
        let min_depth = self.oldest_depth().await?;
        for _ in 0..ROUNDS_MAX {
            let latest = self.open_ends().await?;
            if latest.is_empty() || self.events.len() >= EVENTS_MAX || self.bytes >= BYTES_MAX {
                return Ok(());
            }
            let limit = AT_ONCE.min(EVENTS_MAX - self.events.len());
            let request =
                MissingEvents { earliest_events: &earliest, latest_events: &latest, limit, min_depth };
            if !self.ask_for_more(&request).await {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether anything new came from anybody.
    async fn ask_for_more(&mut self, request: &MissingEvents<'_>) -> bool {
        let info = &self.room.info;
        for server in self.servers.clone() {
            let answer = missing_events(&self.inbound.client, &server, &info.room_id, request).await;
            let mut raws = match answer {
                Ok(raws) => raws,
                Err(error) => {
                    tracing::debug!(%server, room = %info.room_id, %error, "no missing events");
                    self.unreachable |= !error.is_refusal();
                    continue;
                }
            };
            raws.truncate(request.limit);
            let before = self.events.len();
            let Verified { events, keyless } = self.inbound.verified_or_keyless(&raws, &info.rules).await;
            self.note_keyless(&keyless);
            for pdu in events {
                if pdu.pdu().room_id == info.room_id && !self.events.contains_key(&pdu.pdu().event_id) {
                    self.take(pdu);
                }
            }
            if self.events.len() > before {
                return true;
            }
        }
        false
    }

    /// The events here that refer to one which is neither here nor held in its place.
    async fn open_ends(&self) -> Result<Vec<OwnedEventId>, Error> {
        let mut open = Vec::new();
        for (id, pdu) in &self.events {
            for prev in &pdu.pdu().prev_events {
                if !self.events.contains_key(prev) && !self.is_in_place(prev).await? {
                    open.push(id.clone());
                    break;
                }
            }
        }
        // The order of a map is chance, and a simulation must not depend on it.
        open.sort_unstable();
        open.truncate(AT_ONCE);
        Ok(open)
    }

    pub(super) async fn is_in_place(&self, id: &EventId) -> Result<bool, Error> {
        let held = self.inbound.view.events.load_by_id(id).await?;
        Ok(held.is_some_and(|held| held.carries(self.room.partial)))
    }

    async fn held_extremities(&self) -> Result<Vec<OwnedEventId>, Error> {
        let head = self.inbound.view.rooms.load(self.room.nid()).await?;
        let extremities = head.map(|room| room.head.extremities.clone()).unwrap_or_default();
        let events = self.inbound.view.events.load_many(&extremities).await?;
        Ok(events.into_iter().flatten().map(|event| event.pdu.event_id.clone()).take(AT_ONCE).collect())
    }

    /// Older history than what is held is no gap.
    async fn oldest_depth(&self) -> Result<u64, Error> {
        let view = &self.inbound.view;
        let oldest = view.store.scan(&TIMELINE, &self.room.nid(), Direction::Forward, 1).await?;
        let Some((_, nid)) = oldest.first() else { return Ok(0) };
        Ok(view.events.load(*nid).await?.map_or(0, |event| event.pdu.depth))
    }

    /// Receives everything here, parents first. Whether `wanted` was judged.
    async fn receive(&mut self, wanted: &EventId) -> Result<bool, Error> {
        let mut rest = self.in_order();
        if !rest.iter().any(|id| id == wanted) {
            // It comes after a circle that somebody made up, which is not to be had: the state before that may be.
            rest.push(wanted.to_owned());
        }
        // How many before it were given up in a row: what a liar mixes in counts for itself only.
        let mut given_up: HashMap<OwnedEventId, usize> = HashMap::new();
        let mut tries: HashMap<OwnedEventId, u32> = HashMap::new();
        while !rest.is_empty() {
            let mut chunk: Vec<Incoming> = self.chunk(&rest);
            self.inbound.ask_policy_server(self.room, &mut chunk).await?;
            let answers = self.inbound.receive_all(self.room.nid(), &chunk).await?;
            let stuck = answers.iter().position(|answer| matches!(answer, Received::Need(_)));
            let Some(index) = stuck else {
                rest.drain(..chunk.len().min(rest.len()));
                continue;
            };
            rest.drain(..index);
            let stuck = &chunk[index].pdu;
            let missing = match answers.into_iter().nth(index) {
                Some(Received::Need(missing)) => missing,
                _ => Vec::new(),
            };
            let tries = tries.entry(stuck.pdu().event_id.clone()).or_default();
            *tries += 1;
            // Of an event whose own ancestors nobody has, somebody may still know the state before it.
            let failures = missing.iter().filter_map(|id| given_up.get(id)).max().copied().unwrap_or(0);
            let lost = *tries > TRIES_MAX || failures >= FAILURES_MAX;
            if lost || !self.bring(stuck, &missing).await? {
                given_up.insert(stuck.pdu().event_id.clone(), failures + 1);
                rest.remove(0);
            }
        }
        Ok(!given_up.contains_key(wanted))
    }

    fn chunk(&self, ids: &[OwnedEventId]) -> Vec<Incoming> {
        let pdus = ids.iter().take(CHUNK).filter_map(|id| self.events.get(id));
        pdus.map(|pdu| pdu.clone().into()).collect()
    }

    fn in_order(&self) -> Vec<OwnedEventId> {
        in_order(self.events.values().map(|pdu| {
            let pdu = pdu.pdu();
            (&*pdu.event_id, pdu.depth, &*pdu.prev_events)
        }))
    }
}

/// Of events with their depths and prev events, parents before children. What goes in circles, or comes after a circle, is
/// left out: hashes rule that out, but in the first two room versions ids are what somebody said.
fn in_order<'a>(events: impl Iterator<Item = (&'a EventId, u64, &'a [OwnedEventId])>) -> Vec<OwnedEventId> {
    let events: HashMap<&EventId, (u64, &[OwnedEventId])> =
        events.map(|(id, depth, prev_events)| (id, (depth, prev_events))).collect();
    let mut waiting: HashMap<&EventId, usize> = HashMap::new();
    let mut children: HashMap<&EventId, Vec<&EventId>> = HashMap::new();
    for (id, (_, prev_events)) in &events {
        let parents: BTreeSet<&EventId> = prev_events.iter().map(|id| &**id).collect();
        let parents: Vec<_> = parents.into_iter().filter(|parent| events.contains_key(parent)).collect();
        waiting.insert(id, parents.len());
        parents.into_iter().for_each(|parent| children.entry(parent).or_default().push(id));
    }
    let key = |id| (events.get(id).map_or(0, |(depth, _)| *depth), id);
    let ready = waiting.iter().filter(|(_, parents)| **parents == 0).map(|(id, _)| key(*id));
    let mut ready: BTreeSet<(u64, &EventId)> = ready.collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some((_, id)) = ready.pop_first() {
        for child in children.get(id).into_iter().flatten() {
            let Some(parents) = waiting.get_mut(child) else { continue };
            *parents -= 1;
            if *parents == 0 {
                ready.insert(key(child));
            }
        }
        order.push(id.to_owned());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids by their names, in order; each event is given with its depth and its prev events.
    fn order(events: &[(&str, u64, &[&str])]) -> Vec<String> {
        let id = |name: &str| OwnedEventId::try_from(format!("${name}:x.test")).expect("an event id");
        let events: Vec<(OwnedEventId, u64, Vec<OwnedEventId>)> = events
            .iter()
            .map(|(name, depth, prev)| (id(name), *depth, prev.iter().map(|name| id(name)).collect()))
            .collect();
        let order = in_order(events.iter().map(|(id, depth, prev)| (&**id, *depth, &**prev)));
        order.iter().map(|id| id.as_str()[1..2].to_owned()).collect()
    }

    #[test]
    fn parents_come_before_their_children() {
        let events: [(_, _, &[&str]); 4] =
            [("d", 1, &["b", "c", "c"]), ("c", 9, &["a"]), ("b", 10, &["a", "elsewhere"]), ("a", 11, &[])];
        assert_eq!(order(&events), ["a", "c", "b", "d"], "depth decides only where parents do not");
    }

    #[test]
    fn circles_and_what_comes_after_them_are_left_out() {
        let events: [(_, _, &[&str]); 5] =
            [("a", 1, &[]), ("b", 2, &["a", "c"]), ("c", 3, &["b"]), ("d", 4, &["c"]), ("e", 5, &["e"])];
        assert_eq!(order(&events), ["a"]);
    }
}
