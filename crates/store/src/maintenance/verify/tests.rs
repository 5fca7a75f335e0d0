//! A small sound store, and one damage at a time.

use std::sync::Arc;

use futures::executor::block_on;
use myelin_core::{Position, RoomNid, TimelineOrder, UserNid};

use super::*;
use crate::{
    Batch, NidKind,
    backend::{RawBatch, Stamped, Write},
    codec::AtPosition,
    log::LogEntry,
    memory::{Memory, MemoryDisk},
    tables::*,
};

/// Rules of a toy: a node is `children count, children, entries`, its key is the sum of its bytes; an event's JSON is
/// its id.
struct Toy;

impl Knowledge for Toy {
    fn check_event(&self, _: &RoomRecord, event: &EventRecord) -> Result<(), String> {
        (event.json == event.event_id).then_some(()).ok_or_else(|| "the hash does not match".to_owned())
    }

    fn read_node(&self, key: &[u8; 16], bytes: &[u8]) -> Result<StateNode, String> {
        let (children, rest) = bytes.split_first().ok_or("the node is empty")?;
        if *key != key_of(bytes) {
            return Err("the node is not what its key says".to_owned());
        }
        let (children, entries) = rest.split_at(usize::from(*children) * 16);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        Ok(StateNode {
            children: children.as_chunks().0.to_vec(),
            entries: entries
                .chunks(16)
                .map(|entry| (StateKeyNid(number(&entry[..8])), EventNid(number(&entry[8..]))))
                .collect(),
        })
    }

    fn empty_state(&self) -> [u8; 16] {
        [0; 16]
    }
}

fn node(children: &[[u8; 16]], entries: &[(u64, u64)]) -> ([u8; 16], Vec<u8>) {
    let mut bytes = vec![children.len() as u8];
    bytes.extend(children.concat());
    bytes.extend(entries.iter().flat_map(|(key, event)| [key.to_be_bytes(), event.to_be_bytes()].concat()));
    (key_of(&bytes), bytes)
}

fn key_of(bytes: &[u8]) -> [u8; 16] {
    let weighted = bytes.iter().zip(1_u128..).map(|(byte, at)| u128::from(*byte) * at * at);
    (weighted.sum::<u128>() + 1).to_be_bytes()
}

const ROOM: RoomNid = RoomNid(1);
const ALICE: UserNid = UserNid(1);
const BOB: UserNid = UserNid(2);

fn event(n: u64, placement: Placement, state_before: [u8; 16]) -> EventRecord {
    EventRecord {
        room: ROOM,
        event_id: format!("${n}"),
        sender: ALICE,
        state_key: Some(StateKeyNid(n)),
        state_before: Some(state_before),
        state_is_partial: false,
        state_is_told: false,
        placement,
        verdict: VerdictRecord::Accepted,
        transaction: None,
        redacted_by: None,
        json: format!("${n}"),
    }
}

fn joined<V>(position: u64, value: V) -> AtPosition<V> {
    AtPosition { position: Position(position), value }
}

