//! Events as one client gets them: the shared text of the event with `unsigned` spliced in.

use std::sync::Arc;

use myelin_dag::{client_form::OpenEvent, pdu::Pdu, redaction::redact};
use myelin_store::tables::Membership;
use myelin_view::{DELAYED_BY, Event, View};
use ruma::RoomId;
use serde::Deserialize;

use crate::{Error, Requester, json, json::Object, visibility::Seen};

/// `event_format` of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Client,
    Federation,
}

/// How events are written for one request.
pub struct Writer<'a> {
    pub view: &'a View,
    pub requester: &'a Requester,
    pub now_ms: u64,
    pub format: Format,
    pub event_fields: Option<&'a [String]>,
    /// Endpoints other than sync name the room in every event.
    pub with_room_id: bool,
}

impl Writer<'_> {
    /// The event as JSON; `relations` is the bundle for `unsigned.m.relations`.
    pub async fn write(&self, event: &Event, seen: Seen, relations: Option<&str>) -> Result<String, Error> {
        let erased = self.erased(event, seen).await?;
        let event = erased.as_ref().unwrap_or(event);
        if self.format == Format::Federation {
            return Ok(event.pdu.json.to_string());
        }
        let unsigned = self.unsigned(event, seen, relations).await?;
        let json = finish(event, self.with_room_id.then_some(&*event.pdu.room_id), &unsigned);
        Ok(match self.event_fields {
            Some(fields) => keep_fields(&json, fields),
            None => json,
        })
    }

    /// The redacted copy of what an erased user said, for who was not joined then. State events stay: they are the room's.
    async fn erased(&self, event: &Event, seen: Seen) -> Result<Option<Event>, Error> {
        let bystander = event.state_key.is_none() && seen.membership != Membership::Join;
        if !bystander || !self.view.erased.contains(event.sender).await? {
            return Ok(None);
        }
        let room = self.view.interner.room_info(event.room).await?;
        let redacted = room.and_then(|room| {
            let json = redact(&event.pdu, &room.rules);
            Pdu::parse(json, event.pdu.event_id.clone(), &room.rules).ok()
        });
        let damaged = || myelin_view::Error::Damaged(format!("{:?} cannot be redacted", event.nid));
        Ok(Some(event.erased(Arc::new(redacted.ok_or_else(damaged)?))))
    }

    async fn unsigned(&self, event: &Event, seen: Seen, relations: Option<&str>) -> Result<String, Error> {
        let mut out = String::with_capacity(64);
        let mut unsigned = Object::open(&mut out);
        unsigned.number("age", self.now_ms.saturating_sub(u64::from(event.pdu.origin_server_ts.get())));
        unsigned.string("membership", membership_name(seen.membership));
        if let Some(sent) = event.transaction.as_ref().filter(|sent| sent.user == self.requester.user) {
            if sent.device_id == self.requester.device_id {
                unsigned.string("transaction_id", &sent.transaction_id);
            } else if sent.device_id == DELAYED_BY {
                unsigned.string("org.matrix.msc4140.delay_id", &sent.transaction_id);
            }
        }
        if event.redacted_by.is_none()
            && let Some(until_ms) = self.view.sticky.until_ms(event.nid)
        {
            unsigned.number("msc4354_sticky_duration_ttl_ms", until_ms.saturating_sub(self.now_ms));
        }
        if event.state_key.is_some() {
            self.push_replaced(event, &mut unsigned).await?;
        }
        if let Some(by) = event.redacted_by
            && let Some(redaction) = self.view.events.load(by).await?
        {
            unsigned.raw("redacted_because", &finish(&redaction, Some(&redaction.pdu.room_id), "{}"));
        }
        if let Some(relations) = relations {
            unsigned.raw("m.relations", relations);
        }
        unsigned.close();
        Ok(out)
    }

    /// `prev_content` and `replaces_state` of a state event that replaced another one.
    async fn push_replaced(&self, event: &Event, unsigned: &mut Object<'_>) -> Result<(), Error> {
        let (Some(root), Some(key)) = (event.state_before, event.state_key) else { return Ok(()) };
        let Some(replaced) = self.view.states.load(root).await?.get(key) else { return Ok(()) };
        if let Some(replaced) = self.view.events.load(replaced).await? {
            unsigned.raw("prev_content", replaced.pdu.content.get());
            unsigned.string("replaces_state", replaced.pdu.event_id.as_str());
        }
        Ok(())
    }
}

pub fn membership_name(membership: Membership) -> &'static str {
    match membership {
        Membership::Join => "join",
        Membership::Invite => "invite",
        Membership::Leave => "leave",
        Membership::Ban => "ban",
        Membership::Knock => "knock",
    }
}

fn finish(event: &Event, room_id: Option<&RoomId>, unsigned: &str) -> String {
    let mut open = OpenEvent::resume(event.client_form());
    if let Some(room_id) = room_id {
        open = open.with_room_id(room_id);
    }
    open.with_unsigned(unsigned).close()
}

/// Keeps only the named fields (`event_fields`, dot-separated property paths). Rare, so it may parse.
fn keep_fields(json: &str, fields: &[String]) -> String {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(json) else { return json.to_owned() };
    let mut kept = serde_json::Value::Object(serde_json::Map::new());
    for field in fields {
        copy_path(&event, &mut kept, &split_path(field));
    }
    kept.to_string()
}

/// Splits at dots; `\.` is a dot and `\\` a backslash inside a name (appendices, "Dot-separated property paths").
fn split_path(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let last = names.len() - 1;
        match (character, characters.peek()) {
            ('.', _) => names.push(String::new()),
            ('\\', Some(&escaped @ ('.' | '\\'))) => {
                names[last].push(escaped);
                characters.next();
            }
            _ => names[last].push(character),
        }
    }
    names
}

fn copy_path(from: &serde_json::Value, to: &mut serde_json::Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    let (Some(value), Some(to)) = (from.get(name), to.as_object_mut()) else { return };
    if rest.is_empty() {
        to.insert(name.clone(), value.clone());
    } else if value.is_object() {
        let child = to.entry(name.clone()).or_insert_with(|| serde_json::json!({}));
        copy_path(value, child, rest);
    }
}

/// A stripped state event, for invites and knocks.
pub fn stripped(event: &Event) -> String {
    myelin_dag::client_form::stripped_state(&event.pdu).get().to_owned()
}

/// `{"type": …, "content": …}`, as account data and ephemeral events are.
pub fn small_event(event_type: &str, content: &str) -> String {
    let mut out = String::with_capacity(event_type.len() + content.len() + 24);
    out.push_str("{\"type\":");
    json::push_string(&mut out, event_type);
    out.push_str(",\"content\":");
    out.push_str(content);
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_fields_are_kept() {
        let json = r#"{"type":"m.x","content":{"body":"b","a.b":1,"deep":{"x":1,"y":2}},"sender":"@a:b"}"#;
        let fields = ["type", "content.body", "content.a\\.b", "content.deep.x", "content.none", "sender.x"];
        let kept = keep_fields(json, &fields.map(str::to_owned));
        let kept: serde_json::Value = serde_json::from_str(&kept).expect("valid JSON");
        let expected = serde_json::json!({"type":"m.x","content":{"body":"b","a.b":1,"deep":{"x":1}}});
        assert_eq!(kept, expected);
    }
}
