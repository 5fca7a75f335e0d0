//! Batches: atomicity, preconditions, order, positions.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::{FutureExt, join_all};
use myelin_core::{EventNid, Position, RoomNid, UserNid};
use parking_lot::Mutex;

use super::{Harness, open, sample_entry};
use crate::{
    Batch, CommitError, NidAllocator, NidKind, Store,
    backend::RawBatch,
    codec::AtPosition,
    tables::{
        Counter, EVENT_NIDS, LOG, MEMBERS, META, MemberRecord, Membership, NID_COUNTERS, TIMELINE, Table,
        USER_STREAM, UserChange,
    },
};

const TASKS: u64 = 24;

pub async fn the_last_write_of_a_key_wins(harness: &dyn Harness) {
    let store = open(harness).await;
    let key = |k: &str| k.to_owned();
    let mut batch = Batch::new();
    batch.put(&META, &key("twice"), &vec![1]);
    batch.put(&META, &key("twice"), &vec![2]);
    batch.put(&META, &key("put, deleted"), &vec![1]);
    batch.delete(&META, &key("put, deleted"));
    batch.delete(&META, &key("deleted, put"));
    batch.put(&META, &key("deleted, put"), &vec![3]);
    // The same keys again at once, so that a group commit has them several times.
    let mut second = Batch::new();
    second.put(&META, &key("twice"), &vec![4]);
    second.delete(&META, &key("deleted, put"));
    let (first, second) = (store.commit(batch), store.commit(second));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(store.read().all(&META, 10).await.unwrap(), [(key("twice"), vec![4])]);
}

pub async fn a_large_batch_is_one_commit(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut batch = Batch::new();
    for n in 0..10_000 {
        batch.put(&EVENT_NIDS, &format!("$event{n}"), &EventNid(n));
    }
    for _ in 0..1000 {
        batch.log(&sample_entry());
    }
    let committed = store.commit(batch).await.unwrap();
    assert_eq!((committed.first, committed.last), (Position(1), Position(1000)));
    assert_eq!(store.read().all(&EVENT_NIDS, 20_000).await.unwrap().len(), 10_000);
    assert_eq!(store.read().all(&LOG, 20_000).await.unwrap().len(), 1000);
}

pub async fn preconditions_decide(harness: &dyn Harness) {
    let store = open(harness).await;
    let key = "k".to_owned();
    let attempt = |requirement: Option<Vec<u8>>, value: u8| {
        let mut batch = Batch::new();
        batch.require_unchanged(&META, &key, requirement.as_ref());
        batch.put(&META, &key, &vec![value]);
        store.commit(batch)
    };
    assert_conflict(attempt(Some(vec![1]), 9).await, "equal to what is not there");
    attempt(None, 1).await.expect("absent");
    assert_conflict(attempt(None, 9).await, "absent, but there");
    assert_conflict(attempt(Some(vec![2]), 9).await, "another value");
    assert_conflict(attempt(Some(vec![]), 9).await, "a prefix of the value");
    attempt(Some(vec![1]), 2).await.expect("equal");
    assert_eq!(store.get(&META, &key).await.unwrap(), Some(vec![2]));

    // Preconditions look at what was before the batch, not at its own writes.
    let mut own = Batch::new();
    own.put(&META, &"new".to_owned(), &vec![1]);
    own.require_absent(&META, &"new".to_owned());
    store.commit(own).await.expect("own writes do not count");
}

fn assert_conflict<T: std::fmt::Debug>(result: Result<T, CommitError>, why: &str) {
    assert!(matches!(result, Err(CommitError::Conflict { table: "meta" })), "{why}: {result:?}");
}