/// One room, created by Alice (events 1 and 2), whom Bob joined (3); event 4 was filled in from history; each has read it.
fn sound() -> Store {
    let store = Store::new(Arc::new(Memory::open(MemoryDisk::default())));
    let mut batch = Batch::new();
    names(&mut batch);
    let leaf = node(&[], &[(2, 2), (3, 3)]);
    let other_leaf = node(&[], &[(1, 1)]);
    let root = node(&[leaf.0, other_leaf.0], &[]);
    for (key, bytes) in [&leaf, &other_leaf, &root] {
        batch.put(&STATE_NODES, key, bytes);
    }
    for n in 1..=4 {
        let (order, placement, before) = match n {
            4 => (TimelineOrder(-1), Placement::Backfilled(-1), root.0),
            n => (TimelineOrder::from(Position(n)), Placement::Live, [0; 16]),
        };
        let position = if n == 4 { 3 } else { n };
        batch.put(&EVENTS, &EventNid(n), &joined(position, event(n, placement, before)));
        batch.put(&TIMELINE, &(ROOM, order), &EventNid(n));
        if n < 4 {
            batch.log(&LogEntry::Event {
                room: ROOM,
                event: EventNid(n),
                sender: ALICE,
                state_key: Some(StateKeyNid(n)),
                member: None,
                head: n,
                relay: true,
                targeted: Vec::new(),
            });
        }
    }
    let head = RoomHead {
        version: 3,
        current_state: root.0,
        extremities: vec![EventNid(3)],
        depth: 3,
        backfilled: 1,
        notified: crate::tables::NotifiedSoFar::default(),
    };
    batch.put(&ROOM_HEADS, &ROOM, &head);
    batch.put(
        &CURRENT_STATES,
        &(ROOM, TimelineOrder::from(Position(1))),
        &CurrentStateRecord { root: leaf.0 },
    );
    batch.put(
        &CURRENT_STATES,
        &(ROOM, TimelineOrder::from(Position(3))),
        &CurrentStateRecord { root: root.0 },
    );
    people(&mut batch);
    block_on(store.commit(batch)).unwrap();
    store
}

fn names(batch: &mut Batch) {
    for (nid, name) in [(ALICE, "@alice:x"), (BOB, "@bob:x")] {
        batch.put(&USER_NIDS, &name.to_owned(), &nid);
        batch.put(&USER_IDS, &nid, &Name(name.to_owned()));
    }
    let room = RoomRecord {
        room_id: "!r".to_owned(),
        room_version: "12".to_owned(),
        room_type: None,
        create_event: EventNid(1),
    };
    batch.put(&ROOM_NIDS, &"!r".to_owned(), &ROOM);
    batch.put(&ROOMS, &ROOM, &room);
    for n in 1..=4_u64 {
        batch.put(&EVENT_NIDS, &format!("${n}"), &EventNid(n));
        let key = match n {
            2 => ("m.room.member", "@alice:x"),
            3 => ("m.room.member", "@bob:x"),
            1 => ("m.room.create", ""),
            _ => ("m.room.topic", ""),
        };
        let key = (key.0.to_owned(), key.1.to_owned());
        batch.put(&STATE_KEY_NIDS, &key, &StateKeyNid(n));
        batch.put(&STATE_KEYS, &StateKeyNid(n), &StateKeyRecord { event_type: key.0, state_key: key.1 });
    }
    for kind in [NidKind::User, NidKind::Room, NidKind::Event, NidKind::StateKey] {
        batch.put(&NID_COUNTERS, &(kind as u8), &Counter { next: 4097 });
    }
}

fn people(batch: &mut Batch) {
    let account = AccountRecord {
        password_hash: None,
        created_ms: 0,
        kind: AccountKind::User,
        admin: false,
        locked: false,
        suspended: false,
        deactivated: false,
        erased: false,
    };
    for (user, event) in [(ALICE, EventNid(2)), (BOB, EventNid(3))] {
        batch.put(&ACCOUNTS, &user, &account);
        let membership = Membership::Join;
        batch.put(&MEMBERS, &(ROOM, user), &joined(event.0, MemberRecord { membership, event }));
        batch.put(&USER_ROOMS, &(user, ROOM), &joined(event.0, user_room(membership, event)));
        batch.put(&RECEIPTS, &receipt_key(user), &joined(user.0, receipt()));
        batch.put(&RECEIPTS_BY_POSITION, &(ROOM, Position(user.0)), &receipt_ref(user));
    }
    batch.put(&ACCOUNT_DATA, &tags(), &joined(2, AccountDataRecord { json: "{}".to_owned() }));
    let change = UserChange::AccountData { room: ROOM, kind: "m.tag".to_owned() };
    batch.put(&USER_STREAM, &(ALICE, Position(2)), &change);
    batch.put(&LOG_CURSORS, &"push".to_owned(), &Cursor { position: Position(3) });
    batch.put(&RELATIONS, &(ROOM, "$1".to_owned(), TimelineOrder::from(Position(3))), &relation(EventNid(3)));
}

