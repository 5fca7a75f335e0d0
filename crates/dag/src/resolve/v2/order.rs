//! The two orders of the algorithm: the reverse topological power ordering of power events, and the mainline ordering
//! of the rest.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::EventNid;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    state_res::events::RoomCreateEvent,
};

use super::AtHand;
use crate::{Pdu, auth::implied_create_event, resolve::Graph};

/// Mainlines are as long as their room has had power levels.
const MAINLINE_STEPS_MAX: usize = 100_000;
/// What the creator has where there are no power levels, in versions whose creators have no special rights.
const CREATOR_LEVEL: i64 = 100;

pub struct Orders<'a, G> {
    rules: &'a RoomVersionRules,
    full: &'a [(EventNid, Arc<Pdu>)],
    index_of: HashMap<&'a EventId, usize>,
    at_hand: &'a AtHand<'a, G>,
    /// The room's creators, from the first event that names its create event.
    creators: RefCell<Option<HashSet<OwnedUserId>>>,
}

/// The one that comes first is the least.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    power: Reverse<i64>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    event_id: &'a EventId,
    index: usize,
}

impl<'a, G: Graph> Orders<'a, G> {
    pub fn new(
        rules: &'a RoomVersionRules,
        full: &'a [(EventNid, Arc<Pdu>)],
        at_hand: &'a AtHand<'a, G>,
    ) -> Self {
        let index_of = full.iter().enumerate().map(|(index, (_, pdu))| (&*pdu.event_id, index)).collect();
        Self { rules, full, index_of, at_hand, creators: RefCell::default() }
    }

    fn pdu(&self, index: usize) -> &'a Pdu {
        &self.full[index].1
    }

    /// The power events of the full conflicted set and what of it is in their auth chains.
    pub fn by_power(&self) -> Vec<usize> {
        let auth_edges = self.power_graph();
        let mut waiting: HashMap<usize, usize> =
            auth_edges.iter().map(|(index, auth)| (*index, auth.len())).collect();
        let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, auth) in &auth_edges {
            auth.iter().for_each(|parent| children.entry(*parent).or_default().push(*index));
        }
        let roots = auth_edges.iter().filter(|(_, auth)| auth.is_empty());
        let mut heap: BinaryHeap<_> = roots.map(|(index, _)| Reverse(self.rank(*index))).collect();
        let mut sorted = Vec::with_capacity(auth_edges.len());
        while let Some(Reverse(Rank { index, .. })) = heap.pop() {
            sorted.push(index);
            for child in children.get(&index).into_iter().flatten() {
                let left = waiting.entry(*child).or_default();
                *left -= 1;
                if *left == 0 {
                    heap.push(Reverse(self.rank(*child)));
                }
            }
        }
        sorted
    }

    /// Each event of the graph with its auth events that are in the full conflicted set.
    fn power_graph(&self) -> HashMap<usize, Vec<usize>> {
        let mut graph: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut pending: Vec<usize> =
            (0..self.full.len()).filter(|index| is_power_event(self.pdu(*index))).collect();
        while let Some(index) = pending.pop() {
            if graph.contains_key(&index) {
                continue;
            }
            let auth = self.pdu(index).auth_events.iter().filter_map(|id| self.index_of.get(&**id).copied());
            let auth: HashSet<usize> = auth.collect();
            pending.extend(&auth);
            graph.insert(index, auth.into_iter().collect());
        }
        graph
    }

    fn rank(&self, index: usize) -> Rank<'a> {
        let pdu = self.pdu(index);
        Rank {
            power: Reverse(self.power_of_sender(pdu)),
            origin_server_ts: pdu.origin_server_ts,
            event_id: &pdu.event_id,
            index,
        }
    }

    /// By the power levels among the event's auth events.
    fn power_of_sender(&self, pdu: &Pdu) -> i64 {
        let auth = &self.rules.authorization;
        let levels = self.auth_event(pdu, &TimelineEventType::RoomPowerLevels);
        let is_creator = self.is_creator(pdu);
        if is_creator && auth.explicitly_privilege_room_creators {
            return i64::MAX;
        }
        match levels {
            Some(levels) => levels.decoded_levels(auth).map_or(0, |levels| levels.of_user(&pdu.sender)),
            None if is_creator => CREATOR_LEVEL,
            None => 0,
        }
    }

    fn is_creator(&self, pdu: &Pdu) -> bool {
        let mut creators = self.creators.borrow_mut();
        if creators.is_none() {
            let create = match implied_create_event(pdu, self.rules) {
                Some(id) => self.at_hand.event(&id),
                None => self.auth_event(pdu, &TimelineEventType::RoomCreate),
            };
            *creators = create
                .and_then(|create| RoomCreateEvent::new(create).creators(&self.rules.authorization).ok());
        }
        creators.as_ref().is_some_and(|creators| creators.contains(&pdu.sender))
    }

    fn auth_event(&self, pdu: &Pdu, event_type: &TimelineEventType) -> Option<Arc<Pdu>> {
        let is_it =
            |event: &Arc<Pdu>| event.event_type == *event_type && event.state_key.as_deref() == Some("");
        pdu.auth_events.iter().filter_map(|id| self.at_hand.event(id)).find(is_it)
    }

    /// `levels`: the power levels that the mainline begins with.
    pub fn by_mainline(&self, mut events: Vec<usize>, levels: Option<Arc<Pdu>>) -> Vec<usize> {
        let mut mainline: Vec<OwnedEventId> = Vec::new();
        let mut next = levels;
        while let Some(levels) = next.filter(|_| mainline.len() < MAINLINE_STEPS_MAX) {
            next = self.auth_event(&levels, &TimelineEventType::RoomPowerLevels);
            mainline.push(levels.event_id.clone());
        }
        // The oldest is the first; what has nothing to do with the mainline comes before it.
        let mut positions: HashMap<OwnedEventId, usize> =
            mainline.into_iter().rev().enumerate().map(|(at, id)| (id, at + 1)).collect();
        events.sort_by_cached_key(|index| {
            let pdu = self.pdu(*index);
            (self.position(pdu, &mut positions), pdu.origin_server_ts, &pdu.event_id)
        });
        events
    }

    /// The position of the nearest power levels on the mainline, remembered for all those on the way there.
    fn position(&self, pdu: &Pdu, positions: &mut HashMap<OwnedEventId, usize>) -> usize {
        if let Some(position) = positions.get(&pdu.event_id) {
            return *position;
        }
        let mut way = Vec::new();
        let mut next = self.auth_event(pdu, &TimelineEventType::RoomPowerLevels);
        let position = loop {
            match next {
                None => break 0,
                Some(_) if way.len() == MAINLINE_STEPS_MAX => break 0,
                Some(levels) => match positions.get(&levels.event_id) {
                    Some(position) => break *position,
                    None => {
                        next = self.auth_event(&levels, &TimelineEventType::RoomPowerLevels);
                        way.push(levels.event_id.clone());
                    }
                },
            }
        };
        positions.extend(way.into_iter().map(|id| (id, position)));
        position
    }
}

/// Events that may take rights away from somebody else.
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
