//! Stripped state as it comes with invites and knocks, made fit for clients (Client-Server API, "Stripped state").

use std::collections::BTreeMap;

use myelin_store::tables::StrippedStateRecord;
use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// Entries and bytes that are kept.
pub const EVENTS_MAX: usize = 100;
const BYTES_MAX: usize = 256 * 1024;

#[derive(Deserialize, Serialize)]
struct Stripped {
    content: Box<RawValue>,
    sender: OwnedUserId,
    state_key: String,
    #[serde(rename = "type")]
    event_type: String,
}

/// What is no state event is left out, and so is what is too much.
pub fn record(events: &[Box<RawValue>], servers: Vec<OwnedServerName>) -> StrippedStateRecord {
    let mut bytes = 0;
    let stripped = events.iter().take(EVENTS_MAX).filter_map(|raw| {
        let event: Stripped = serde_json::from_str(raw.get()).ok()?;
        event.content.get().starts_with('{').then_some(())?;
        serde_json::to_string(&event).ok()
    });
    let fitting = stripped.take_while(|event| {
        bytes += event.len();
        bytes <= BYTES_MAX
    });
    let servers = servers.iter().map(ToString::to_string).collect();
    StrippedStateRecord { events: fitting.collect(), servers }
}

/// Whether it does not even claim to be an event.
pub fn is_stripped(raw: &RawValue) -> bool {
    let claims: Option<BTreeMap<String, IgnoredAny>> = serde_json::from_str(raw.get()).ok();
    claims.is_some_and(|claims| !claims.contains_key("signatures") && !claims.contains_key("hashes"))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    #[test]
    fn only_what_clients_may_see_is_kept() {
        let whole = json!({ "type": "m.room.name", "state_key": "", "sender": "@a:b", "content": { "name": "x" },
            "auth_events": [], "signatures": {} });
        let others = [
            json!(1),
            json!({ "type": "m" }),
            json!({ "type": "m", "state_key": "", "sender": "@a:b", "content": [] }),
        ];
        let events: Vec<_> =
            [whole].iter().chain(&others).map(|event| to_raw_value(event).unwrap()).collect();
        let record = record(&events, Vec::new());
        assert_eq!(
            record.events,
            [r#"{"content":{"name":"x"},"sender":"@a:b","state_key":"","type":"m.room.name"}"#]
        );
    }

    #[test]
    fn too_much_is_cut() {
        let large =
            json!({ "type": "m", "state_key": "", "sender": "@a:b", "content": { "x": "y".repeat(60_000) } });
        let events = vec![to_raw_value(&large).unwrap(); 20];
        assert_eq!(record(&events, Vec::new()).events.len(), 4);
        let small = json!({ "type": "m", "state_key": "", "sender": "@a:b", "content": {} });
        assert_eq!(record(&vec![to_raw_value(&small).unwrap(); 200], Vec::new()).events.len(), EVENTS_MAX);
    }
}