fn user_room(membership: Membership, event: EventNid) -> UserRoomRecord {
    UserRoomRecord { membership, event, forgotten: false, was_joined: true }
}

fn receipt_key(user: UserNid) -> (RoomNid, UserNid, String, String) {
    (ROOM, user, "m.read".to_owned(), String::new())
}

fn receipt() -> ReceiptRecord {
    ReceiptRecord { event_id: "$3".to_owned(), order: 3, ts_ms: 0 }
}

fn receipt_ref(user: UserNid) -> ReceiptRef {
    ReceiptRef { user, receipt_type: "m.read".to_owned(), thread_id: String::new() }
}

fn tags() -> (UserNid, RoomNid, String) {
    (ALICE, ROOM, "m.tag".to_owned())
}

fn relation(event: EventNid) -> RelationRecord {
    RelationRecord {
        rel_type: "m.thread".to_owned(),
        event,
        event_type: "m.room.message".to_owned(),
        sender: BOB,
        key: None,
    }
}

fn verified(store: &Store) -> Report {
    block_on(verify(store, &Toy, &mut |_| {})).unwrap()
}

#[test]
fn a_sound_store_has_no_findings() {
    let report = verified(&sound());
    assert_eq!(report.findings, []);
    assert_eq!(report.position, Position(3));
    assert!(report.rows > 40, "{} rows", report.rows);
}

#[test]
fn progress_goes_through_all_steps() {
    let mut seen = Vec::new();
    let mut note = |progress: Progress| seen.push(progress);
    block_on(verify(&sound(), &Toy, &mut note)).unwrap();
    let mut steps: Vec<_> = seen.iter().map(|p| p.step_number).collect();
    steps.dedup();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
    assert!(seen.iter().all(|p| p.steps == STEPS));
    assert!(seen.iter().any(|p| p.step == "events" && p.rows >= 4));
}

/// Each damage is found in the row where it shows, and says what is wrong.
#[track_caller]
fn assert_found(damage: impl FnOnce(&mut Batch), table: &str, problem: &str) {
    let store = sound();
    let mut batch = Batch::new();
    damage(&mut batch);
    block_on(store.commit(batch)).unwrap();
    let report = verified(&store);
    let found = report.findings.iter().any(|f| f.table == table && f.problem.contains(problem));
    assert!(found, "expected {table}: {problem}; found {:#?}", report.findings);
}

#[test]
fn unreadable_rows() {
    for (key, value) in
        [(&b"\0\0"[..], &b"\x01"[..]), (&[0; 8], b""), (&[0; 8], b"\x09\0"), (&[0; 9], b"\x01\0")]
    {
        let store = sound();
        let stamped = |bytes: &[u8]| Stamped { bytes: bytes.to_vec(), stamps: Vec::new() };
        let write = Write::Put { table: ACCOUNTS.id, key: stamped(key), value: stamped(value) };
        let batch = RawBatch { writes: vec![write], ..RawBatch::default() };
        block_on(store.backend().submit(batch)).unwrap();
        let report = verified(&store);
        assert_eq!(report.findings_total, 1, "{:?}", report.findings);
        assert!(report.findings[0].to_string().starts_with("accounts["), "{}", report.findings[0]);
        assert!(report.findings[0].problem.contains("cannot be read"));
    }
}

#[test]
fn damage_in_the_log() {
    assert_found(|b| b.delete(&LOG, &Position(2)), "log", "1 log entries before it are missing");
    assert_found(|b| b.delete(&TIMELINE, &(ROOM, TimelineOrder::from(Position(2)))), "log", "it is not");
    assert_found(
        |b| b.put(&TIMELINE, &(ROOM, TimelineOrder::from(Position(2))), &EventNid(1)),
        "log",
        "but the timeline has EventNid:1 here",
    );
    let ahead = Cursor { position: Position(99) };
    assert_found(
        |b| b.put(&LOG_CURSORS, &"push".to_owned(), &ahead),
        "log_cursors",
        "past the last position",
    );
}

