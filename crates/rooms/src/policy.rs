//! Policy servers (Server-Server API, "Policy Servers"): an event made here is shown to the one that its room names
//! before it is sent.
//!
//! Only who wants the event waits for that: it is made in the room's turn, the turn is passed on, the policy server is
//! asked, and the event comes back with its signature ([`Rooms::run_on`]). Where the room has gone on meanwhile, the
//! event branches off, and is judged again by what the room is now ([`crate::receive::late`]). Few events of a room are
//! on that way at a time ([`UNDER_WAY_MAX`]), and so branches are few.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use myelin_core::{EventNid, UserNid};
use myelin_dag::{
    NewEvent, Pdu,
    checks::{VerifiedPdu, check_policy_server, policy_of, with_signature},
};
use myelin_store::{NidKind, tables::SentBy};
use myelin_view::{Event, RoomInfo, RoomSnapshot};
use ruma::{ServerName, events::room::policy::RoomPolicyEventContent, room_version_rules::RoomVersionRules};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    EXTREMITIES_MAX, Error, Rooms,
    authorise::AuthSet,
    writer::{Draft, SlotRef},
};

/// Events of a room that are made and not yet in it: when one comes in, as many others may have branched off.
pub const UNDER_WAY_MAX: usize = EXTREMITIES_MAX / 2;
/// Events about which one command may have a policy server asked.
const ASKED_MAX: usize = 8;

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

    /// Whether it is not asked just now, as it does not answer: who can wait does better to wait.
    fn is_spared(&self, _via: &ServerName) -> bool {
        false
    }
}

/// For those who have no network.
pub struct NoPolicyServers;

impl PolicyServers for NoPolicyServers {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        _: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>> {
        async move { Err(format!("The policy server {via} cannot be asked from here.")) }.boxed()
    }
}

/// An event that is not to be in its room before the policy server has signed it.
#[derive(Debug, Clone)]
pub struct Unapproved {
    wish: NewEvent,
    pdu: VerifiedPdu,
    policy: RoomPolicyEventContent,
    info: Arc<RoomInfo>,
}

/// What a policy server said of an event (signed, or why not), and what that was made of.
#[derive(Debug, Clone)]
pub struct Answered {
    wish: NewEvent,
    answer: Result<VerifiedPdu, String>,
}

/// What a command was answered so far.
#[derive(Default)]
pub struct Approvals {
    /// The room stays in use as long as the place is taken.
    place: Option<(SlotRef, OwnedSemaphorePermit)>,
    answers: Vec<Answered>,
}

impl Approvals {
    pub fn answers(&self) -> Vec<Answered> {
        self.answers.clone()
    }

    /// Called outside the room's turn. The first time only a place among those under way is taken: what was made before
    /// may be old by then.
    pub async fn bring(&mut self, rooms: &Rooms, slot: SlotRef, wanted: Unapproved) -> Result<(), Error> {
        if self.place.is_none() {
            let permit = slot.place_under_way().await;
            self.place = permit.map(|permit| (slot, permit));
            return Ok(());
        }
        if self.answers.len() >= ASKED_MAX {
            return Err(Error::Busy);
        }
        let Unapproved { wish, pdu, policy, info } = wanted;
        let answer = rooms.approve(&info.rules, &policy, pdu).await;
        self.answers.push(Answered { wish, answer });
        Ok(())
    }
}

impl Rooms {
    /// What the room wants of events, if the server that it names takes part in it.
    pub async fn policy(&self, room: &RoomSnapshot) -> Result<Option<RoomPolicyEventContent>, Error> {
        let event = self.view.current_state_event(room, "m.room.policy", "").await?;
        let policy = event.and_then(|event| policy_of(&event.pdu));
        Ok(policy.filter(|policy| room.has_server(&policy.via)))
    }

    /// The same, if the policy server is spared just now.
    pub async fn spared_policy(&self, room: &RoomSnapshot) -> Result<Option<RoomPolicyEventContent>, Error> {
        let policy = self.policy(room).await?;
        Ok(policy.filter(|policy| self.policy_servers.is_spared(&policy.via)))
    }

