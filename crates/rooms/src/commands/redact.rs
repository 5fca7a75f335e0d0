//! Redacting (Client-Server API, "Redactions"), through either endpoint.

use std::sync::Arc;

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{NewEvent, redaction::redact};
use myelin_store::tables::{EVENTS, RELATIONS, SentBy};
use myelin_view::Event;
use ruma::{
    EventId, OwnedEventId, RoomId, events::TimelineEventType, room_version_rules::RoomVersionRules,
    state_res::events::RoomPowerLevelsIntField,
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    Error, Rooms, Sender, Transaction,
    commands::id_of,
    writer::{Begun, Command, Draft, UnderWay},
};

struct Redact<'a> {
    sender: &'a Sender,
    target: Arc<Event>,
    content: Box<RawValue>,
    sticky_duration_ms: Option<u64>,
    sent_by: SentBy,
    under_way: UnderWay,
}

impl Rooms {
    /// `PUT /redact`. `content` is that of the redaction (`reason`, and what clients add).
    pub async fn redact(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        target: &EventId,
        content: Map<String, Value>,
        transaction: &Transaction,
    ) -> Result<OwnedEventId, Error> {
        let room = self.own_room(room_id).await?;
        let scope = format!("redact/{}/{target}", room.0);
        self.redact_in(scope, sender, room, target, (content, None), transaction).await
    }

    /// `PUT /send/m.room.redaction`: the target is in the content, whatever the room version.
    pub(crate) async fn send_redaction(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        content: &RawValue,
        sticky_duration_ms: Option<u64>,
        transaction: &Transaction,
    ) -> Result<OwnedEventId, Error> {
        let mut content: Map<String, Value> = serde_json::from_str(content.get())?;
        let target = content.remove("redacts");
        let target = target.as_ref().and_then(Value::as_str).and_then(|id| OwnedEventId::try_from(id).ok());
        let target = target.ok_or_else(|| {
            Error::BadJson("The content of a redaction names the redacted event as 'redacts'.".to_owned())
        })?;
        let room = self.own_room(room_id).await?;
        let scope = format!("send/{}/m.room.redaction", room.0);
        self.redact_in(scope, sender, room, &target, (content, sticky_duration_ms), transaction).await
    }

    async fn redact_in(
        &self,
        scope: String,
        sender: &Sender,
        room: RoomNid,
        target: &EventId,
        (content, sticky_duration_ms): (Map<String, Value>, Option<u64>),
        transaction: &Transaction,
    ) -> Result<OwnedEventId, Error> {
        let under_way = match self.begin(sender, transaction, scope).await? {
            Begun::New(under_way) => under_way,
            Begun::Done(event_id) => return Ok(event_id),
        };
        let found = self.view.events.load_by_id(target).await?;
        let found = found.filter(|event| event.room == room && event.order.is_some());
        let command = Redact {
            sender,
            target: found.ok_or_else(|| Error::unknown_event(target))?,
            content: to_raw_value(&content)?,
            sticky_duration_ms,
            sent_by: transaction.sent_by(sender),
            under_way,
        };
        self.run(room, &command).await
    }
}

impl Command for Redact<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        draft.require_joined(self.sender)?;
        if let Some(event_id) = draft.answered(&self.under_way).await? {
            return Ok(event_id);
        }
        self.check_rights(draft).await?;
        let event = NewEvent {
            sender: self.sender.user_id.clone(),
            event_type: TimelineEventType::RoomRedaction,
            state_key: None,
            content: self.content.clone(),
            redacts: Some(self.target.pdu.event_id.clone()),
            sticky_duration_ms: self.sticky_duration_ms,
        };
        let event = draft.append_sent(self.sender, event, Some(self.sent_by.clone())).await?;
        draft.record(&self.under_way, &event);
        draft.apply_redaction(self.target.nid, event.nid).await?;
        Ok(id_of(&event))
    }
}

impl Redact<'_> {
    async fn check_rights(&self, draft: &Draft<'_>) -> Result<(), Error> {
        let kind = &self.target.pdu.event_type;
        let never = matches!(kind, TimelineEventType::RoomCreate | TimelineEventType::RoomServerAcl);
        if never || breaks_authorisation(kind, &draft.room.info.rules) {
            return Err(Error::Forbidden(format!("{kind} events cannot be redacted: the room would break.")));
        }
        if self.target.sender == self.sender.user {
            return Ok(());
        }
        if self.sender.suspended {
            return Err(Error::Forbidden("While suspended you can redact your own events only.".to_owned()));
        }
        let user = &self.sender.user_id;
        let field = RoomPowerLevelsIntField::Redact;
        let lacking = |needed, has| {
            format!("You need power level {needed} to redact other people's events, you have {has}.")
        };
        let verdict = draft.power_levels(|levels| match levels.of_user(user) {
            ruma::events::room::power_levels::UserPowerLevel::Int(has) if has < levels.to(field) => {
                Err(Error::Forbidden(lacking(levels.to(field), has)))
            }
            _ => Ok(()),
        });
        verdict.await?
    }
}

/// Whether the redacted form says something else on what is allowed. Who applied the redaction would judge otherwise than
/// who has not got it; up to version 10 power levels lose who may invite (room version 11, "Redactions").
pub(crate) fn breaks_authorisation(kind: &TimelineEventType, rules: &RoomVersionRules) -> bool {
    *kind == TimelineEventType::RoomPowerLevels && !rules.redaction.keep_room_power_levels_invite
}

impl Draft<'_> {
    /// Puts the redacted form in the place of the target. The first redaction counts.
    pub(crate) async fn apply_redaction(&mut self, target: EventNid, by: EventNid) -> Result<(), Error> {
        if self.has_just_redacted(target) {
            return Ok(());
        }
        let info = self.room.info.clone();
        let row = self.stored(target).await?;
        let Some(mut row) = row.filter(|row| row.value.redacted_by.is_none()) else { return Ok(()) };
        let before = Event::from_row(target, row.clone(), &info)?;
        if breaks_authorisation(&before.pdu.event_type, &info.rules) {
            return Ok(());
        }
        let json = redact(&before.pdu, &info.rules);
        row.value.json = json.to_string();
        row.value.redacted_by = Some(by);
        self.batch.put(&EVENTS, &target, &row);
        if let (Some(relation), Some(order)) = (before.pdu.relates_to(), before.order) {
            let key = (before.room, relation.event_id.to_string(), order);
            self.batch.delete(&RELATIONS, &key);
        }
        self.withdraw_notification(&before).await?;
        self.land_redacted(Event::from_row(target, row, &info)?);
        Ok(())
    }
}
