//! Signatures of the event that a handshake is about.

use myelin_dag::checks::{FormedPdu, VerifiedPdu};
use ruma::room_version_rules::RoomVersionRules;

use super::Handshakes;

impl Handshakes {
    /// Why not, in words, if it is not signed as it must be, or says something else than was signed.
    pub(super) async fn verify(
        &self,
        formed: FormedPdu,
        rules: &RoomVersionRules,
    ) -> Result<VerifiedPdu, String> {
        match self.inbound.verify(vec![formed], rules).await.pop() {
            Some(Ok(event)) if event.is_redacted() => {
                Err("The event's content does not match its hash.".to_owned())
            }
            Some(Ok(event)) => Ok(event),
            Some(Err(dropped)) => Err(dropped.to_string()),
            None => Err("The event was not checked.".to_owned()),
        }
    }
}
