//! Sending a message event: the hot path (Client-Server API, "Sending events to a room").

use myelin_dag::NewEvent;
use myelin_store::tables::SentBy;
use ruma::{OwnedEventId, RoomId, events::TimelineEventType};
use serde_json::value::RawValue;

use crate::{
    Error, Rooms, Sender, Transaction,
    commands::{check_names, id_of},
    writer::{Begun, Command, Draft, UnderWay},
};

struct SendMessage<'a> {
    sender: &'a Sender,
    event_type: &'a TimelineEventType,
    content: &'a RawValue,
    sticky_duration_ms: Option<u64>,
    sent_by: SentBy,
    under_way: UnderWay,
}

impl Rooms {
    /// A repeated transaction gets the answer of the first.
    pub async fn send_message(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        event_type: TimelineEventType,
        content: &RawValue,
        transaction: &Transaction,
    ) -> Result<OwnedEventId, Error> {
        self.send_sticky(sender, room_id, event_type, content, None, transaction).await
    }

    /// As [`Rooms::send_message`], of an event that is sticky for so long (MSC4354).
    pub async fn send_sticky(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        event_type: TimelineEventType,
        content: &RawValue,
        sticky_duration_ms: Option<u64>,
        transaction: &Transaction,
    ) -> Result<OwnedEventId, Error> {
        check_names(&event_type, "")?;
        if event_type == TimelineEventType::RoomRedaction {
            return self.send_redaction(sender, room_id, content, sticky_duration_ms, transaction).await;
        }
        let room = self.own_room(room_id).await?;
        let scope = format!("send/{}/{event_type}", room.0);
        let under_way = match self.begin(sender, transaction, scope).await? {
            Begun::New(under_way) => under_way,
            Begun::Done(event_id) => return Ok(event_id),
        };
        self.check_relation(room, sender.user, &event_type, content).await?;
        let sent_by = transaction.sent_by(sender);
        let command =
            SendMessage { sender, event_type: &event_type, content, sticky_duration_ms, sent_by, under_way };
        self.run(room, &command).await
    }
}

impl Command for SendMessage<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        draft.require_joined(self.sender)?;
        if let Some(event_id) = draft.answered(&self.under_way).await? {
            return Ok(event_id);
        }
        let event = NewEvent {
            sender: self.sender.user_id.clone(),
            event_type: self.event_type.clone(),
            state_key: None,
            content: self.content.to_owned(),
            redacts: None,
            sticky_duration_ms: self.sticky_duration_ms,
        };
        let event = draft.append_sent(self.sender, event, Some(self.sent_by.clone())).await?;
        draft.record(&self.under_way, &event);
        Ok(id_of(&event))
    }
}
