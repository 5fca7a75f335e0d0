//! Check 7: the signature of the room's policy server, if it has one (Server-Server API, "Policy Servers"). Without
//! it an accepted event is soft-failed, after the driver has asked the policy server for a signature in vain.

use ruma::{
    CanonicalJsonObject, SigningKeyAlgorithm, events::room::policy::RoomPolicyEventContent,
    room_version_rules::RoomVersionRules, signatures::verify_policy_server_signature,
};

use crate::{Pdu, Rejection};

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
    let refused =
        |reason: String| Rejection { reason: format!("no valid signature of the policy server: {reason}") };
    let object: CanonicalJsonObject = serde_json::from_str(&pdu.json).map_err(|e| refused(e.to_string()))?;
    verify_policy_server_signature(policy, &object, rules).map_err(|e| refused(e.to_string()))
}
