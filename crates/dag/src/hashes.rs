//! Hashes of events over the text of their canonical JSON (Server-Server API, "Calculating the content hash",
//! "Calculating the reference hash"), and the event ids that follow from them.

use base64::{Engine, engine::general_purpose};
use ruma::{
    EventId, IdParseError, OwnedEventId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};
use sha2::{Digest, Sha256};

use crate::{
    Pdu,
    canonical::{Outline, string_value},
    redaction::signed_text,
    signing::BASE64,
};

/// Whether the content of an event is what its hash says. The content of redacted events is not.
pub fn content_matches(json: &str) -> bool {
    let event = Outline::of(json);
    let hashes = event.get("hashes").map(Outline::of);
    let stated = hashes.and_then(|hashes| string_value(hashes.get("sha256")?)?.into_owned().into());
    let stated = stated.and_then(|stated| BASE64.decode(stated).ok());
    stated.is_some_and(|stated| stated == content_hash(&event))
}

/// The reference hash of an event in the base64 of its room version: what versions 1 and 2 write beside the ids of
/// prev events and auth events, and the event id of all later ones.
pub fn reference_hash(json: &str, rules: &RoomVersionRules) -> String {
    hash_of_signed(&signed_text(&Outline::of(json), &rules.redaction), rules)
}

/// The event id that this event must have, from its text: in versions 1 and 2 it says so itself.
pub fn event_id_of(json: &str, rules: &RoomVersionRules) -> Result<OwnedEventId, IdParseError> {
    match rules.event_id_format {
        EventIdFormatVersion::V1 => own_event_id(json),
        _ => EventId::new_v2_or_v3(&reference_hash(json, rules)),
    }
}

impl Pdu {
    /// The event and its reference hash, as a child of it in versions 1 and 2 refers to it.
    pub fn reference(&self, rules: &RoomVersionRules) -> (OwnedEventId, String) {
        let hash = hash_of_signed(&signed_text(&Outline::of(&self.json), &rules.redaction), rules);
        (self.event_id.clone(), hash)
    }
}

pub(crate) fn content_hash(event: &Outline<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let hashed = event.iter().filter(|(field, _)| !matches!(*field, "hashes" | "signatures" | "unsigned"));
    hash.update("{");
    for (index, (field, value)) in hashed.enumerate() {
        hash.update(if index > 0 { ",\"" } else { "\"" });
        hash.update(field);
        hash.update("\":");
        hash.update(value);
    }
    hash.update("}");
    hash.finalize().into()
}

/// `signed`: the text that the signatures are over.
pub(crate) fn hash_of_signed(signed: &str, rules: &RoomVersionRules) -> String {
    let hash = Sha256::digest(signed);
    match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => general_purpose::STANDARD_NO_PAD.encode(hash),
        _ => general_purpose::URL_SAFE_NO_PAD.encode(hash),
    }
}

fn own_event_id(json: &str) -> Result<OwnedEventId, IdParseError> {
    let event = Outline::of(json);
    let id = event.get("event_id").and_then(string_value).unwrap_or_default();
    OwnedEventId::try_from(&*id)
}

#[cfg(test)]
mod tests;
