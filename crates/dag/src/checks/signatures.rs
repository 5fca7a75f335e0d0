//! Checks 2 and 3: the signatures of all servers that must have signed, and the content hash. An event whose content
//! does not match its hash is taken in its redacted form, which is what the signatures are over.

use ruma::{
    room_version_rules::RoomVersionRules,
    signatures::{PublicKeyMap, Verified, verify_event},
};

use super::{Dropped, FormedPdu};
use crate::{Pdu, ReceiveError, redaction::redact_object};

/// An event that the server of its sender stands for.
#[derive(Debug, Clone)]
pub struct VerifiedPdu {
    pub(super) pdu: Pdu,
    redacted: bool,
}

impl FormedPdu {
    pub fn verify(self, keys: &PublicKeyMap, rules: &RoomVersionRules) -> Result<VerifiedPdu, Dropped> {
        let redacted = verify_event(keys, &self.object, rules)? == Verified::Signatures;
        let json = if redacted {
            let failed = |error: crate::redaction::RedactError| ReceiveError::Format(error.to_string());
            redact_object(self.object, rules).map_err(failed)?
        } else {
            self.json
        };
        let pdu = Pdu::parse(json, self.event_id, rules).map_err(ReceiveError::from)?;
        Ok(VerifiedPdu { pdu, redacted })
    }
}

impl VerifiedPdu {
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// Whether the content did not match the hash and was removed.
    pub fn is_redacted(&self) -> bool {
        self.redacted
    }
}
