//! The last check of an event: the signature of the room's policy server, if it has one (Server-Server API, "Policy
//! Servers"). An event that comes without is shown to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use myelin_dag::{
    Pdu,
    checks::{check_policy_server, policy_of, with_signature},
};
use myelin_rooms::{Incoming, PolicyServers, PolicySignatures};
use myelin_view::RoomSnapshot;
use ruma::{OwnedServerName, ServerName, events::room::policy::RoomPolicyEventContent};
use serde_json::value::RawValue;

use super::Inbound;
use crate::{Budget, Client, RequestError};

const SIGN: &str = "/_matrix/policy/v1/sign";
const BUDGET: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 64 * 1024 };

type Signatures = BTreeMap<OwnedServerName, BTreeMap<String, String>>;

impl Inbound {
    /// Notes at each event why the policy server of the room does not recommend it.
    pub(super) async fn ask_policy_server(
        &self,
        room: &RoomSnapshot,
        events: &mut [Incoming],
    ) -> Result<(), myelin_view::Error> {
        let Some(policy) = self.policy(room).await? else { return Ok(()) };
        for event in events {
            if check_policy_server(event.pdu.pdu(), &policy, &room.info.rules).is_ok() {
                continue;
            }
            if let Err(reason) = self.have_signed(room, &policy, event).await {
                event.refusal = Some(reason);
            }
        }
        Ok(())
    }

    /// What the room wants of events, if the server that it names takes part in it.
    async fn policy(
        &self,
        room: &RoomSnapshot,
    ) -> Result<Option<RoomPolicyEventContent>, myelin_view::Error> {
        let event = self.view.current_state_event(room, "m.room.policy", "").await?;
        let policy = event.and_then(|event| policy_of(&event.pdu));
        Ok(policy.filter(|policy| room.has_server(&policy.via)))
    }

    async fn have_signed(
        &self,
        room: &RoomSnapshot,
        policy: &RoomPolicyEventContent,
        event: &mut Incoming,
    ) -> Result<(), String> {
        let refused = |error: &dyn std::fmt::Display| format!("the policy server did not sign it: {error}");
        let signatures = ask(&self.client, &policy.via, event.pdu.pdu()).await.map_err(|e| refused(&e))?;
        let mut signed = event.pdu.clone();
        for (key_id, signature) in signatures {
            signed = with_signature(signed, &policy.via, &key_id, &signature, &room.info.rules)
                .ok_or_else(|| refused(&"its answer is no signature"))?;
        }
        check_policy_server(signed.pdu(), policy, &room.info.rules).map_err(|e| refused(&e))?;
        event.pdu = signed;
        Ok(())
    }
}

/// For events that are made here.
pub(crate) struct AskPolicyServers(pub Arc<Client>);

impl PolicyServers for AskPolicyServers {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        pdu: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>> {
        async move {
            ask(&self.0, via, pdu).await.map_err(|error| match error {
                RequestError::Status { message, .. } if !message.is_empty() => message,
                other => format!("The policy server of the room cannot be asked: {other}."),
            })
        }
        .boxed()
    }
}

async fn ask(client: &Client, via: &ServerName, pdu: &Pdu) -> Result<PolicySignatures, RequestError> {
    let raw: &RawValue = serde_json::from_str(&pdu.json).map_err(|_| RequestError::Content)?;
    let mut answer: Signatures = client.post(via, SIGN, &raw, BUDGET).await?;
    Ok(answer.remove(via).unwrap_or_default().into_iter().collect())
}
