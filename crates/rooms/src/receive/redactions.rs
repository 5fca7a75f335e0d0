//! Redactions that were made elsewhere (room versions, "Handling redactions"): applied once both the redaction and its
//! target are in the timeline, whichever comes first.

use std::sync::Arc;

use myelin_dag::{Pdu, redaction::redact};
use myelin_store::tables::EARLY_REDACTIONS;
use myelin_view::Event;
use ruma::{EventId, OwnedUserId, events::TimelineEventType, state_res::events::RoomPowerLevelsIntField};

use crate::{Error, writer::Draft};

impl Draft<'_> {
    /// Applies a redaction to its target, or remembers it until that comes.
    pub(super) async fn redact_by(&mut self, event: &Event) -> Result<(), Error> {
        let Some(target_id) = redacts(&event.pdu) else { return Ok(()) };
        let Some(target) = self.find(target_id).await?.filter(|target| !is_outlier(target)) else {
            return self.remember_early(event).await;
        };
        if self.allows_redaction(&target, event).await? {
            self.apply_redaction(target.nid, event.nid).await?;
        }
        Ok(())
    }

    /// Keeps a redaction for when its target comes, if it has one that is not there.
    pub(super) async fn remember_early(&mut self, by: &Event) -> Result<(), Error> {
        let Some(target) = redacts(&by.pdu) else { return Ok(()) };
        if self.find(target).await?.is_none_or(|target| is_outlier(&target)) {
            self.batch.put(&EARLY_REDACTIONS, &(by.room, target.to_string()), &by.nid);
        }
        Ok(())
    }

    /// The event as it is stored if its redaction came first.
    pub(super) async fn redacted_early(&mut self, target: Arc<Event>) -> Result<Arc<Event>, Error> {
        let key = (target.room, target.pdu.event_id.to_string());
        let Some(by) = self.rooms().view.store.get(&EARLY_REDACTIONS, &key).await? else { return Ok(target) };
        self.batch.delete(&EARLY_REDACTIONS, &key);
        let by = self.event(by).await?;
        self.redacted(target, &by).await
    }

    /// The event as the redaction leaves it: as it was, if the room does not allow it.
    pub(super) async fn redacted(&self, target: Arc<Event>, by: &Event) -> Result<Arc<Event>, Error> {
        if target.redacted_by.is_some() || !self.allows_redaction(&target, by).await? {
            return Ok(target);
        }
        let rules = &self.room.info.rules;
        let pdu = Pdu::parse(redact(&target.pdu, rules), target.pdu.event_id.clone(), rules);
        let pdu = pdu.map_err(|error| Error::damaged(error.to_string()))?;
        Ok(Arc::new(target.redacted(Arc::new(pdu), by.nid)))
    }

    /// Whether a redaction is about an event that is not durable: it can be applied once that is.
    pub(super) fn redacts_pending(&self, pdu: &Pdu) -> bool {
        redacts(pdu).is_some_and(|target| self.pending_by_id(target).is_some())
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

fn is_outlier(event: &Event) -> bool {
    event.accepted() && event.state_before.is_none()
}

pub(super) fn redacts(pdu: &Pdu) -> Option<&EventId> {
    let of_type = pdu.event_type == TimelineEventType::RoomRedaction;
    pdu.redacts.as_deref().filter(|_| of_type)
}
