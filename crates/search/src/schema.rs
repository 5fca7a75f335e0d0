//! What the index holds of a thing: numbers, and the words by which it is found. Nothing of it is shown to anybody.

use myelin_core::{EventNid, RoomNid, UserNid};
use tantivy::{
    TantivyDocument, Term,
    query::{Query, TermQuery},
    schema::{
        FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, SchemaBuilder, TextFieldIndexing,
        TextOptions,
    },
};

use crate::text;

pub const ROOM: &str = "room";
pub const USER: &str = "user";
pub const EVENT: &str = "event";
pub const AT: &str = "at";

/// A key of `POST /search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    Body,
    Name,
    Topic,
}

impl Searched {
    pub const ALL: [Self; 3] = [Self::Body, Self::Name, Self::Topic];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "content.body",
            Self::Name => "content.name",
            Self::Topic => "content.topic",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Fields {
    pub schema: Schema,
    /// Names a document: putting another of the same key replaces it.
    key: Field,
    pub room: Field,
    /// The sender of an event, the member, the owner of a profile.
    pub user: Field,
    event: Field,
    /// The edit whose text a message is found by.
    shown: Field,
    /// `origin_server_ts`.
    at: Field,
    body: Field,
    name: Field,
    topic: Field,
    /// Words of user ids and display names.
    pub names: Field,
}

/// A change of the index.
#[derive(Debug)]
pub struct Change {
    pub key: Term,
    /// `None`: it is not to be found any more.
    pub document: Option<TantivyDocument>,
}

/// An event as it is found.
pub struct EventDocument<'a> {
    pub room: RoomNid,
    pub sender: UserNid,
    pub event: EventNid,
    pub shown: Option<EventNid>,
    pub at_ms: u64,
    pub searched: Searched,
    pub text: &'a str,
}

impl Default for Fields {
    fn default() -> Self {
        let mut schema = SchemaBuilder::new();
        let words = |record| {
            let indexing = TextFieldIndexing::default().set_tokenizer("raw").set_index_option(record);
            TextOptions::default().set_indexing_options(indexing)
        };
        let text = || words(IndexRecordOption::WithFreqsAndPositions);
        Self {
            key: schema.add_text_field("key", STRING),
            room: schema.add_u64_field(ROOM, INDEXED | FAST),
            user: schema.add_u64_field(USER, INDEXED | FAST),
            event: schema.add_u64_field(EVENT, FAST),
            shown: schema.add_u64_field("shown", INDEXED),
            at: schema.add_u64_field(AT, FAST),
            body: schema.add_text_field("body", text()),
            name: schema.add_text_field("name", text()),
            topic: schema.add_text_field("topic", text()),
            names: schema.add_text_field("names", words(IndexRecordOption::Basic)),
            schema: schema.build(),
        }
    }
}

impl Fields {
    pub fn text_of(&self, searched: Searched) -> Field {
        match searched {
            Searched::Body => self.body,
            Searched::Name => self.name,
            Searched::Topic => self.topic,
        }
    }

    pub fn event(&self, found: &EventDocument<'_>) -> Change {
        let mut document = TantivyDocument::default();
        let key = self.event_key(found.event);
        self.begin(&mut document, &key, found.room, found.sender);
        document.add_u64(self.event, found.event.0);
        document.add_u64(self.at, found.at_ms);
        if let Some(shown) = found.shown {
            document.add_u64(self.shown, shown.0);
        }
        document.add_pre_tokenized_text(self.text_of(found.searched), text::indexed(found.text));
        Change { key, document: Some(document) }
    }

    /// A member of a room, or with [`RoomNid::GLOBAL`] a local account.
    pub fn user(&self, room: RoomNid, user: UserNid, names: &str) -> Change {
        let mut document = TantivyDocument::default();
        let key = self.user_key(room, user);
        self.begin(&mut document, &key, room, user);
        document.add_pre_tokenized_text(self.names, text::indexed(names));
        Change { key, document: Some(document) }
    }

    pub fn without_event(&self, event: EventNid) -> Change {
        Change { key: self.event_key(event), document: None }
    }

    pub fn without_user(&self, room: RoomNid, user: UserNid) -> Change {
        Change { key: self.user_key(room, user), document: None }
    }

    /// Messages that are found by the text of this edit.
    pub fn shown_by(&self, edit: EventNid) -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_u64(self.shown, edit.0), IndexRecordOption::Basic))
    }

    fn begin(&self, document: &mut TantivyDocument, key: &Term, room: RoomNid, user: UserNid) {
        document.add_text(self.key, key.value().as_str().unwrap_or_default());
        document.add_u64(self.room, room.0);
        document.add_u64(self.user, user.0);
    }

    fn event_key(&self, event: EventNid) -> Term {
        Term::from_field_text(self.key, &format!("e{}", event.0))
    }

    fn user_key(&self, room: RoomNid, user: UserNid) -> Term {
        Term::from_field_text(self.key, &format!("u{}_{}", room.0, user.0))
    }
}
