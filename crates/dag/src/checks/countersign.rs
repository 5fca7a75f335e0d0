//! The signature of a second server on an event (Server-Server API, "Signing events"): of the invited server on an
//! invite, of the resident server on a join that it authorises.

use std::collections::BTreeMap;

use ruma::{ServerName, room_version_rules::RoomVersionRules};
use serde_json::value::{RawValue, to_raw_value};

use super::{Dropped, FormedPdu, RawPdu};
use crate::{ReceiveError, SigningKey};

type Fields = BTreeMap<String, Box<RawValue>>;

impl FormedPdu {
    /// The same event with a signature of `server`; nothing else of it changes.
    pub fn countersigned(
        self,
        rules: &RoomVersionRules,
        server: &ServerName,
        key: &SigningKey,
    ) -> Result<Self, Dropped> {
        let text =
            with_signature(&self, server, key).map_err(|_| ReceiveError::Format("it cannot be signed"))?;
        RawPdu(&text).check_format(rules)
    }

    /// Canonical JSON without `unsigned`.
    pub fn json(&self) -> &str {
        &self.pdu.json
    }
}

/// The other fields stay what they are, as text: old rooms hold numbers that do not survive being read.
fn with_signature(
    event: &FormedPdu,
    server: &ServerName,
    key: &SigningKey,
) -> Result<Box<RawValue>, serde_json::Error> {
    let mut fields: Fields = serde_json::from_str(&event.pdu.json)?;
    let mut signatures: BTreeMap<String, Fields> = match fields.get("signatures") {
        Some(signatures) => serde_json::from_str(signatures.get())?,
        None => BTreeMap::new(),
    };
    let signature = to_raw_value(&key.sign(event.signed.as_bytes()))?;
    signatures.entry(server.to_string()).or_default().insert(key.key_id().to_owned(), signature);
    fields.insert("signatures".to_owned(), to_raw_value(&signatures)?);
    to_raw_value(&fields)
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::{NewEvent, Parents, build, rules};

    #[test]
    fn both_signatures_hold_and_the_event_keeps_its_id() {
        for version in [RoomVersionId::V3, RoomVersionId::V6, RoomVersionId::V9, RoomVersionId::V12] {
            let rules = rules(&version).unwrap();
            let (home, away) =
                (SigningKey::from_seed("h", [1; 32]).unwrap(), SigningKey::from_seed("i", [2; 32]).unwrap());
            // As a join is signed that a member of the other server authorises.
            let content =
                json!({ "membership": "join", "join_authorised_via_users_server": "@m:away", "reason": "x" });
            let event = NewEvent::state(user_id!("@a:home").to_owned(), "m.room.member", "@a:home", &content)
                .unwrap();
            let parents = Parents {
                room_id: Some("!r:home".try_into().unwrap()),
                prev_events: vec!["$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".try_into().unwrap()],
                ..Parents::default()
            };
            let pdu = build(&rules, event, parents, 1, &home).unwrap();
            let raw = RawValue::from_string(pdu.json.to_string()).unwrap();
            let formed = RawPdu(&raw).check_format(&rules).unwrap();
            let signed = formed.countersigned(&rules, server_name!("away"), &away).unwrap();
            let keys = BTreeMap::from([
                ("home".to_owned(), home.public_key_set()),
                ("away".to_owned(), away.public_key_set()),
            ]);
            let verified = signed.verify(&keys, &rules).unwrap();
            assert_eq!(verified.pdu().event_id, pdu.event_id);
            assert!(!verified.is_redacted());
            assert!(verified.pdu().json.contains(r#""away":{"ed25519:i":"#));
        }
    }

    #[test]
    fn a_wrong_second_signature_is_noticed() {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let (home, away) =
            (SigningKey::from_seed("h", [1; 32]).unwrap(), SigningKey::from_seed("i", [2; 32]).unwrap());
        let content = json!({ "membership": "join", "join_authorised_via_users_server": "@m:away" });
        let event =
            NewEvent::state(user_id!("@a:home").to_owned(), "m.room.member", "@a:home", &content).unwrap();
        let parents = Parents { room_id: Some("!r:home".try_into().unwrap()), ..Parents::default() };
        let pdu = build(&rules, event, parents, 1, &home).unwrap();
        let raw = RawValue::from_string(pdu.json.to_string()).unwrap();
        let formed = || RawPdu(&raw).check_format(&rules).unwrap();
        let keys = BTreeMap::from([
            ("home".to_owned(), home.public_key_set()),
            ("away".to_owned(), away.public_key_set()),
        ]);
        assert!(formed().verify(&keys, &rules).is_err(), "the second server has not signed");
        let forged = formed().countersigned(&rules, server_name!("away"), &home).unwrap();
        assert!(forged.verify(&keys, &rules).is_err());
    }
}
