//! What an event at the far end of a gap needs: its auth events, and the states before its missing prev events
//! (Server-Server API, "Retrieving events": `state_ids`, `state`, `event_auth`, `event`).

use std::collections::{BTreeSet, HashMap};

use myelin_dag::checks::{FormedPdu, VerifiedPdu};
use myelin_rooms::{Error, Incoming, Placing};
use myelin_store::tables::PARTIAL_ROOMS;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::value::RawValue;

use super::{
    fetch::{self, StateIds},
    gap::Gap,
    verification::{Verified, formed},
};
use crate::{Budget, RequestError};

/// Events of one state with its auth chain.
const STATE_MAX: usize = 300_000;
/// A state of which more than one in so many events cannot be had is not believed.
const LACKING_ONE_IN: usize = 20;

/// Bytes of states and auth chains, from all servers, for one event that came.
const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a server told of the state before an event.
enum Told {
    Placed,
    /// A whole state, in which the event is not allowed.
    Forbids(Vec<OwnedEventId>),
    Nothing,
}

impl Gap<'_> {
    /// Brings what an event lacks. `false`: nobody has it.
    pub(super) async fn bring(
        &mut self,
        event: &VerifiedPdu,
        missing: &[OwnedEventId],
    ) -> Result<bool, Error> {
        let pdu = event.pdu();
        let is_prev = |id: &&OwnedEventId| pdu.prev_events.contains(*id);
        let auth: Vec<OwnedEventId> = missing.iter().filter(|id| !is_prev(id)).cloned().collect();
        if !auth.is_empty() && !self.bring_auth(&pdu.event_id, &auth).await? {
            return Ok(false);
        }
        for prev in missing.iter().filter(is_prev) {
            if !self.bring_state_before(prev).await? {
                return Ok(false);
            }
        }
        // An auth event may be a missing prev event, too.
        self.all_held(&pdu.auth_events).await
    }

    async fn bring_auth(&mut self, of: &EventId, missing: &[OwnedEventId]) -> Result<bool, Error> {
        for server in self.servers.clone() {
            let Some(budget) = self.budget(Budget::ORDINARY) else { return Ok(false) };
            let room_id = &self.room.info.room_id;
            let chain = fetch::event_auth(&self.inbound.client, &server, room_id, of, budget).await;
            let mut raws = self.noted(chain).unwrap_or_default();
            raws.truncate(STATE_MAX);
            let chain = self.counted(&raws).await;
            let chain = self.verified(reached_from(missing, chain)).await;
            self.take_outliers(chain).await?;
            let lacking = self.without_authority(missing).await?;
            if lacking.is_empty() {
                return Ok(true);
            }
            let events = self.fetch_each(&server, &lacking).await;
            self.take_outliers(events).await?;
            if self.without_authority(missing).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes an event that others refer to one that is held with the state before it.
    pub(super) async fn bring_state_before(&mut self, id: &EventId) -> Result<bool, Error> {
        if self.is_in_place(id).await? {
            return Ok(true);
        }
        if self.inbound.absent.is_known(id, self.inbound.view.env.now_ms()) {
            return Ok(false);
        }
        let mut forbidding = None;
        for server in self.servers.clone() {
            match self.state_from(&server, id).await? {
                Told::Placed => return Ok(true),
                Told::Forbids(state) => forbidding = forbidding.or(Some(state)),
                Told::Nothing => {}
            }
        }
        if let Some(state) = forbidding.filter(|_| !(self.patient && self.unreachable)) {
            tracing::info!(event = %id, "nobody tells a state that allows an event");
            let placing = self.inbound.rooms.place_forbidden_outlier(self.room.nid(), id, &state);
            return Ok(Box::pin(placing).await? == Placing::Placed);
        }
        if !self.unreachable && !self.keyless {
            self.inbound.absent.note(id, self.inbound.view.env.now_ms());
        }
        Ok(false)
    }

    async fn state_from(&mut self, server: &ServerName, id: &EventId) -> Result<Told, Error> {
        let unreachable_before = std::mem::take(&mut self.unreachable);
        let told = Box::pin(self.try_state_from(server, id)).await;
        self.unreachable |= unreachable_before;
        told
    }

    /// `self.unreachable` tells of this server alone.
    async fn try_state_from(&mut self, server: &ServerName, id: &EventId) -> Result<Told, Error> {
        if self.receive_after_parents(server, id).await? {
            return Ok(Told::Placed);
        }
        let Some(budget) = self.budget(Budget::ORDINARY) else { return Ok(Told::Nothing) };
        let room_id = &self.room.info.room_id;
        let answer = fetch::state_ids(&self.inbound.client, server, room_id, id, budget).await;
        let Some(state) = self.noted(answer) else { return Ok(Told::Nothing) };
        if state.pdu_ids.is_empty() || state.pdu_ids.len() + state.auth_chain_ids.len() > STATE_MAX {
            return Ok(Told::Nothing);
        }
        if !self.bring_events_of(server, id, &state).await? {
            return Ok(Told::Nothing);
        }
        let lacking = self.not_held(&state.pdu_ids).await?.len();
        if lacking > 0 && (self.awaits_keys || (self.patient && self.unreachable)) {
            tracing::info!(%server, event = %id, lacking, "a state has to wait");
            return Ok(Told::Nothing);
        }
        if lacking > state.pdu_ids.len() / LACKING_ONE_IN + self.left_out().await? {
            tracing::info!(%server, event = %id, lacking, "a state cannot be had completely");
            return Ok(Told::Nothing);
        }
        let placing = self.inbound.rooms.place_outlier(self.room.nid(), id, &state.pdu_ids).await?;
        Ok(match placing {
            Placing::Placed => Told::Placed,
            // What lacks may be what allows it.
            Placing::Forbidden if lacking == 0 => Told::Forbids(state.pdu_ids),
            Placing::Forbidden | Placing::NotHeld => Told::Nothing,
        })
    }

    /// Of an event whose parents are held nobody has to tell a state.
    async fn receive_after_parents(&mut self, server: &ServerName, id: &EventId) -> Result<bool, Error> {
        let Some(event) = self.fetch_each(server, &[id.to_owned()]).await.pop() else { return Ok(false) };
        for prev in &event.pdu().prev_events {
            if !self.is_in_place(prev).await? {
                self.take_outliers(vec![event]).await?;
                return Ok(false);
            }
        }
        let mut incoming = [Incoming::from(event)];
        self.inbound.ask_policy_server(self.room, &mut incoming).await?;
        self.inbound.receive_all(self.room.nid(), &incoming).await?;
        self.is_in_place(id).await
    }

    /// What is not held of a state and of what authorises it, as outliers. `false`: it was not given.
    async fn bring_events_of(
        &mut self,
        server: &ServerName,
        id: &EventId,
        state: &StateIds,
    ) -> Result<bool, Error> {
        let named = state.pdu_ids.iter().chain(&state.auth_chain_ids).cloned();
        let named: BTreeSet<OwnedEventId> = named.chain([id.to_owned()]).collect();
        let lacking = self.not_held(&named.into_iter().collect::<Vec<_>>()).await?;
        if lacking.len() <= fetch::ONE_BY_ONE_MAX {
            let events = self.fetch_each(server, &lacking).await;
            self.take_outliers(events).await?;
            return Ok(true);
        }
        let Some(budget) = self.budget(Budget::LARGE) else { return Ok(false) };
        let room_id = &self.room.info.room_id;
        let answer = fetch::state(&self.inbound.client, server, room_id, id, budget).await;
        let Some(full) = self.noted(answer) else { return Ok(false) };
        let raws: Vec<_> = full.pdus.into_iter().chain(full.auth_chain).take(STATE_MAX).collect();
        let mut events = self.counted(&raws).await;
        drop(raws);
        let lacking: BTreeSet<_> = lacking.iter().map(|id| &**id).collect();
        events.retain(|event| lacking.contains(event.event_id()));
        let mut events = self.verified(events).await;
        if lacking.contains(id) && !events.iter().any(|event| event.pdu().event_id == id) {
            events.extend(self.fetch_each(server, &[id.to_owned()]).await);
        }
        self.take_outliers(events).await?;
        Ok(true)
    }

    /// Each by itself, as far as they are what was asked for.
    async fn fetch_each(&mut self, server: &ServerName, ids: &[OwnedEventId]) -> Vec<VerifiedPdu> {
        let answers = fetch::events(&self.inbound.client, server, ids).await;
        let raws: Vec<_> = answers.into_iter().filter_map(|answer| self.noted(answer).flatten()).collect();
        let mut events = self.counted(&raws).await;
        events.retain(|event| ids.iter().any(|id| *id == *event.event_id()));
        self.verified(events).await
    }

    /// What is left of the bytes for states, of a request that may take so much; `None`: nothing.
    fn budget(&self, of_request: Budget) -> Option<Budget> {
        let left = STATE_BYTES_MAX.saturating_sub(self.state_bytes);
        let body_size_max = of_request.body_size_max.min(left);
        (left > 0).then_some(Budget { body_size_max, ..of_request })
    }

    /// Those that are events. Their bytes count.
    async fn counted(&mut self, raws: &[Box<RawValue>]) -> Vec<FormedPdu> {
        self.state_bytes += raws.iter().map(|raw| raw.get().len()).sum::<usize>();
        formed(raws, &self.room.info.rules).await
    }

    async fn verified(&mut self, events: Vec<FormedPdu>) -> Vec<VerifiedPdu> {
        let Verified { events, keyless } = self.inbound.verify_formed(events, &self.room.info.rules).await;
        self.note_keyless(&keyless);
        events
    }

    async fn take_outliers(&mut self, events: Vec<VerifiedPdu>) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let outcome = self.inbound.rooms.take_outliers(&self.room.info, events).await?;
        for (id, reason) in outcome.rejected {
            tracing::debug!(%id, reason, "an outlier is rejected");
        }
        Ok(())
    }

    /// How many events the room does without as it is.
    async fn left_out(&self) -> Result<usize, Error> {
        let partial = self.inbound.view.store.get(&PARTIAL_ROOMS, &self.room.nid()).await?;
        Ok(partial.map_or(0, |partial| partial.left_out.len()))
    }

    async fn without_authority(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        self.inbound.rooms.without_authority(ids).await
    }

    async fn all_held(&self, ids: &[OwnedEventId]) -> Result<bool, Error> {
        Ok(self.not_held(ids).await?.is_empty())
    }

    async fn not_held(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let held = self.inbound.view.interner.lookup_events(ids).await?;
        Ok(ids.iter().filter(|id| !held.contains_key(*id)).cloned().collect())
    }

    fn noted<T>(&mut self, answer: Result<T, RequestError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                tracing::debug!(room = %self.room.info.room_id, %error, "not given");
                self.unreachable |= !error.is_refusal();
            })
            .ok()
    }
}

/// The part of an auth chain in which these events and those that authorise them are.
fn reached_from(missing: &[OwnedEventId], chain: Vec<FormedPdu>) -> Vec<FormedPdu> {
    let mut chain: HashMap<OwnedEventId, FormedPdu> =
        chain.into_iter().map(|event| (event.event_id().to_owned(), event)).collect();
    let (mut reached, mut pending) = (Vec::new(), missing.to_vec());
    while let Some(id) = pending.pop() {
        let Some(event) = chain.remove(&id) else { continue };
        pending.extend(event.claims().auth_events.iter().cloned());
        reached.push(event);
    }
    reached
}
