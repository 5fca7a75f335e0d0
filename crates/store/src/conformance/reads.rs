//! Point reads and scans.

use std::collections::BTreeMap;

use myelin_core::{EventNid, RoomNid, TimelineOrder, limits};

use super::{Harness, RAW, as_read, open, put_raw};
use crate::{
    Batch, CommitError, Direction, Error,
    backend::{KeyRange, RawBatch, RawRead, ScanDirection},
    tables::{EVENT_NIDS, META, STATE_NODES, TIMELINE},
};

pub async fn gets_what_was_put(harness: &dyn Harness) {
    let store = open(harness).await;
    let (key, other) = ("key".to_owned(), "other".to_owned());
    assert_eq!(store.get(&META, &key).await.unwrap(), None);

    for value in [b"one".to_vec(), b"two".to_vec(), Vec::new()] {
        let mut batch = Batch::new();
        batch.put(&META, &key, &value);
        store.commit(batch).await.unwrap();
        assert_eq!(store.get(&META, &key).await.unwrap(), Some(value));
        assert_eq!(store.get(&META, &other).await.unwrap(), None);
        assert_eq!(store.get(&EVENT_NIDS, &key).await.unwrap(), None, "tables are apart");
    }

    let mut batch = Batch::new();
    batch.delete(&META, &key);
    batch.delete(&META, &other);
    store.commit(batch).await.unwrap();
    assert_eq!(store.get(&META, &key).await.unwrap(), None);
}

pub async fn multi_get_answers_in_order(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut batch = Batch::new();
    for n in (0..2000_u64).step_by(2) {
        batch.put(&EVENT_NIDS, &format!("${n}"), &EventNid(n));
    }
    store.commit(batch).await.unwrap();

    let asked: Vec<u64> = (0..3000).map(|i| (i * 7919) % 2500).collect();
    let keys: Vec<String> = asked.iter().map(|n| format!("${n}")).collect();
    let expected: Vec<_> = asked.iter().map(|n| (n % 2 == 0 && *n < 2000).then_some(EventNid(*n))).collect();
    assert_eq!(store.multi_get(&EVENT_NIDS, &keys).await.unwrap(), expected);
    assert_eq!(store.multi_get(&EVENT_NIDS, &[]).await.unwrap(), Vec::new());
    let twice = ["$4".to_owned(), "$5".to_owned(), "$4".to_owned()];
    let found = store.multi_get(&EVENT_NIDS, &twice).await.unwrap();
    assert_eq!(found, [Some(EventNid(4)), None, Some(EventNid(4))]);
}

/// 2,500 rows of three rooms, some overwritten, some deleted, read in pages of several sizes from both ends.
pub async fn scans_agree_with_a_model_across_pages(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut model = BTreeMap::new();
    for round in 0..3_u64 {
        let mut batch = Batch::new();
        for n in 0..2500_i64 {
            let key = (RoomNid(n as u64 % 3), TimelineOrder(n - 1000));
            if round == 1 && n % 5 == 0 {
                batch.delete(&TIMELINE, &key);
                model.remove(&key);
            } else if round != 1 && (n as u64).is_multiple_of(round + 1) {
                batch.put(&TIMELINE, &key, &EventNid(round));
                model.insert(key, EventNid(round));
            }
        }
        store.commit(batch).await.unwrap();
    }

    let of_room: Vec<_> = model.into_iter().filter(|((room, _), _)| *room == RoomNid(1)).collect();
    for limit in [1, 2, 100, 256, of_room.len() - 1, of_room.len(), 5000] {
        let forward = store.scan(&TIMELINE, &RoomNid(1), Direction::Forward, limit).await.unwrap();
        assert_eq!(forward, of_room[..limit.min(of_room.len())]);
        let reverse = store.scan(&TIMELINE, &RoomNid(1), Direction::Reverse, limit).await.unwrap();
        let expected: Vec<_> = of_room.iter().rev().take(limit).copied().collect();
        assert_eq!(reverse, expected);
    }

    let mut paged = Vec::new();
    let mut from = (RoomNid(1), TimelineOrder::MIN);
    loop {
        let page = store
            .range(&TIMELINE, &from, &(RoomNid(2), TimelineOrder::MIN), Direction::Forward, 64)
            .await
            .unwrap();
        let Some(((room, order), _)) = page.last().copied() else { break };
        from = (room, TimelineOrder(order.0 + 1));
        paged.extend(page);
    }
    assert_eq!(paged, of_room);
}