    /// The event with the signature of the policy server, which is asked if it has none; or why it gets none.
    pub async fn approve(
        &self,
        rules: &RoomVersionRules,
        policy: &RoomPolicyEventContent,
        event: VerifiedPdu,
    ) -> Result<VerifiedPdu, String> {
        if check_policy_server(event.pdu(), policy, rules).is_ok() {
            return Ok(event);
        }
        let mut signed = event;
        for (key_id, signature) in self.policy_servers.sign(&policy.via, signed.pdu()).await? {
            signed =
                with_signature(signed, &policy.via, &key_id, &signature, rules).ok_or_else(no_signature)?;
        }
        check_policy_server(signed.pdu(), policy, rules).map_err(|error| unsigned(&error.to_string()))?;
        Ok(signed)
    }
}

impl Draft<'_> {
    /// Makes an event here, at the end of the room, if the rules and the policy server of the room allow it.
    pub(crate) async fn append_by(
        &mut self,
        sender: UserNid,
        wish: NewEvent,
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        // Of several answers to the same wish the last one is of the room as it is now.
        if let Some(at) = self.policy_answers.iter().rposition(|answered| answered.wish == wish) {
            let pdu = self.policy_answers.remove(at).answer.map_err(Error::Forbidden)?;
            if let Some(event) = self.append_approved(sender, &wish, pdu, sent_by.clone()).await? {
                return Ok(event);
            }
        }
        let (pdu, auth) = self.make(wish.clone()).await?;
        if let Some(policy) = self.wanting(&pdu).await? {
            let (pdu, info) = (VerifiedPdu::made_here(pdu), self.room.info.clone());
            return Err(Error::Unapproved(Box::new(Unapproved { wish, pdu, policy, info })));
        }
        self.put_at_end(sender, pdu, &auth, sent_by).await
    }

    /// The policy of the room, if this event is to be signed by it and is not.
    async fn wanting(&self, pdu: &Pdu) -> Result<Option<RoomPolicyEventContent>, Error> {
        let policy = self.state_event("m.room.policy", "").await?;
        let policy = policy.and_then(|event| policy_of(&event.pdu));
        let own = &self.rooms().view().server_name;
        Ok(policy.filter(|policy| {
            policy.via != *own
                && self.room.has_server(&policy.via)
                && check_policy_server(pdu, policy, &self.room.info.rules).is_err()
        }))
    }

    /// `None`: as it was made it has no place in the room any more.
    async fn append_approved(
        &mut self,
        sender: UserNid,
        wish: &NewEvent,
        event: VerifiedPdu,
        sent_by: Option<SentBy>,
    ) -> Result<Option<Arc<Event>>, Error> {
        let pdu = event.pdu();
        if self.wanting(pdu).await?.is_some() {
            return Ok(None);
        }
        let named = self.named_extremities(wish).await?;
        if named.iter().map(|prev| &prev.pdu.event_id).eq(pdu.prev_events.iter()) {
            let auth = self.auth_of(wish, &self.state_after_named(&named).await?).await?;
            if auth.auth_events() == pdu.auth_events {
                return self.put_at_end(sender, event.into_pdu(), &auth, sent_by).await.map(Some);
            }
        }
        self.take_late(event, sent_by).await
    }

    async fn put_at_end(
        &mut self,
        sender: UserNid,
        pdu: Pdu,
        auth: &AuthSet,
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        if !self.names_all_extremities() {
            // As a branch of the room, which it is.
            let taken = self.take_late(VerifiedPdu::made_here(pdu), sent_by).await?;
            return taken.ok_or_else(|| Error::Forbidden(NOT_NOW.to_owned()));
        }
        let auth: Vec<EventNid> = auth.events().map(|event| event.nid).collect();
        let nid = EventNid(self.rooms().view().nids.allocate(NidKind::Event).await?);
        self.place(nid, sender, pdu, &auth, sent_by).await
    }
}

/// The room is in so many branches that an event cannot come after all of them.
const NOT_NOW: &str = "The room does not allow this as it is now.";

fn unsigned(why: &str) -> String {
    format!("The policy server of the room did not sign the event: {why}.")
}

fn no_signature() -> String {
    unsigned("its answer is no signature")
}
