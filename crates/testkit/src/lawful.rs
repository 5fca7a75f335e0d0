//! An independent look at what a server holds of a room: every event that it did not reject is signed, and authorised by
//! its auth events and by the state before it; what it rejected or soft-failed is not; and that state is what the
//! specification says it is, computed here over whole maps and walked chains.
//!
//! Knows the rules from ruma, the tables from `myelin-store`, and nothing of how `myelin-rooms` goes about it.

mod verdicts;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::EventNid;
use myelin_dag::{Pdu, StateTree, checks::RawPdu, state_tree::NodeHash};
use myelin_store::{
    Direction,
    tables::{AUTH_CHAINS, CURRENT_STATES, EVENTS, VerdictRecord},
};
use myelin_view::{Event, RoomInfo};
use ruma::{
    EventId, OwnedEventId, RoomId,
    events::{StateEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    signatures::PublicKeyMap,
    state_res::{self, Event as _, StateMap},
};
use serde_json::value::RawValue;

use crate::server::Server;

const EVENTS_MAX: usize = 1_000_000;
const STATES_MAX: usize = 100_000;

type Map = StateMap<OwnedEventId>;

/// What one server holds of one room.
pub(crate) struct Holding {
    info: Arc<RoomInfo>,
    events: HashMap<OwnedEventId, Arc<Event>>,
    by_nid: HashMap<EventNid, OwnedEventId>,
    /// Held for themselves, without what authorises them: memberships from rooms that the server was not in.
    bare: HashSet<OwnedEventId>,
    /// By the root of the tree.
    states: HashMap<NodeHash, Arc<Map>>,
    /// The forward extremities, and the state of the room.
    tips: Vec<EventNid>,
    current: Map,
    /// What the state of the room has been, if events were held against it in vain.
    once_current: Vec<Arc<Map>>,
}

impl Holding {
    /// `None` if the server does not know the room.
    pub(crate) async fn of(server: &Server, room_id: &str) -> Option<Self> {
        let room_id = <&RoomId>::try_from(room_id).expect("a room id");
        let view = &server.view;
        let room = view.room_by_id(room_id).await.expect("readable")?;
        let rows = view.store.read().all(&EVENTS, EVENTS_MAX).await.expect("readable");
        let mut holding = Self {
            info: room.info.clone(),
            events: HashMap::new(),
            by_nid: HashMap::new(),
            bare: HashSet::new(),
            states: HashMap::new(),
            tips: room.head.extremities.clone(),
            current: Map::new(),
            once_current: Vec::new(),
        };
        for (nid, row) in rows.into_iter().filter(|(_, row)| row.value.room == room.nid()) {
            let event = Event::from_row(nid, row, &room.info).expect("rows are events");
            let id = event.pdu.event_id.clone();
            holding.by_nid.insert(nid, id.clone());
            holding.events.insert(id, Arc::new(event));
        }
        for event in holding.events.values().filter(|event| event.state_before.is_none()) {
            let chain = view.store.get(&AUTH_CHAINS, &event.nid).await.expect("readable");
            if event.state_key.is_some() && chain.is_none() {
                holding.bare.insert(event.pdu.event_id.clone());
            }
        }
        let roots: HashSet<_> = holding.events.values().filter_map(|event| event.state_before).collect();
        for root in roots {
            holding.state_of(server, root).await;
        }
        holding.current = holding.map_of(server, &room.current_state).await;
        if holding.events.values().any(|event| is_soft_failed(event)) {
            let (nid, direction) = (room.nid(), Direction::Forward);
            let rows = view.store.scan(&CURRENT_STATES, &nid, direction, STATES_MAX).await.expect("readable");
            let roots: HashSet<_> = rows.into_iter().map(|(_, row)| NodeHash(row.root)).collect();
            for root in roots {
                let state = holding.state_of(server, root).await;
                holding.once_current.push(state);
            }
        }
        Some(holding)
    }

    async fn state_of(&mut self, server: &Server, root: NodeHash) -> Arc<Map> {
        if let Some(known) = self.states.get(&root) {
            return known.clone();
        }
        let tree = server.view.states.load(root).await.expect("states that are referred to are there");
        let map = Arc::new(self.map_of(server, &tree).await);
        self.states.insert(root, map.clone());
        map
    }

    async fn map_of(&self, server: &Server, tree: &StateTree) -> Map {
        let (keys, nids): (Vec<_>, Vec<_>) = tree.iter().unzip();
        let names = server.view.interner.state_key_names(&keys).await.expect("state keys have names");
        let pairs = names.iter().zip(nids).map(|(name, nid)| {
            let key = (StateEventType::from(name.event_type.as_str()), name.state_key.clone());
            (key, self.by_nid.get(&nid).expect("events of a state are held").clone())
        });
        pairs.collect()
    }

    /// The state before each event that has a whole one.
    pub(crate) fn states_before(&self) -> BTreeMap<OwnedEventId, Arc<Map>> {
        let with_state = self
            .events
            .values()
            .filter_map(|event| Some((event.pdu.event_id.clone(), self.whole_state_before(event)?.clone())));
        with_state.collect()
    }

    pub(crate) fn accepted(&self, event_id: &str) -> bool {
        let id = <&EventId>::try_from(event_id).expect("an event id");
        self.events.get(id).is_some_and(|event| event.accepted())
    }

    /// Whether it has a verdict, whatever that is; an outlier has none that counts.
    pub(crate) fn judged(&self, event_id: &str) -> bool {
        let id = <&EventId>::try_from(event_id).expect("an event id");
        self.events.get(id).is_some_and(|event| event.state_before.is_some())
    }

    /// Who was joined before an event, by which event of theirs.
    pub(crate) fn joined_before(&self, event_id: &str) -> Vec<(String, OwnedEventId)> {
        let id = <&EventId>::try_from(event_id).expect("an event id");
        let root = self.events.get(id).and_then(|event| event.state_before);
        let members = root.and_then(|root| self.states.get(&root)).into_iter().flat_map(|state| state.iter());
        let members = members.filter(|((kind, _), _)| *kind == StateEventType::RoomMember);
        let joined = members.filter(|(_, join)| {
            self.pdu(join).is_some_and(|pdu| pdu.membership() == Some(MembershipState::Join))
        });
        joined.map(|((_, user), join)| (user.clone(), join.clone())).collect()
    }

    /// Everything that is not lawful, to be read by people.
    pub(crate) fn breaches(&self, keys: &PublicKeyMap) -> Vec<String> {
        let mut breaches = Vec::new();
        for event in self.events.values() {
            let checks = match event.verdict {
                VerdictRecord::Rejected { .. } => vec![self.check_rejected(event)],
                _ => vec![
                    self.check_signatures(event, keys),
                    self.check_auth(event),
                    self.check_soft_failed(event),
                    self.check_state(event),
                    self.check_redaction(event),
                ],
            };
            let found = checks.into_iter().filter_map(Result::err);
            breaches.extend(found.map(|what| format!("{}: {what}", self.description_of(event))));
        }
        breaches.extend(self.check_current().err());
        breaches.sort();
        breaches
    }

    /// The current state is the resolution of the states after the forward extremities.
    fn check_current(&self) -> Result<(), String> {
        let after = |tip| self.state_after(self.by_nid.get(tip)?);
        let states: Option<Vec<Map>> = self.tips.iter().map(after).collect();
        let states = states.filter(|states| !states.is_empty());
        match states.and_then(|states| self.resolve(states)) {
            Some(expected) if expected != self.current => {
                let keys: HashSet<_> = expected.keys().chain(self.current.keys()).collect();
                let key = keys.into_iter().find(|key| expected.get(*key) != self.current.get(*key));
                Err(format!("the current state is not that after the forward extremities: {key:?}"))
            }
            _ => Ok(()),
        }
    }

    fn description_of(&self, event: &Event) -> String {
        let pdu = &event.pdu;
        let views = |ids: &[OwnedEventId]| {
            ids.iter().map(|id| format!("{id} ({})", self.view_of(id))).collect::<Vec<_>>().join(", ")
        };
        format!(
            "{} ({} {:?} of {}; {}; authorised by [{}], after [{}])",
            pdu.event_id,
            pdu.event_type,
            pdu.state_key,
            pdu.sender,
            self.view_of(&pdu.event_id),
            views(&pdu.auth_events),
            views(&pdu.prev_events)
        )
    }

    fn view_of(&self, id: &EventId) -> String {
        let Some(event) = self.events.get(id) else { return "not held".to_owned() };
        let state = event.state_before.and_then(|root| self.states.get(&root)).map(|map| digest(map));
        let shown = if event.order.is_some() { "shown" } else { "outside" };
        format!(
            "{:?}, {shown}, state {}",
            event.verdict,
            state.map_or("none".to_owned(), |digest| format!("{digest:x}"))
        )
    }

    fn rules(&self) -> &RoomVersionRules {
        &self.info.rules
    }

    /// Events of servers whose keys are not known go unchecked.
    fn check_signatures(&self, event: &Event, keys: &PublicKeyMap) -> Result<(), String> {
        let raw = RawValue::from_string(event.pdu.json.to_string()).expect("JSON");
        let formed = RawPdu(&raw).check_format(self.rules()).map_err(|dropped| dropped.to_string())?;
        let signing = formed.signing_servers(self.rules()).map_err(|dropped| dropped.to_string())?;
        if signing.iter().any(|server| !keys.contains_key(server.as_str())) {
            return Ok(());
        }
        formed.verify(keys, self.rules()).map(drop).map_err(|dropped| dropped.to_string())
    }

    /// The state before an event is the resolution of the states after its prev events, where all of those are held, and
    /// nothing lacks in them.
    fn check_state(&self, event: &Event) -> Result<(), String> {
        let Some(held) = self.whole_state_before(event) else { return Ok(()) };
        let prevs: Option<Vec<Map>> = event.pdu.prev_events.iter().map(|id| self.state_after(id)).collect();
        let Some(expected) = prevs.and_then(|states| self.resolve(states)) else { return Ok(()) };
        let differing = expected.iter().filter(|(key, id)| held.get(*key) != Some(*id));
        let more = held.iter().filter(|(key, _)| !expected.contains_key(*key));
        match differing.chain(more).next() {
            None => Ok(()),
            Some((key, id)) => {
                let found = held.get(key).map_or("nothing", |id| id.as_str());
                Err(format!("the state before it has {found} as {key:?}, not {id}"))
            }
        }
    }

    /// `None` for outliers, and where something lacks in it as the room was partially joined.
    fn whole_state_before(&self, event: &Event) -> Option<&Arc<Map>> {
        self.states.get(&event.state_before.filter(|_| !event.state_is_partial)?)
    }

    fn state_after(&self, id: &EventId) -> Option<Map> {
        let event = self.events.get(id)?;
        let mut state = (**self.whole_state_before(event)?).clone();
        if let (Some(key), false) = (&event.pdu.state_key, event.pdu.rejected()) {
            let event_type = StateEventType::from(event.pdu.event_type.to_string());
            state.insert((event_type, key.clone()), event.pdu.event_id.clone());
        }
        Some(state)
    }

    /// `None` where it cannot be computed here: room version 1, or a chain that is not held.
    fn resolve(&self, mut states: Vec<Map>) -> Option<Map> {
        states.dedup();
        if states.len() == 1 {
            return states.pop();
        }
        if states.is_empty() {
            return Some(Map::new());
        }
        let rules = self.rules().state_res.v2_rules()?;
        let chains = states
            .iter()
            .map(|state| self.chain(state.values().cloned().collect()).into_iter().collect())
            .collect();
        let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
            let conflicted: HashSet<_> = conflicted.values().flatten().cloned().collect();
            let below = self.chain(conflicted.iter().cloned().collect());
            let reaches =
                |id: &OwnedEventId| self.chain(vec![id.clone()]).iter().any(|id| conflicted.contains(id));
            Some(below.into_iter().filter(reaches).chain(conflicted.iter().cloned()).collect())
        };
        let authorization = &self.rules().authorization;
        state_res::resolve(authorization, rules, &states, chains, |id| self.pdu(id), subgraph).ok()
    }

    fn chain(&self, mut pending: Vec<OwnedEventId>) -> HashSet<OwnedEventId> {
        let mut seen = HashSet::new();
        while let Some(event) = pending.pop().and_then(|id| self.events.get(&id)) {
            pending.extend(event.pdu.auth_events.iter().filter(|id| seen.insert((*id).clone())).cloned());
        }
        seen
    }

    fn pdu(&self, id: &EventId) -> Option<Arc<Pdu>> {
        Some(self.events.get(id)?.pdu.clone())
    }
}