#[test]
fn damage_in_names() {
    assert_found(|b| b.delete(&USER_IDS, &BOB), "user_nids", "which table 'user_ids' does not have");
    assert_found(|b| b.put(&USER_NIDS, &"@bob:x".to_owned(), &ALICE), "user_nids", "which is \"@alice:x\"");
    assert_found(|b| b.delete(&EVENT_NIDS, &"$2".to_owned()), "events", "not in table 'event_nids'");
    assert_found(
        |b| b.put(&EVENT_NIDS, &"$2".to_owned(), &EventNid(3)),
        "events",
        "that name stands for EventNid:3",
    );
    assert_found(|b| b.delete(&ROOM_NIDS, &"!r".to_owned()), "rooms", "not in table 'room_nids'");
    assert_found(|b| b.delete(&STATE_KEYS, &StateKeyNid(3)), "state_key_nids", "does not have");
    let low = Counter { next: 3 };
    assert_found(
        |b| b.put(&NID_COUNTERS, &(NidKind::Event as u8), &low),
        "events",
        "would be given out again",
    );
    assert_found(|b| b.delete(&NID_COUNTERS, &(NidKind::User as u8)), "user_ids", "would be given out again");
}

#[test]
fn damage_in_events() {
    let put = |change: fn(&mut AtPosition<EventRecord>)| {
        move |batch: &mut Batch| {
            let mut row = joined(2, event(2, Placement::Live, [0; 16]));
            change(&mut row);
            batch.put(&EVENTS, &EventNid(2), &row);
        }
    };
    assert_found(put(|e| e.value.json.push('x')), "events", "the hash does not match");
    assert_found(put(|e| e.position = Position(50)), "events", "past the last position");
    assert_found(put(|e| e.value.room = RoomNid(7)), "events", "belongs to RoomNid:7, which is not there");
    assert_found(put(|e| e.value.sender = UserNid(7)), "events", "who is not there");
    assert_found(put(|e| e.value.state_key = Some(StateKeyNid(77))), "events", "sets StateKeyNid:77");
    assert_found(put(|e| e.value.placement = Placement::Backfilled(-9)), "events", "should be at -9");
    assert_found(put(|e| e.value.placement = Placement::Outside), "timeline", "does not stand here");
    assert_found(put(|e| e.value.room = RoomNid(7)), "timeline", "which belongs to RoomNid:7");
    let rejected = VerdictRecord::Rejected { reason: String::new() };
    assert_found(
        move |batch| {
            let mut row = joined(2, event(2, Placement::Live, [0; 16]));
            row.value.verdict = rejected;
            batch.put(&EVENTS, &EventNid(2), &row);
        },
        "timeline",
        "was not accepted",
    );
    assert_found(|b| b.delete(&EVENTS, &EventNid(4)), "timeline", "refers to EventNid:4, which is not there");
    let dangling = relation(EventNid(77));
    assert_found(
        |b| b.put(&RELATIONS, &(ROOM, "$1".to_owned(), TimelineOrder::from(Position(3))), &dangling),
        "relations",
        "EventNid:77",
    );
}

#[test]
fn damage_in_heads() {
    let head = |extremities| RoomHead {
        version: 1,
        current_state: [0; 16],
        extremities,
        depth: 0,
        backfilled: 0,
        notified: Default::default(),
    };
    assert_found(|b| b.delete(&ROOM_HEADS, &ROOM), "rooms", "has no head");
    assert_found(|b| b.put(&ROOM_HEADS, &ROOM, &head(vec![])), "room_heads", "no forward extremities");
    assert_found(
        |b| b.put(&ROOM_HEADS, &ROOM, &head(vec![EventNid(77)])),
        "room_heads",
        "extremity EventNid:77",
    );
    assert_found(|b| b.delete(&EVENTS, &EventNid(1)), "room_heads", "create event EventNid:1");
}

