//! Whether what comes is what lacked of the state with which this server came into a room, and nothing else.

use std::collections::HashSet;

use myelin_core::EventNid;
use myelin_dag::{AuthChain, Pdu, checks::servers_to_sign};
use myelin_store::tables::{KeylessRecord, PartialRoomRecord};
use ruma::room_version_rules::RoomVersionRules;

use super::{Complete, Given};
use crate::{
    Error, Rooms,
    writer::{Draft, member_id},
};

/// Events looked at in one go.
const PAGE: usize = 1_000;
const NOT_ALIKE: &str = "The state differs in more than members from the one with which this server came in.";

impl Rooms {
    /// Which of these were not here for want of the keys: signed by them, or authorised by what is.
    pub(super) async fn lacked(
        &self,
        events: &[EventNid],
        keys: &[KeylessRecord],
        rules: &RoomVersionRules,
    ) -> Result<HashSet<EventNid>, Error> {
        let chains = self.chains.lookup_many(events).await?;
        let chains: Vec<_> = chains.into_iter().map(Option::unwrap_or_default).collect();
        let union = AuthChain::union(chains.iter().map(|chain| &**chain));
        let all: Vec<EventNid> = union.iter().chain(events.iter().copied()).collect();
        let mut signed = HashSet::new();
        for page in all.chunks(PAGE) {
            let page = self.view.events.load_many(page).await?.into_iter().flatten();
            signed
                .extend(page.filter(|event| is_signed_with(&event.pdu, keys, rules)).map(|event| event.nid));
        }
        let lacked = events.iter().zip(&chains).filter(|(event, chain)| {
            signed.contains(*event) || signed.iter().any(|signed| chain.contains(*signed))
        });
        Ok(lacked.map(|(event, _)| *event).collect())
    }
}

impl Complete<'_> {
    /// Who let this server in is believed. Any other server that was named may bring what lacks, and change nothing else.
    pub(super) async fn require_likeness(
        &self,
        draft: &Draft<'_>,
        record: &PartialRoomRecord,
    ) -> Result<(), Error> {
        if !matches!(&self.completion.given, Given::Whole(server) if *server != *record.resident) {
            return Ok(());
        }
        let members: HashSet<_> = self.state.members.iter().map(|(_, event)| *event).collect();
        let partial = draft.rooms().state_before_join(record.join).await?;
        let mut added = Vec::new();
        for (_, before, now) in partial.diff(&self.state.tree) {
            let is_member = match (before, now) {
                (_, Some(now)) => members.contains(&now),
                (Some(before), None) => member_id(&draft.event(before).await?.pdu).is_some(),
                (None, None) => true,
            };
            match (before, now) {
                _ if is_member && record.members_omitted => {}
                (None, Some(now)) => added.push(now),
                _ => return Err(Error::BadState(NOT_ALIKE.to_owned())),
            }
        }
        let rules = &draft.room.info.rules;
        let lacked = draft.rooms().lacked(&added, &record.keyless, rules).await?;
        match lacked.len() == added.len() {
            true => Ok(()),
            false => Err(Error::BadState(NOT_ALIKE.to_owned())),
        }
    }
}

fn is_signed_with(pdu: &Pdu, keys: &[KeylessRecord], rules: &RoomVersionRules) -> bool {
    let Ok(servers) = servers_to_sign(pdu, rules) else { return false };
    servers.iter().any(|server| keys.iter().any(|key| *server == *key.server))
}
