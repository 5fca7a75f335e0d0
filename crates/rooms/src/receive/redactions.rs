//! Redactions that were made elsewhere (room versions, "Handling redactions"): applied once both the redaction and its
//! target are in the timeline, whichever comes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use myelin_core::EventNid;
use myelin_dag::{Pdu, redaction::redact};
use myelin_store::tables::{EARLY_REDACTIONS, EarlyRedactionsRecord};
use myelin_view::Event;
use ruma::{
    EventId, OwnedEventId, OwnedUserId, events::TimelineEventType, state_res::events::RoomPowerLevelsIntField,
};

use super::is_provisional;
use crate::{Error, commands::redact::breaks_authorisation, writer::Draft};

/// Redactions by users without the power to redact that are kept for one target that is not there.
const EARLY_MAX: usize = 20;

impl Draft<'_> {
    /// Applies a redaction to its target, or remembers it until that comes.
    pub(super) async fn redact_by(&mut self, event: &Arc<Event>) -> Result<(), Error> {
        let Some(target_id) = redacts(&event.pdu) else { return Ok(()) };
        let Some(target) = self.in_place_by_id(target_id).await? else {
            return self.remember_early(target_id, std::slice::from_ref(event)).await;
        };
        if self.allows_redaction(&target, event).await? {
            self.apply_redaction(target.nid, event.nid).await?;
        }
        Ok(())
    }

    /// Redactions of an older time come together: they are applied to what is there, and the others are remembered.
    pub(super) async fn redact_by_history(&mut self, redactions: Vec<Arc<Event>>) -> Result<(), Error> {
        let mut early: BTreeMap<OwnedEventId, Vec<Arc<Event>>> = BTreeMap::new();
        let mut done: BTreeSet<EventNid> = BTreeSet::new();
        for redaction in redactions {
            let Some(target_id) = redacts(&redaction.pdu) else { continue };
            match self.in_place_by_id(target_id).await? {
                Some(target) => {
                    if self.allows_redaction(&target, &redaction).await? && done.insert(target.nid) {
                        self.apply_redaction(target.nid, redaction.nid).await?;
                    }
                }
                None => early.entry(target_id.to_owned()).or_default().push(redaction),
            }
        }
        for (target_id, redactions) in early {
            self.remember_early(&target_id, &redactions).await?;
        }
        Ok(())
    }

    /// Keeps redactions for when their target comes.
    async fn remember_early(&mut self, target: &EventId, redactions: &[Arc<Event>]) -> Result<(), Error> {
        let key = (self.room.nid(), target.to_string());
        let EarlyRedactionsRecord { mut by } =
            self.rooms().view.store.get(&EARLY_REDACTIONS, &key).await?.unwrap_or_default();
        let mut kept = Vec::with_capacity(by.len() + redactions.len());
        for nid in &by {
            kept.push(self.event(*nid).await?);
        }
        for redaction in redactions {
            if self.adds_to(&kept, redaction).await? {
                kept.push(redaction.clone());
                by.push(redaction.nid);
                self.batch.put(&EARLY_REDACTIONS, &key, &EarlyRedactionsRecord { by: by.clone() });
            }
        }
        Ok(())
    }

    /// Whether a redaction may count where none of these does. Who sent the target is not known, so one of each server
    /// may be a user's own; nobody pushes out what somebody with the power to redact has said.
    async fn adds_to(&self, kept: &[Arc<Event>], redaction: &Event) -> Result<bool, Error> {
        let server = redaction.pdu.sender.server_name();
        let of_server = kept.iter().any(|kept| kept.pdu.sender.server_name() == server);
        self.power_levels(|levels| {
            let may = |event: &Event| levels.may(&event.pdu.sender, RoomPowerLevelsIntField::Redact);
            match may(redaction) {
                true => !kept.iter().any(|kept| may(kept)),
                false => !of_server && kept.len() < EARLY_MAX,
            }
        })
        .await
    }

    /// The event as it is stored if its redaction came first: by the first one that is allowed.
    pub(super) async fn redacted_early(&mut self, target: Arc<Event>) -> Result<Arc<Event>, Error> {
        let key = (target.room, target.pdu.event_id.to_string());
        let Some(early) = self.rooms().view.store.get(&EARLY_REDACTIONS, &key).await? else {
            return Ok(target);
        };
        self.batch.delete(&EARLY_REDACTIONS, &key);
        let mut target = target;
        for by in early.by {
            let by = self.event(by).await?;
            target = self.redacted(target, &by).await?;
        }
        Ok(target)
    }

    /// The event as the redaction leaves it: as it was, if the room does not allow it.
    pub(super) async fn redacted(&self, target: Arc<Event>, by: &Event) -> Result<Arc<Event>, Error> {
        if target.redacted_by.is_some() || !self.allows_redaction(&target, by).await? {
            return Ok(target);
        }
        let rules = &self.room.info.rules;
        if breaks_authorisation(&target.pdu.event_type, rules) {
            return Ok(target);
        }
        let pdu = Pdu::parse(redact(&target.pdu, rules), target.pdu.event_id.clone(), rules);
        let pdu = pdu.map_err(|error| Error::damaged(error.to_string()))?;
        Ok(Arc::new(target.redacted(Arc::new(pdu), by.nid)))
    }

    /// Whether something that is not durable is redacted by this, redacts this, or redacts what this does: the tables
    /// tell which counts once it is.
    pub(super) fn waits_for_redaction(&self, pdu: &Pdu) -> bool {
        let target = redacts(pdu);
        self.any_pending(|pending| {
            let theirs = redacts(&pending.pdu);
            target.is_some_and(|target| *target == pending.pdu.event_id || theirs == Some(target))
                || theirs.is_some_and(|theirs| *theirs == pdu.event_id)
        })
    }

    /// An event that is held with the state before it.
    async fn in_place_by_id(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        Ok(self.find(id).await?.filter(|event| !is_to_come(event)))
    }

    async fn allows_redaction(&self, target: &Event, by: &Event) -> Result<bool, Error> {
        if target.room != by.room || !target.accepted() || !by.accepted() {
            return Ok(false);
        }
        let sender: &OwnedUserId = &by.pdu.sender;
        let own = sender.server_name() == target.pdu.sender.server_name();
        Ok(own || self.power_levels(|levels| levels.may(sender, RoomPowerLevelsIntField::Redact)).await?)
    }
}

/// Whether it can still come to be shown.
fn is_to_come(event: &Event) -> bool {
    match event.accepted() {
        true => event.state_before.is_none(),
        false => is_provisional(event),
    }
}

pub(super) fn redacts(pdu: &Pdu) -> Option<&EventId> {
    let target = pdu.redacts.as_deref()?;
    (pdu.event_type == TimelineEventType::RoomRedaction).then_some(target)
}