#[test]
fn damage_in_states() {
    let leaf = node(&[], &[(2, 2), (3, 3)]).0;
    let root = node(&[leaf, node(&[], &[(1, 1)]).0], &[]).0;
    assert_found(|b| b.put(&STATE_NODES, &leaf, &vec![0]), "state_nodes", "not what its key says");
    assert_found(|b| b.delete(&STATE_NODES, &leaf), "state_nodes", "its child");
    assert_found(|b| b.delete(&STATE_NODES, &root), "events", "its state before it");
    assert_found(|b| b.delete(&STATE_NODES, &root), "room_heads", "its current state");
    assert_found(|b| b.delete(&STATE_NODES, &leaf), "current_states", "its state");
    let at = (ROOM, TimelineOrder::from(Position(9)));
    assert_found(
        |b| b.put(&CURRENT_STATES, &at, &CurrentStateRecord { root: leaf }),
        "room_heads",
        "not the last",
    );
    assert_found(|b| b.put(&AUTH_CHAINS, &EventNid(77), &vec![]), "auth_chains", "not there");
}

#[test]
fn damage_in_memberships() {
    let member = |event| joined(3, MemberRecord { membership: Membership::Join, event: EventNid(event) });
    assert_found(
        |b| b.put(&MEMBERS, &(ROOM, BOB), &member(2)),
        "members",
        "the current state has EventNid:3",
    );
    assert_found(
        |b| b.put(&MEMBERS, &(ROOM, BOB), &member(77)),
        "members",
        "EventNid:77, which is not there",
    );
    assert_found(|b| b.put(&MEMBERS, &(ROOM, UserNid(7)), &member(3)), "members", "not in the current state");
    assert_found(|b| b.delete(&MEMBERS, &(ROOM, BOB)), "members", "is missing");
    assert_found(|b| b.delete(&MEMBERS, &(ROOM, BOB)), "user_rooms", "joined, but not in table 'members'");
    assert_found(|b| b.delete(&USER_ROOMS, &(BOB, ROOM)), "members", "not in table 'user_rooms'");
    let left = joined(3, user_room(Membership::Leave, EventNid(3)));
    assert_found(|b| b.put(&USER_ROOMS, &(BOB, ROOM), &left), "user_rooms", "is Leave by EventNid:3");
    let late = joined(50, user_room(Membership::Join, EventNid(3)));
    assert_found(|b| b.put(&USER_ROOMS, &(BOB, ROOM), &late), "user_rooms", "past the last position");
}

#[test]
fn damage_in_rows_by_position() {
    assert_found(
        |b| b.delete(&RECEIPTS_BY_POSITION, &(ROOM, Position(2))),
        "receipts",
        "'receipts_by_position'",
    );
    assert_found(|b| b.delete(&RECEIPTS, &receipt_key(BOB)), "receipts_by_position", "moved on");
    let moved = joined(3, receipt());
    assert_found(|b| b.put(&RECEIPTS, &receipt_key(BOB), &moved), "receipts_by_position", "moved on");
    assert_found(|b| b.delete(&USER_STREAM, &(ALICE, Position(2))), "account_data", "'user_stream'");
    let change = UserChange::AccountData { room: ROOM, kind: "m.tag".to_owned() };
    assert_found(|b| b.put(&USER_STREAM, &(ALICE, Position(50)), &change), "user_stream", "past the last");
}

#[test]
fn thousands_of_findings_are_counted_not_kept() {
    let store = sound();
    let mut batch = Batch::new();
    for n in 100..100 + FINDINGS_MAX as u64 * 2 {
        batch.put(&TIMELINE, &(ROOM, TimelineOrder::from(Position(n))), &EventNid(n));
    }
    block_on(store.commit(batch)).unwrap();
    let report = verified(&store);
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.findings_total, FINDINGS_MAX as u64 * 2);
}

#[test]
fn without_knowledge_the_rest_is_checked() {
    let store = sound();
    assert_eq!(block_on(verify(&store, &NoKnowledge, &mut |_| {})).unwrap().findings, []);
    let mut batch = Batch::new();
    batch.delete(&EVENTS, &EventNid(4));
    block_on(store.commit(batch)).unwrap();
    assert!(block_on(verify(&store, &NoKnowledge, &mut |_| {})).unwrap().findings_total > 0);
}
