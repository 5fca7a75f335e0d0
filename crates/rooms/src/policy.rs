//! Policy servers (Server-Server API, "Policy Servers"): an event made here is shown to the one that its room names
//! before it is sent.
//!
//! The room stays locked meanwhile: an event is made for one head, and nothing can be put after it before its policy
//! server has spoken.

use std::sync::Arc;

use futures::future::BoxFuture;
use myelin_dag::{
    Pdu,
    checks::{check_policy_server, policy_of, sign_with},
};
use ruma::ServerName;

use crate::{Error, writer::Draft};

/// Key ids and signatures, as a policy server gave them.
pub type PolicySignatures = Vec<(String, String)>;

/// The way to policy servers, implemented by who knows the network.
pub trait PolicyServers: Send + Sync + 'static {
    /// The signatures of the policy server `via` for an event, or its words of refusal.
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        pdu: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>>;
}

impl Draft<'_> {
    /// The event with the signature of the room's policy server, if it has one.
    pub(crate) async fn approved(&self, pdu: Pdu) -> Result<Pdu, Error> {
        let Some(servers) = self.rooms().policy_servers() else { return Ok(pdu) };
        let policy = self.state_event("m.room.policy", "").await?;
        let Some(policy) = policy.and_then(|event| policy_of(&event.pdu)) else { return Ok(pdu) };
        let rules = &self.room.info.rules;
        let own = policy.via == self.rooms().view().server_name;
        if own || !self.room.has_server(&policy.via) || check_policy_server(&pdu, &policy, rules).is_ok() {
            return Ok(pdu);
        }
        let signatures = servers.sign(&policy.via, &pdu).await.map_err(Error::Forbidden)?;
        let mut signed = pdu;
        for (key_id, signature) in signatures {
            let more = sign_with(&signed, &policy.via, &key_id, &signature, rules);
            signed = more.ok_or_else(|| unsigned("its answer is no signature"))?;
        }
        check_policy_server(&signed, &policy, rules).map_err(|error| unsigned(&error.to_string()))?;
        Ok(signed)
    }
}

fn unsigned(why: &str) -> Error {
    Error::Forbidden(format!("The policy server of the room did not sign the event: {why}."))
}

pub(crate) type Servers = Arc<dyn PolicyServers>;
