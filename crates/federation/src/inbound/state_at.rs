//! What an event at the far end of a gap needs: its auth events, and the states before its missing prev events
//! (Server-Server API, "Retrieving events": `state_ids`, `state`, `event_auth`, `event`).

use std::collections::BTreeSet;

use myelin_dag::checks::VerifiedPdu;
use myelin_rooms::Error;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::value::RawValue;

use super::{fetch, gap::Gap, verification::Verified};
use crate::RequestError;

/// Events of one state with its auth chain.
const STATE_MAX: usize = 300_000;
/// A state of which more than one in so many events cannot be had is not believed.
const LACKING_ONE_IN: usize = 20;

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
            let room_id = &self.room.info.room_id;
            let chain = fetch::event_auth(&self.inbound.client, &server, room_id, of).await;
            let mut raws = self.noted(chain).unwrap_or_default();
            raws.truncate(STATE_MAX);
            self.take_outliers(&raws).await?;
            if self.all_held(missing).await? {
                return Ok(true);
            }
            let lacking = self.not_held(missing).await?;
            let raws = self.fetch_each(&server, &lacking).await;
            self.take_outliers(&raws).await?;
            if self.all_held(missing).await? {
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
        for server in self.servers.clone() {
            if self.state_from(&server, id).await? {
                return Ok(true);
            }
        }
        if !self.unreachable && !self.keyless {
            self.inbound.absent.note(id, self.inbound.view.env.now_ms());
        }
        Ok(false)
    }

    async fn state_from(&mut self, server: &ServerName, id: &EventId) -> Result<bool, Error> {
        let room_id = &self.room.info.room_id;
        let answer = fetch::state_ids(&self.inbound.client, server, room_id, id).await;
        let Some(state) = self.noted(answer) else { return Ok(false) };
        if state.pdu_ids.is_empty() || state.pdu_ids.len() + state.auth_chain_ids.len() > STATE_MAX {
            return Ok(false);
        }
        let all: BTreeSet<OwnedEventId> =
            state.pdu_ids.iter().chain(&state.auth_chain_ids).cloned().chain([id.to_owned()]).collect();
        let lacking = self.not_held(&all.into_iter().collect::<Vec<_>>()).await?;
        let raws = if lacking.len() > fetch::ONE_BY_ONE_MAX {
            let room_id = &self.room.info.room_id;
            let answer = fetch::state(&self.inbound.client, server, room_id, id).await;
            let Some(full) = self.noted(answer) else { return Ok(false) };
            let mut raws = self.fetch_each(server, &[id.to_owned()]).await;
            raws.extend(full.pdus.into_iter().chain(full.auth_chain).take(STATE_MAX));
            raws
        } else {
            self.fetch_each(server, &lacking).await
        };
        self.take_outliers(&raws).await?;
        let lacking = self.not_held(&state.pdu_ids).await?.len();
        if lacking > 0 && self.awaits_keys {
            tracing::info!(%server, event = %id, lacking, "a state has to wait for keys");
            return Ok(false);
        }
        if lacking > state.pdu_ids.len() / LACKING_ONE_IN {
            tracing::info!(%server, event = %id, lacking, "a state cannot be had completely");
            return Ok(false);
        }
        self.inbound.rooms.place_outlier(self.room.nid(), id, &state.pdu_ids).await
    }

    async fn fetch_each(&mut self, server: &ServerName, ids: &[OwnedEventId]) -> Vec<Box<RawValue>> {
        let answers = fetch::events(&self.inbound.client, server, ids).await;
        answers.into_iter().filter_map(|answer| self.noted(answer).flatten()).collect()
    }

    pub(super) async fn take_outliers(&mut self, raws: &[Box<RawValue>]) -> Result<(), Error> {
        if raws.is_empty() {
            return Ok(());
        }
        let info = &self.room.info;
        let Verified { events, keyless } = self.inbound.verified_or_keyless(raws, &info.rules).await;
        self.note_keyless(&keyless);
        let outcome = self.inbound.rooms.take_outliers(info, events).await?;
        for (id, reason) in outcome.rejected {
            tracing::debug!(%id, reason, "an outlier is rejected");
        }
        Ok(())
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
