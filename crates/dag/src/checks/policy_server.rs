//! Check 7: the signature of the room's policy server, if it has one (Server-Server API, "Policy Servers"). Without
//! it an accepted event is soft-failed, after the driver has asked the policy server for a signature in vain.

use std::collections::BTreeMap;

use ruma::{
    ServerName, SigningKeyAlgorithm,
    events::room::policy::{POLICY_SERVER_ED25519_SIGNING_KEY_ID, RoomPolicyEventContent},
    room_version_rules::RoomVersionRules,
};

use serde_json::{Value, json};

use super::signatures::{VerifiedPdu, VerifyingKeys, verify_one};
use crate::{
    Pdu, Rejection,
    canonical::{Outline, canonicalize_for},
    redaction::signed_text,
};

/// What an `m.room.policy` event of the current state asks for; `None` if it is not valid. The room uses it only if
/// the server `via` has a joined member.
pub fn policy_of(policy: &Pdu) -> Option<RoomPolicyEventContent> {
    let content: RoomPolicyEventContent = serde_json::from_str(policy.content.get()).ok()?;
    content.public_keys.contains_key(&SigningKeyAlgorithm::Ed25519).then_some(content)
}

/// `m.room.policy` state events with an empty state key need no such signature.
pub fn check_policy_server(
    pdu: &Pdu,
    policy: &RoomPolicyEventContent,
    rules: &RoomVersionRules,
) -> Result<(), Rejection> {
    if pdu.is_state_of("m.room.policy", "") {
        return Ok(());
    }
    let key = policy.public_keys.get(&SigningKeyAlgorithm::Ed25519).cloned();
    let keys = key.map(|key| (POLICY_SERVER_ED25519_SIGNING_KEY_ID.to_owned(), key)).into_iter().collect();
    let keys = BTreeMap::from([(policy.via.to_string(), keys)]);
    let signed = signed_text(&Outline::of(&pdu.json), &rules.redaction);
    let verified = verify_one(&pdu.json, &signed, &policy.via, &VerifyingKeys::of(&keys));
    verified
        .map_err(|error| Rejection { reason: format!("no valid signature of the policy server: {error}") })
}

/// The event with one more signature, which is not checked here. `None` if it is none.
pub fn with_signature(
    event: VerifiedPdu,
    server: &ServerName,
    key_id: &str,
    signature: &str,
    rules: &RoomVersionRules,
) -> Option<VerifiedPdu> {
    let pdu = sign_with(&event.pdu, server, key_id, signature, rules)?;
    Some(VerifiedPdu { pdu, ..event })
}

fn sign_with(
    pdu: &Pdu,
    server: &ServerName,
    key_id: &str,
    signature: &str,
    rules: &RoomVersionRules,
) -> Option<Pdu> {
    let mut object: serde_json::Map<String, Value> = serde_json::from_str(&pdu.json).ok()?;
    let signatures = object.get_mut("signatures")?.as_object_mut()?;
    let of_server = signatures.entry(server.as_str()).or_insert_with(|| json!({}));
    of_server.as_object_mut()?.insert(key_id.to_owned(), signature.into());
    let json = canonicalize_for(&rules.authorization, &serde_json::to_vec(&object).ok()?).ok()?;
    Pdu::parse(json.into(), pdu.event_id.clone(), rules).ok()
}