/// Also when batches before and after it in the same group succeed.
pub async fn a_refused_batch_leaves_nothing(harness: &dyn Harness) {
    let store = open(harness).await;
    let numbered = |n: u8, allowed: bool| {
        let mut batch = Batch::new();
        if !allowed {
            batch.require_equal(&META, &"missing".to_owned(), &vec![1]);
        }
        batch.put(&META, &format!("row {n}"), &vec![n]);
        batch.put(&EVENT_NIDS, &format!("row {n}"), &EventNid(1));
        batch.log(&sample_entry());
        batch
    };
    let results = join_all((0..9).map(|n| store.commit(numbered(n, n % 3 == 0)))).await;
    let mut position = 0;
    for (n, result) in results.into_iter().enumerate() {
        if n % 3 == 0 {
            position += 1;
            assert_eq!(result.unwrap().first, Position(position), "a refused batch uses no position");
        } else {
            assert_conflict(result, "required what is missing");
        }
    }
    let rows: Vec<_> = store.read().all(&META, 20).await.unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(rows, ["row 0", "row 3", "row 6"]);
    assert_eq!(store.read().all(&EVENT_NIDS, 20).await.unwrap().len(), 3);
    assert_eq!(store.read().all(&LOG, 20).await.unwrap().len(), 3);
    assert_eq!(store.position(), Position(3));
}

pub async fn one_of_many_creates_a_key(harness: &dyn Harness) {
    let store = open(harness).await;
    let winners = Arc::new(Mutex::new(Vec::new()));
    let tasks = (0..TASKS).map(|task| {
        let (store, winners) = (store.clone(), winners.clone());
        async move {
            for round in 0..10_u64 {
                let key = format!("$round{round}");
                let mut batch = Batch::new();
                batch.require_absent(&EVENT_NIDS, &key);
                batch.put(&EVENT_NIDS, &key, &EventNid(task));
                if succeeded(store.commit(batch).await) {
                    winners.lock().push((key, EventNid(task)));
                }
            }
        }
        .boxed()
    });
    harness.run_all(tasks.collect()).await;
    let mut winners = winners.lock().clone();
    winners.sort();
    assert_eq!(winners, store.read().all(&EVENT_NIDS, 100).await.unwrap());
    assert_eq!(winners.len(), 10, "one winner per round");
}

fn succeeded<T>(result: Result<T, CommitError>) -> bool {
    match result {
        Ok(_) => true,
        Err(CommitError::Conflict { .. }) => false,
        Err(CommitError::Store(error)) => panic!("{error}"),
    }
}

pub async fn counters_lose_no_increment(harness: &dyn Harness) {
    let store = open(harness).await;
    let tasks = (0..TASKS).map(|_| {
        let store = store.clone();
        async move {
            for _ in 0..10 {
                while !increment(&store).await {}
            }
        }
        .boxed()
    });
    harness.run_all(tasks.collect()).await;
    let counter = store.get(&NID_COUNTERS, &0).await.unwrap();
    assert_eq!(counter, Some(Counter { next: TASKS * 10 }));
    assert_eq!(store.position(), Position(TASKS * 10));
}

async fn increment(store: &Store) -> bool {
    let loaded = store.get(&NID_COUNTERS, &0).await.unwrap();
    let mut batch = Batch::new();
    batch.require_unchanged(&NID_COUNTERS, &0, loaded.as_ref());
    batch.put(&NID_COUNTERS, &0, &Counter { next: loaded.map_or(0, |c| c.next) + 1 });
    batch.log(&sample_entry());
    succeeded(store.commit(batch).await)
}

/// Each batch requires what the one before it wrote, and none is awaited before all are submitted.
pub async fn pipelined_batches_see_each_other_in_order(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut previous = None;
    let commits: Vec<_> = (1..=300)
        .map(|next| {
            let counter = Counter { next };
            let mut batch = Batch::new();
            batch.require_unchanged(&NID_COUNTERS, &0, previous.as_ref());
            batch.put(&NID_COUNTERS, &0, &counter);
            batch.log(&sample_entry());
            previous = Some(counter);
            store.commit(batch)
        })
        .collect();
    for (at, committed) in join_all(commits).await.into_iter().enumerate() {
        assert_eq!(committed.unwrap().first, Position(at as u64 + 1));
    }
    assert_eq!(store.get(&NID_COUNTERS, &0).await.unwrap(), previous);
}

