//! The room as a joining server gets it (`send_join`): the state before the join and what authorises it, out of the
//! tables as text.

use std::collections::BTreeSet;

use myelin_core::EventNid;
use myelin_dag::{AuthChain, Pdu, StateTree, checks::missing_auth_events};
use myelin_store::tables::EVENTS;
use myelin_view::RoomInfo;
use ruma::events::TimelineEventType;

use crate::{Error, Rooms};

/// Events read at a time.
const PAGE: usize = 500;
/// Members that name a room without a name (Client-Server API, "Calculating the display name for a room").
const HEROES_MAX: usize = 5;

/// JSON arrays of PDUs.
#[derive(Debug, Clone)]
pub struct JoinAnswer {
    pub state: String,
    pub auth_chain: String,
    pub members_omitted: bool,
}

impl Rooms {
    /// Of a state of more events than `whole_max`, members are left out as far as nothing else needs them, and of the auth
    /// chain what is in the state.
    pub async fn join_answer(
        &self,
        info: &RoomInfo,
        join: &Pdu,
        state_before: &StateTree,
        whole_max: usize,
    ) -> Result<JoinAnswer, Error> {
        let all: Vec<EventNid> = state_before.iter().map(|(_, event)| event).collect();
        let omit_members = all.len() > whole_max;
        let state =
            if omit_members { self.without_most_members(state_before, join).await? } else { all.clone() };
        let members_omitted = state.len() < all.len();
        let mut beside = self.beside(info, state_before).await?;
        if members_omitted {
            beside.state.retain(|pdu| pdu.event_type != TimelineEventType::RoomMember);
        }
        let auth = missing_auth_events(join, &info.rules, |_| false);
        let auth: Vec<_> = self.view.interner.lookup_events(&auth).await?.into_values().collect();
        let roots: Vec<_> = state.iter().chain(&auth).copied().collect();
        let mut chain = self.union_of_chains(&roots).await?;
        chain.extend(auth);
        chain.extend(beside.held.iter());
        if omit_members {
            state.iter().for_each(|nid| _ = chain.remove(nid));
        }
        let state = self.json_array(state.into_iter(), &beside.state).await?;
        let auth_chain = self.json_array(chain.into_iter(), &beside.auth_chain).await?;
        Ok(JoinAnswer { state, auth_chain, members_omitted })
    }

    /// What is not a member, the joining user's own membership, and the heroes of a room without a name.
    async fn without_most_members(&self, state: &StateTree, join: &Pdu) -> Result<Vec<EventNid>, Error> {
        let (keys, events): (Vec<_>, Vec<_>) = state.iter().unzip();
        let names = self.view.interner.state_key_names(&keys).await?;
        let is_named = |name: &str| names.iter().any(|key| key.event_type == name);
        let mut heroes =
            if is_named("m.room.name") || is_named("m.room.canonical_alias") { 0 } else { HEROES_MAX };
        let mut kept = Vec::new();
        for (name, event) in names.iter().zip(events) {
            let own = Some(&*name.state_key) == join.state_key.as_deref();
            let keep = name.event_type != "m.room.member" || own || heroes > 0;
            if keep && name.event_type == "m.room.member" && !own {
                heroes -= 1;
            }
            kept.extend(keep.then_some(event));
        }
        Ok(kept)
    }

    /// The events of the chains of all of them.
    async fn union_of_chains(&self, events: &[EventNid]) -> Result<BTreeSet<EventNid>, Error> {
        let mut union = AuthChain::default();
        for page in events.chunks(PAGE) {
            let chains = self.chains.load_many(page).await?;
            union = AuthChain::union(chains.iter().map(|chain| &**chain).chain([&union]));
        }
        Ok(union.iter().collect())
    }

    /// Of events that are held, and of others.
    pub(super) async fn json_array(
        &self,
        events: impl Iterator<Item = EventNid>,
        others: &[Pdu],
    ) -> Result<String, Error> {
        let nids: Vec<_> = events.collect();
        let mut text = String::from("[");
        let mut push = |json: &str| {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(json);
        };
        for page in nids.chunks(PAGE) {
            for row in self.view.store.multi_get(&EVENTS, page).await?.into_iter().flatten() {
                push(&row.value.json);
            }
        }
        others.iter().for_each(|pdu| push(&pdu.json));
        text.push(']');
        Ok(text)
    }
}
