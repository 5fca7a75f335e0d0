//! The last check of an event: the signature of the room's policy server, if it has one (Server-Server API, "Policy
//! Servers"). An event that comes without is shown to it, and so are those that are made here.

use futures::{FutureExt, StreamExt, stream};
use myelin_dag::checks::{VerifiedPdu, check_policy_server};
use myelin_rooms::{Error, Incoming};
use myelin_view::RoomSnapshot;
use ruma::{RoomId, events::room::policy::RoomPolicyEventContent, room_version_rules::RoomVersionRules};

use super::Inbound;

/// Events that a policy server is shown at the same time.
const AT_ONCE: usize = 8;
/// Attempts at which an event waits for a policy server that is spared: some minutes. Then it goes on without.
pub(super) const PATIENT_ATTEMPTS: u32 = 3;

impl Inbound {
    /// Notes at each event why the policy server of the room does not recommend it.
    pub(super) async fn ask_policy_server(
        &self,
        room: &RoomSnapshot,
        events: &mut [Incoming],
    ) -> Result<(), Error> {
        let Some(policy) = self.rooms.policy(room).await? else { return Ok(()) };
        let asked = events.iter().map(|event| event.pdu.clone());
        let asked: Vec<_> =
            asked.map(|pdu| self.rooms.approve(&room.info.rules, &policy, pdu).boxed()).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        for (event, answer) in events.iter_mut().zip(answers) {
            match answer {
                Ok(signed) => event.pdu = signed,
                Err(reason) => event.refusal = Some(reason),
            }
        }
        Ok(())
    }

    /// An event that was made here and signed elsewhere, as the policy server of its room wants it.
    pub(crate) async fn approved(&self, room_id: &RoomId, event: VerifiedPdu) -> Result<VerifiedPdu, Error> {
        let Some(room) = self.view.room_by_id(room_id).await? else { return Ok(event) };
        let policy = self.rooms.policy(&room).await?.filter(|policy| policy.via != self.view.server_name);
        let Some(policy) = policy else { return Ok(event) };
        self.rooms.approve(&room.info.rules, &policy, event).await.map_err(Error::Forbidden)
    }
}

/// Whether an event lacks the signature of a policy server that is spared just now ([`myelin_rooms::Rooms::spared_policy`]).
pub(super) fn waits_for_policy(
    spared: Option<&RoomPolicyEventContent>,
    event: &VerifiedPdu,
    rules: &RoomVersionRules,
) -> bool {
    spared.is_some_and(|policy| check_policy_server(event.pdu(), policy, rules).is_err())
}
