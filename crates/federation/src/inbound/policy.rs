//! The last check of an event: the signature of the room's policy server, if it has one (Server-Server API, "Policy
//! Servers"). An event that comes without is shown to it, and so are those that are made here.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use myelin_dag::{Pdu, checks::VerifiedPdu};
use myelin_rooms::{Error, Incoming, PolicyServers, PolicySignatures};
use myelin_view::RoomSnapshot;
use ruma::{OwnedServerName, RoomId, ServerName};
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
    ) -> Result<(), Error> {
        let Some(policy) = self.rooms.policy(room).await? else { return Ok(()) };
        for event in events {
            match self.rooms.approve(&room.info.rules, &policy, event.pdu.clone()).await {
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

impl PolicyServers for Client {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        pdu: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>> {
        async move {
            ask(self, via, pdu).await.map_err(|error| match error {
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
