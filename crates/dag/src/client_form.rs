//! The form of events that clients see (Client-Server API, "Room event format"), made by splicing text: the content
//! is canonical JSON already and is never parsed again.

use ruma::{RoomId, events::TimelineEventType};
use serde_json::value::RawValue;

use crate::{Pdu, canonical::push_json_string};

/// An event as JSON, still open at its end: the caller adds what differs per recipient, then closes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEvent(String);

/// `content, event_id, origin_server_ts, sender, type`, and `state_key` and `redacts` if it has them; no `room_id`
/// (sync puts events under their room), no `unsigned`.
pub fn open_event(pdu: &Pdu) -> OpenEvent {
    let mut out = String::with_capacity(pdu.content.get().len() + 256);
    out.push_str("{\"content\":");
    push_content(&mut out, pdu);
    push_field(&mut out, "event_id", pdu.event_id.as_str());
    if let Some(duration_ms) = pdu.sticky_duration_ms() {
        out.push_str(&format!(",\"{}\":{{\"duration_ms\":{duration_ms}}}", crate::build::STICKY));
    }
    out.push_str(",\"origin_server_ts\":");
    out.push_str(&u64::from(pdu.origin_server_ts.get()).to_string());
    if let Some(redacts) = &pdu.redacts {
        push_field(&mut out, "redacts", redacts.as_str());
    }
    push_field(&mut out, "sender", pdu.sender.as_str());
    if let Some(state_key) = &pdu.state_key {
        push_field(&mut out, "state_key", state_key);
    }
    push_field(&mut out, "type", &pdu.event_type.to_string());
    OpenEvent(out)
}

impl OpenEvent {
    /// Adds `room_id`, as everywhere but in sync.
    pub fn with_room_id(mut self, room_id: &RoomId) -> Self {
        push_field(&mut self.0, "room_id", room_id.as_str());
        self
    }

    /// Adds `unsigned`, given as a JSON object.
    pub fn with_unsigned(mut self, unsigned: &str) -> Self {
        self.0.push_str(",\"unsigned\":");
        self.0.push_str(unsigned);
        self
    }

    /// Finishes the object.
    pub fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// The open text, to be kept and continued later with [`OpenEvent::resume`].
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Continues a text that [`OpenEvent::as_str`] gave out.
    pub fn resume(open: &str) -> Self {
        let mut text = String::with_capacity(open.len() + 128);
        text.push_str(open);
        Self(text)
    }
}

/// The whole event with `room_id`, with `unsigned` if given.
pub fn client_event(pdu: &Pdu, unsigned: Option<&str>) -> Box<RawValue> {
    let open = open_event(pdu).with_room_id(&pdu.room_id);
    raw(match unsigned {
        Some(unsigned) => open.with_unsigned(unsigned),
        None => open,
    })
}

/// `content, sender, state_key, type` only, for invites and knocks ("Stripped state").
pub fn stripped_state(pdu: &Pdu) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content.get().len() + 128);
    out.push_str("{\"content\":");
    out.push_str(pdu.content.get());
    push_field(&mut out, "sender", pdu.sender.as_str());
    push_field(&mut out, "state_key", pdu.state_key.as_deref().unwrap_or_default());
    push_field(&mut out, "type", &pdu.event_type.to_string());
    raw(OpenEvent(out))
}

fn raw(event: OpenEvent) -> Box<RawValue> {
    // Only a caller's `unsigned` could be no JSON; null shows that without taking the server down.
    RawValue::from_string(event.close()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A redaction shows `redacts` in both places whatever the room version, for older and newer clients (room version
/// 11, "Moving the redacts property").
fn push_content(out: &mut String, pdu: &Pdu) {
    let content = pdu.content.get();
    let lacks_redacts = || pdu.content_field::<serde_json::Value>("redacts").is_none();
    match (&pdu.event_type, &pdu.redacts) {
        (TimelineEventType::RoomRedaction, Some(redacts)) if lacks_redacts() => {
            out.push_str("{\"redacts\":");
            push_json_string(out, redacts.as_str());
            let rest = content.strip_prefix('{').unwrap_or(content);
            if rest != "}" {
                out.push(',');
            }
            out.push_str(rest);
        }
        _ => out.push_str(content),
    }
}

fn push_field(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    push_json_string(out, value);
}

#[cfg(test)]
mod tests;
