//! What is left of an event after redaction (room versions, "Redactions"). That form is also what is signed, and what
//! an event is named after.
//!
//! Works on the text of canonical JSON: what is kept is copied. The tests hold it to ruma's redaction.

use std::sync::Arc;

use ruma::room_version_rules::{RedactionRules, RoomVersionRules};

use crate::{
    Pdu,
    canonical::{Members, Outline},
};

/// The redacted canonical JSON, to be stored in place of the original. Its event id and signatures stay valid, since
/// both are over the redacted form anyway.
pub fn redact(pdu: &Pdu, rules: &RoomVersionRules) -> Arc<str> {
    redacted_text(&Outline::of(&pdu.json), &rules.redaction, |_| true).into()
}

/// The redacted event without what the signatures are not over: the bytes of signatures and of the reference hash.
pub(crate) fn signed_text(event: &Outline<'_>, rules: &RedactionRules) -> String {
    redacted_text(event, rules, |field| field != "signatures")
}

fn redacted_text(event: &Outline<'_>, rules: &RedactionRules, with: impl Fn(&str) -> bool) -> String {
    let event_type = event.get("type").unwrap_or_default().trim_matches('"');
    let mut out = String::with_capacity(1024);
    push_members(
        &mut out,
        event.iter().filter(|(field, _)| stays(rules, field) && with(field)),
        |out, field, value| match field {
            "content" => push_kept_content(out, event_type, value, rules),
            _ => out.push_str(value),
        },
    );
    out
}

/// Appends what redaction keeps of a content in canonical form.
pub(crate) fn push_kept_content(out: &mut String, event_type: &str, content: &str, rules: &RedactionRules) {
    let kept = Members::of(content).filter(|(field, value)| keeps(rules, event_type, field, value));
    push_members(out, kept, |out, field, value| match (event_type, field) {
        ("m.room.member", "third_party_invite") => {
            let signed = Members::of(value).filter(|(field, _)| *field == "signed");
            push_members(out, signed, |out, _, value| out.push_str(value));
        }
        _ => out.push_str(value),
    });
}

/// Whether a field of the event stays.
fn stays(rules: &RedactionRules, field: &str) -> bool {
    match field {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "signatures"
        | "depth" | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => rules.keep_origin_membership_prev_state,
        _ => false,
    }
}

/// Whether a field of the content stays.
fn keeps(rules: &RedactionRules, event_type: &str, field: &str, value: &str) -> bool {
    match (event_type, field) {
        ("m.room.member", "membership")
        | ("m.room.create", "creator")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility")
        | (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users"
            | "users_default",
        ) => true,
        ("m.room.member", "join_authorised_via_users_server") => {
            rules.keep_room_member_join_authorised_via_users_server
        }
        ("m.room.member", "third_party_invite") => {
            rules.keep_room_member_third_party_invite_signed && value.starts_with('{')
        }
        ("m.room.create", _) => rules.keep_room_create_content,
        ("m.room.join_rules", "allow") => rules.keep_room_join_rules_allow,
        ("m.room.power_levels", "invite") => rules.keep_room_power_levels_invite,
        ("m.room.redaction", "redacts") => rules.keep_room_redaction_redacts,
        ("m.room.aliases", "aliases") => rules.keep_room_aliases_aliases,
        _ => false,
    }
}

fn push_members<'a>(
    out: &mut String,
    members: impl Iterator<Item = (&'a str, &'a str)>,
    push_value: impl Fn(&mut String, &str, &str),
) {
    out.push('{');
    for (index, (field, value)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(field);
        out.push_str("\":");
        push_value(out, field, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests;
