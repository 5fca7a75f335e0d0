//! From what the store holds now to what the index is to hold: made from the present, not from the change that was heard of, so
//! that doing it twice or late does no harm.

use std::sync::Arc;

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::{
    Direction,
    tables::{ACCOUNTS, AccountKind, MEMBERS, Membership, PROFILES, RELATIONS},
};
use myelin_view::Event;
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;

use crate::{
    Error, Search,
    schema::{Change, EventDocument, Searched},
};

/// Relations of one message looked at for its newest edit.
const RELATIONS_MAX: usize = 1_000;
const EDIT: &str = "m.replace";

/// What an event means for the index.
pub enum Concerns {
    Nothing,
    /// This event is to be found, or another is found by its text.
    Event(OwnedEventId),
    /// That event is gone.
    Redacted(OwnedEventId),
}

#[derive(Deserialize)]
struct NewContent {
    body: String,
}

pub fn concerns(event: &Event) -> Concerns {
    let pdu = &event.pdu;
    match pdu.event_type {
        TimelineEventType::RoomMessage if pdu.state_key.is_none() => match pdu.relates_to() {
            Some(relation) if relation.rel_type == EDIT => Concerns::Event(relation.event_id),
            _ => Concerns::Event(pdu.event_id.clone()),
        },
        TimelineEventType::RoomName | TimelineEventType::RoomTopic
            if pdu.state_key.as_deref() == Some("") =>
        {
            Concerns::Event(pdu.event_id.clone())
        }
        TimelineEventType::RoomRedaction => {
            let target = pdu.redacts.clone().or_else(|| pdu.content_field("redacts"));
            target.map_or(Concerns::Nothing, Concerns::Redacted)
        }
        _ => Concerns::Nothing,
    }
}

impl Search {
    /// The event of that id, if it is in the same room.
    pub(crate) async fn neighbour(
        &self,
        event: &Arc<Event>,
        id: &EventId,
    ) -> Result<Option<Arc<Event>>, Error> {
        if event.pdu.event_id == id {
            return Ok(Some(event.clone()));
        }
        let found = self.view.events.load_by_id(id).await?;
        Ok(found.filter(|found| found.room == event.room))
    }

    /// How an event is to be found.
    pub(crate) async fn event_change(&self, event: &Event) -> Result<Change, Error> {
        let fields = &self.index.fields;
        let absent = || fields.without_event(event.nid);
        if !event.accepted() || event.state_before.is_none() || event.redacted_by.is_some() {
            return Ok(absent());
        }
        let searched = match event.pdu.event_type {
            TimelineEventType::RoomMessage if event.pdu.state_key.is_none() => Searched::Body,
            TimelineEventType::RoomName => Searched::Name,
            TimelineEventType::RoomTopic => Searched::Topic,
            _ => return Ok(absent()),
        };
        let edit = match searched {
            Searched::Body => self.newest_edit(event).await?,
            Searched::Name | Searched::Topic => None,
        };
        let (shown, text) = match edit {
            Some((shown, text)) => (Some(shown), Some(text)),
            None => (None, own_text(event, searched)),
        };
        let Some(text) = text else { return Ok(absent()) };
        Ok(fields.event(&EventDocument {
            room: event.room,
            sender: event.sender,
            event: event.nid,
            shown,
            at_ms: event.pdu.origin_server_ts.get().into(),
            searched,
            text: &text,
        }))
    }

    /// Client-Server API, "Event replacements": same sender, same type, with `m.new_content`.
    async fn newest_edit(&self, event: &Event) -> Result<Option<(EventNid, String)>, Error> {
        let prefix = (event.room, event.pdu.event_id.to_string());
        let rows = self.view.store.scan(&RELATIONS, &prefix, Direction::Reverse, RELATIONS_MAX).await?;
        for (_, relation) in rows {
            if relation.rel_type != EDIT || relation.sender != event.sender {
                continue;
            }
            let Some(edit) = self.view.events.load(relation.event).await? else { continue };
            if edit.redacted_by.is_some()
                || !edit.accepted()
                || edit.pdu.event_type != event.pdu.event_type
                || edit.pdu.state_key.is_some()
            {
                continue;
            }
            if let Some(content) = edit.pdu.content_field::<NewContent>("m.new_content") {
                return Ok(Some((edit.nid, content.body)));
            }
        }
        Ok(None)
    }

    /// How a member of a room is to be found: local and remote ones.
    pub(crate) async fn member_change(&self, room: RoomNid, user: UserNid) -> Result<Change, Error> {
        let fields = &self.index.fields;
        let row = self.view.store.get(&MEMBERS, &(room, user)).await?;
        let Some(row) = row.filter(|row| row.value.membership == Membership::Join) else {
            return Ok(fields.without_user(room, user));
        };
        let event = self.view.events.load(row.value.event).await?;
        let display_name = event.and_then(|event| event.pdu.content_field::<String>("displayname"));
        let user_id = self.view.interner.user_id(user).await?;
        Ok(fields.user(room, user, &format!("{user_id} {}", display_name.unwrap_or_default())))
    }

    /// How a local account is to be found by those who may find every account.
    pub(crate) async fn account_change(&self, user: UserNid) -> Result<Change, Error> {
        let fields = &self.index.fields;
        if !self.is_findable(user).await? {
            return Ok(fields.without_user(RoomNid::GLOBAL, user));
        }
        let display_name = self.profile_field(user, "displayname").await?;
        let user_id = self.view.interner.user_id(user).await?;
        let names = format!("{user_id} {}", display_name.unwrap_or_default());
        Ok(fields.user(RoomNid::GLOBAL, user, &names))
    }

    /// Local accounts that somebody could write to.
    pub(crate) async fn is_findable(&self, user: UserNid) -> Result<bool, Error> {
        let account = self.view.store.get(&ACCOUNTS, &user).await?;
        Ok(account.is_some_and(|account| {
            !account.deactivated && !account.locked && account.kind != AccountKind::Guest
        }))
    }

    pub(crate) async fn profile_field(&self, user: UserNid, field: &str) -> Result<Option<String>, Error> {
        let row = self.view.store.get(&PROFILES, &(user, field.to_owned())).await?;
        Ok(row.and_then(|row| serde_json::from_str(&row.json).ok()))
    }
}

/// What a user reads in an event, as far as it is searched.
pub fn own_text(event: &Event, searched: Searched) -> Option<String> {
    let field = match searched {
        Searched::Body => "body",
        Searched::Name => "name",
        Searched::Topic => "topic",
    };
    event.pdu.content_field(field)
}

/// Whether a text of an event row may be something that [`concerns`] the index: cheaper than parsing it.
pub fn may_be_found(json: &str) -> bool {
    let types = [TimelineEventType::RoomMessage.to_string()].into_iter();
    let states = [StateEventType::RoomName, StateEventType::RoomTopic].map(|kind| kind.to_string());
    types.chain(states).any(|kind| json.contains(&kind))
}