fn is_soft_failed(event: &Event) -> bool {
    matches!(event.verdict, VerdictRecord::SoftFailed { .. })
}

/// Events before which two servers hold different whole states, or that they do not judge alike.
pub(crate) fn contradictions(holdings: &[(String, Holding)]) -> Vec<String> {
    let mut first: BTreeMap<OwnedEventId, Arc<Map>> = BTreeMap::new();
    let mut found = Vec::new();
    for (id, state) in holdings.iter().flat_map(|(_, holding)| holding.states_before()) {
        let known = first.entry(id.clone()).or_insert_with(|| state.clone());
        if *known != state {
            let keys: HashSet<_> = known.keys().chain(state.keys()).collect();
            let key = keys.into_iter().find(|key| known.get(*key) != state.get(*key));
            found.push(format!("two states before {id}: they differ in {key:?}"));
        }
    }
    found.extend(verdicts::unlike_verdicts(holdings.iter().map(|(_, holding)| holding)));
    found
}

fn digest(map: &Map) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let sorted: BTreeMap<_, _> = map.iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect();
    let mut hasher = DefaultHasher::new();
    sorted.hash(&mut hasher);
    hasher.finish()
}

/// In which events the servers' holdings differ, oldest first: held or not, how judged, after which state.
pub(crate) fn comparison(holdings: &[(String, Holding)]) -> Vec<String> {
    let mut events: BTreeMap<(u64, OwnedEventId), ()> = BTreeMap::new();
    for event in holdings.iter().flat_map(|(_, holding)| holding.events.values()) {
        events.insert((event.pdu.depth, event.pdu.event_id.clone()), ());
    }
    let mut found = Vec::new();
    for (depth, id) in events.into_keys() {
        let views: Vec<String> = holdings.iter().map(|(_, holding)| holding.view_of(&id)).collect();
        if views.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        let event = holdings.iter().find_map(|(_, holding)| holding.events.get(&id));
        let what = event.map(|event| {
            let pdu = &event.pdu;
            format!(
                "{} {:?} of {} {} after {:?}",
                pdu.event_type,
                pdu.state_key,
                pdu.sender,
                pdu.content.get(),
                pdu.prev_events
            )
        });
        found.push(format!("{depth} {id}: {}", what.unwrap_or_default()));
        let each = holdings.iter().zip(views).map(|((name, _), view)| format!("    {name}: {view}"));
        found.extend(each);
    }
    found
}