pub async fn positions_are_dense_and_logged(harness: &dyn Harness) {
    let store = open(harness).await;
    assert_eq!(store.position(), Position::ZERO);
    let mut next = 1;
    for entries in [1, 0, 3, 0, 2] {
        let mut batch = Batch::new();
        batch.put(&META, &"k".to_owned(), &vec![entries]);
        for _ in 0..entries {
            batch.log(&sample_entry());
        }
        let committed = store.commit(batch).await.unwrap();
        assert_eq!(committed.first, Position(next));
        next += u64::from(entries);
        assert_eq!(committed.last, Position(next - 1));
        assert!(store.position() >= committed.last);
    }
    let logged: Vec<_> = store.read().all(&LOG, 100).await.unwrap();
    let expected: Vec<_> = (1..next).map(|p| (Position(p), sample_entry())).collect();
    assert_eq!(logged, expected);
}

pub async fn positions_are_stamped_into_keys_and_values(harness: &dyn Harness) {
    let store = open(harness).await;
    let mut offset = Batch::new();
    offset.log(&sample_entry());
    store.commit(offset).await.unwrap();

    let mut batch = Batch::new();
    batch.log(&sample_entry());
    let position = batch.log(&sample_entry());
    let member = MemberRecord { membership: Membership::Join, event: EventNid(5) };
    let change =
        UserChange::Membership { room: RoomNid(1), membership: Membership::Join, event: EventNid(5) };
    batch.put(&TIMELINE, &(RoomNid(1), position.into()), &EventNid(5));
    batch.put(&MEMBERS, &(RoomNid(1), UserNid(2)), &AtPosition { position, value: member.clone() });
    batch.put(&USER_STREAM, &(UserNid(2), position), &change);
    store.commit(batch).await.unwrap();

    assert_only_row(&store, &TIMELINE, ((RoomNid(1), Position(3).into()), EventNid(5))).await;
    assert_only_row(&store, &USER_STREAM, ((UserNid(2), Position(3)), change)).await;
    let at = AtPosition { position: Position(3), value: member };
    assert_only_row(&store, &MEMBERS, ((RoomNid(1), UserNid(2)), at)).await;
}

async fn assert_only_row<K, V>(store: &Store, table: &Table<K, V>, row: (K, V))
where
    K: crate::codec::KeyPart + PartialEq + std::fmt::Debug,
    V: crate::codec::Value + PartialEq + std::fmt::Debug,
{
    assert_eq!(store.read().all(table, 10).await.unwrap(), [row]);
}

pub async fn positions_can_be_raised(harness: &dyn Harness) {
    let store = open(harness).await;
    let raise = |to| RawBatch { raise_to: Some(Position(to)), ..RawBatch::default() };
    let committed = store.backend().submit(raise(41)).await.unwrap();
    assert_eq!((committed.first, committed.last), (Position(42), Position(41)));
    store.backend().submit(raise(7)).await.expect("a lower position changes nothing");
    let mut batch = Batch::new();
    batch.log(&sample_entry());
    assert_eq!(store.commit(batch).await.unwrap().first, Position(42));
    assert_eq!(store.position(), Position(42));
}

pub async fn a_dropped_future_cancels_nothing(harness: &dyn Harness) {
    let store = open(harness).await;
    for n in 0..50_u8 {
        let mut batch = Batch::new();
        batch.put(&META, &format!("row {n}"), &vec![n]);
        drop(store.commit(batch));
    }
    // Commits are in order, so when this one is done, all are.
    let mut last = Batch::new();
    last.log(&sample_entry());
    store.commit(last).await.unwrap();
    assert_eq!(store.read().all(&META, 100).await.unwrap().len(), 50);
}

pub async fn nids_are_unique(harness: &dyn Harness) {
    let store = open(harness).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    // Several allocators on one store, as several processes would be.
    let allocators: Vec<_> = (0..3).map(|_| Arc::new(NidAllocator::new(store.clone()))).collect();
    let tasks = (0..TASKS as usize).map(|task| {
        let (allocator, seen) = (allocators[task % 3].clone(), seen.clone());
        async move {
            for _ in 0..400 {
                let nid = allocator.allocate(NidKind::Event).await.unwrap();
                seen.lock().push(nid);
            }
        }
        .boxed()
    });
    harness.run_all(tasks.collect()).await;
    let seen = seen.lock();
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len());
    assert!(!unique.contains(&0), "0 is never given out");
}