pub async fn empty_ranges_are_empty(harness: &dyn Harness) {
    let store = open(harness).await;
    let rows = |from: i64, to: i64, direction, limit| {
        let (from, to) = ((RoomNid(1), TimelineOrder(from)), (RoomNid(1), TimelineOrder(to)));
        let store = store.clone();
        async move { store.range(&TIMELINE, &from, &to, direction, limit).await.unwrap().len() }
    };
    for direction in [Direction::Forward, Direction::Reverse] {
        assert_eq!(rows(-9, 9, direction, 10).await, 0, "an empty table");
    }
    let mut batch = Batch::new();
    for n in 0..5 {
        batch.put(&TIMELINE, &(RoomNid(1), TimelineOrder(n)), &EventNid(1));
    }
    store.commit(batch).await.unwrap();
    for direction in [Direction::Forward, Direction::Reverse] {
        assert_eq!(rows(2, 2, direction, 10).await, 0, "start is end");
        assert_eq!(rows(4, 1, direction, 10).await, 0, "start after end");
        assert_eq!(rows(0, 5, direction, 0).await, 0, "no limit");
        assert_eq!(rows(5, 99, direction, 10).await, 0, "past the last");
        assert_eq!(rows(1, 3, direction, 10).await, 2, "half-open");
        assert_eq!(store.scan(&TIMELINE, &RoomNid(2), direction, 9).await.unwrap(), []);
    }
}

/// Bytes, not text: no collation, no terminator, no sign.
pub async fn keys_compare_bytewise(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut keys: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0],
        vec![0, 255],
        vec![1],
        b"B".to_vec(),
        b"a".to_vec(),
        b"ab".to_vec(),
        b"b".to_vec(),
        "é".as_bytes().to_vec(),
        vec![127],
        vec![128],
        vec![255],
        vec![255, 0],
        vec![255, 255, 255],
    ];
    let mut batch = RawBatch::default();
    for key in &keys {
        put_raw(&mut batch, key, b"");
    }
    backend.submit(batch).await.unwrap();
    keys.sort();

    let all = KeyRange { start: Vec::new(), end: None };
    assert_eq!(scanned(as_read(&backend), all.clone(), ScanDirection::Forward).await, keys);
    let reversed: Vec<_> = keys.iter().rev().cloned().collect();
    assert_eq!(scanned(as_read(&backend), all, ScanDirection::Reverse).await, reversed);
    for (at, key) in keys.iter().enumerate() {
        let from = KeyRange { start: key.clone(), end: None };
        assert_eq!(scanned(as_read(&backend), from, ScanDirection::Forward).await, keys[at..]);
        let to = KeyRange { start: Vec::new(), end: Some(key.clone()) };
        assert_eq!(scanned(as_read(&backend), to, ScanDirection::Forward).await, keys[..at]);
    }
}

async fn scanned(read: &dyn RawRead, range: KeyRange, direction: ScanDirection) -> Vec<Vec<u8>> {
    let rows = read.scan(RAW, range, direction, 100).await.unwrap();
    rows.into_iter().map(|(key, _)| key.to_vec()).collect()
}

pub async fn prefixes_are_whole_components(harness: &dyn Harness) {
    use crate::tables::ROOM_ALIASES;
    let store = open(harness).await;
    let mut batch = Batch::new();
    for room in [1, 0xff, 0xffff, u64::MAX] {
        for alias in ["#a:x", "#ab:x"] {
            batch.put(&ROOM_ALIASES, &(RoomNid(room), alias.to_owned()), &());
        }
    }
    store.commit(batch).await.unwrap();
    for room in [1, 0xff, 0xffff, u64::MAX] {
        let of_room = store.scan(&ROOM_ALIASES, &RoomNid(room), Direction::Forward, 10).await.unwrap();
        assert_eq!(of_room.len(), 2, "room {room}");
        let exact = (RoomNid(room), "#a:x".to_owned());
        let one = store.scan(&ROOM_ALIASES, &exact, Direction::Forward, 10).await.unwrap();
        assert_eq!(one.len(), 1, "'#a:x' is no prefix of '#ab:x'");
    }
    assert_eq!(store.read().all(&ROOM_ALIASES, 100).await.unwrap().len(), 8);
}

pub async fn megabyte_values_survive(harness: &dyn Harness) {
    let store = open(harness).await;
    let value = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        (0..1024 * 1024)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    };
    let mut batch = Batch::new();
    for n in 0..4_u8 {
        batch.put(&STATE_NODES, &[n; 16], &value(u64::from(n)));
    }
    store.commit(batch).await.unwrap();
    for n in 0..4_u8 {
        let found = store.get(&STATE_NODES, &[n; 16]).await.unwrap();
        assert!(found == Some(value(u64::from(n))), "value {n}");
    }
    let all = store.read().all(&STATE_NODES, 10).await.unwrap();
    assert!(all.len() == 4 && all.iter().all(|(_, v)| v.len() == 1024 * 1024));
}

pub async fn oversized_rows_are_refused(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut long_key = Batch::new();
    long_key.put(&META, &"k".repeat(limits::STORE_KEY_SIZE_MAX), &Vec::new());
    let mut large_value = Batch::new();
    large_value.put(&META, &"k".to_owned(), &vec![0; limits::STORE_VALUE_SIZE_MAX + 1]);
    for batch in [long_key, large_value] {
        let refused = store.commit(batch).await;
        assert!(matches!(refused, Err(CommitError::Store(Error::TooLarge { .. }))), "{refused:?}");
    }
    assert_eq!(store.read().all(&META, 10).await.unwrap(), []);
}
