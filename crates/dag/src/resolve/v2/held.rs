//! An event of the full conflicted set, with what the algorithm asks of it again and again.

use std::{collections::HashSet, sync::Arc};

use myelin_core::{EventNid, StateKeyNid};
use ruma::{
    OwnedEventId, OwnedUserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    state_res::events::RoomCreateEvent,
};

use super::{AtHand, Basis};
use crate::{
    Pdu,
    auth::{auth_types, implied_create_event},
    resolve::{Graph, ResolveError, conflict},
};

/// What the creator has where there are no power levels, in versions whose creators have no special rights.
const CREATOR_LEVEL: i64 = 100;

pub struct Held {
    pub nid: EventNid,
    pub pdu: Arc<Pdu>,
    /// `None` for what is no state event.
    pub key: Option<StateKeyNid>,
    /// Under which keys the state is looked at to judge it: its auth types that any event has ever had.
    pub reads: Vec<StateKeyNid>,
    /// Those of its auth events that can be had.
    pub auth: Vec<EventNid>,
    /// The power levels among them.
    pub levels: Option<OwnedEventId>,
    /// The power level of its sender by its auth events.
    pub power: i64,
    /// Whether it may take rights away from somebody else.
    pub is_power_event: bool,
}

/// The room's creators, from the first event that names its create event.
pub type Creators = Option<HashSet<OwnedUserId>>;

impl Held {
    /// The events that authorise this one, those that are not listed because the room id is their name among them.
    pub fn by(pdu: &Pdu, rules: &RoomVersionRules) -> impl Iterator<Item = OwnedEventId> {
        pdu.auth_events.iter().cloned().chain(implied_create_event(pdu, rules))
    }

    /// What [`Held::by`] gives is at hand.
    pub fn new<G: Graph>(
        nid: EventNid,
        pdu: Arc<Pdu>,
        basis: &Basis<'_, G>,
        creators: &mut Creators,
    ) -> Result<Arc<Self>, ResolveError> {
        let (rules, at_hand) = (basis.rules, basis.at_hand);
        // A malformed event is allowed nowhere, whatever the state.
        let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
        let types = types.unwrap_or_default();
        let mut reads: Vec<_> = types.iter().filter_map(|(kind, key)| basis.key(kind, key)).collect();
        reads.sort_unstable();
        reads.dedup();
        let key = match conflict::key_of(&pdu) {
            Some((kind, key)) => {
                let nid = basis.key(&kind, &key);
                Some(nid.ok_or_else(|| ResolveError::NoNid(pdu.event_id.clone()))?)
            }
            None => None,
        };
        Ok(Arc::new(Self {
            key,
            reads,
            auth: pdu.auth_events.iter().filter_map(|id| at_hand.graph.event_nid(id)).collect(),
            levels: auth_event(&pdu, &TimelineEventType::RoomPowerLevels, at_hand)
                .map(|levels| levels.event_id.clone()),
            power: power_of_sender(&pdu, basis, creators),
            is_power_event: is_power_event(&pdu),
            nid,
            pdu,
        }))
    }
}

fn power_of_sender<G: Graph>(pdu: &Pdu, basis: &Basis<'_, G>, creators: &mut Creators) -> i64 {
    let auth = &basis.rules.authorization;
    let is_creator = is_creator(pdu, basis, creators);
    if is_creator && auth.explicitly_privilege_room_creators {
        return i64::MAX;
    }
    match auth_event(pdu, &TimelineEventType::RoomPowerLevels, basis.at_hand) {
        Some(levels) => levels.decoded_levels(auth).map_or(0, |levels| levels.of_user(&pdu.sender)),
        None if is_creator => CREATOR_LEVEL,
        None => 0,
    }
}

fn is_creator<G: Graph>(pdu: &Pdu, basis: &Basis<'_, G>, creators: &mut Creators) -> bool {
    if creators.is_none() {
        let create = match implied_create_event(pdu, basis.rules) {
            Some(id) => basis.at_hand.event(&id),
            None => auth_event(pdu, &TimelineEventType::RoomCreate, basis.at_hand),
        };
        *creators =
            create.and_then(|create| RoomCreateEvent::new(create).creators(&basis.rules.authorization).ok());
    }
    creators.as_ref().is_some_and(|creators| creators.contains(&pdu.sender))
}

pub fn auth_event<G: Graph>(
    pdu: &Pdu,
    event_type: &TimelineEventType,
    at_hand: &AtHand<'_, G>,
) -> Option<Arc<Pdu>> {
    let is_it = |event: &Arc<Pdu>| event.event_type == *event_type && event.state_key.as_deref() == Some("");
    pdu.auth_events.iter().filter_map(|id| at_hand.event(id)).find(is_it)
}

fn is_power_event(pdu: &Pdu) -> bool {
    match pdu.event_type {
        TimelineEventType::RoomPowerLevels
        | TimelineEventType::RoomJoinRules
        | TimelineEventType::RoomCreate => pdu.state_key.as_deref() == Some(""),
        TimelineEventType::RoomMember => {
            let removes = matches!(pdu.membership(), Some(MembershipState::Leave | MembershipState::Ban));
            removes && pdu.state_key.as_deref() != Some(pdu.sender.as_str())
        }
        _ => false,
    }
}
