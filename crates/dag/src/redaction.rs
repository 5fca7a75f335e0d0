//! What is left of an event after redaction (room versions, "Redactions").

use std::sync::Arc;

use ruma::{CanonicalJsonObject, canonical_json, room_version_rules::RoomVersionRules};

use crate::Pdu;

#[derive(Debug, thiserror::Error)]
#[error("the event cannot be redacted: {0}")]
pub struct RedactError(String);

/// The redacted canonical JSON, to be stored in place of the original. Its event id and signatures stay valid, since
/// both are over the redacted form anyway.
pub fn redact(pdu: &Pdu, rules: &RoomVersionRules) -> Result<Arc<str>, RedactError> {
    let object: CanonicalJsonObject =
        serde_json::from_str(&pdu.json).map_err(|e| RedactError(e.to_string()))?;
    redact_object(object, rules)
}

pub(crate) fn redact_object(
    object: CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<Arc<str>, RedactError> {
    let redacted =
        canonical_json::redact(object, &rules.redaction, None).map_err(|e| RedactError(e.to_string()))?;
    let json = serde_json::to_string(&redacted).map_err(|e| RedactError(e.to_string()))?;
    Ok(json.into())
}

#[cfg(test)]
mod tests;
