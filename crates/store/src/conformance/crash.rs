//! The load and the check of a crash test: a child process writes until it is killed and says what was acknowledged.

use std::collections::BTreeSet;

use futures::stream::{FuturesUnordered, StreamExt};
use myelin_core::{EventNid, Position, RoomNid};

use super::sample_entry;
use crate::{
    Batch, Direction, Store,
    backend::CommitFuture,
    tables::{EVENT_NIDS, LOG, META, STATE_NODES, TIMELINE},
};

const ROWS_OF_EACH: u64 = 8;

/// Keeps 32 durable batches of 11 rows under way until the process dies; `acknowledge` is called after each commit.
pub async fn write_forever(store: Store, acknowledge: impl Fn(u64)) {
    let mut under_way = FuturesUnordered::new();
    for n in store.position().0 + 1.. {
        let commit = store.commit(numbered(n));
        under_way.push(async move {
            commit.await.expect("commits succeed until the process dies");
            n
        });
        while under_way.len() >= 32 {
            acknowledge(under_way.next().await.expect("there are some"));
        }
    }
}

/// Commits the batch with number `n`, for writers of other kinds.
pub fn commit_numbered(store: &Store, n: u64) -> CommitFuture {
    store.commit(numbered(n))
}

fn numbered(n: u64) -> Batch {
    let mut batch = Batch::new();
    let position = batch.log(&sample_entry());
    batch.put(&TIMELINE, &(RoomNid(n % 7), position.into()), &EventNid(n));
    for row in 0..ROWS_OF_EACH {
        batch.put(&EVENT_NIDS, &event_id(n, row), &EventNid(n));
    }
    batch.put(&STATE_NODES, &node_id(n), &vec![n as u8; (n % 5000) as usize]);
    batch.put(&META, &"last".to_owned(), &n.to_be_bytes().to_vec());
    batch
}

fn event_id(n: u64, row: u64) -> String {
    format!("${n}-{row}")
}

fn node_id(n: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    id
}

/// Everything acknowledged is there once, every other batch is there entirely or not at all. Returns how many are.
pub async fn check(store: &Store, acknowledged: &BTreeSet<u64>) -> u64 {
    let last = store.position();
    let logged = store.read().all(&LOG, usize::MAX).await.unwrap();
    let logged: Vec<_> = logged.into_iter().map(|(position, _)| position.0).collect();
    assert!(logged.iter().copied().eq(1..=last.0), "the log is dense up to the last position");

    let mut present = BTreeSet::new();
    for room in 0..7 {
        let rows = store.scan(&TIMELINE, &RoomNid(room), Direction::Forward, usize::MAX).await.unwrap();
        for ((_, order), EventNid(n)) in rows {
            assert!(present.insert(n), "batch {n} is there twice");
            assert_eq!(n % 7, room);
            assert!(order.position().is_some_and(|at| at > Position::ZERO && at <= last));
        }
    }
    assert!(acknowledged.is_subset(&present), "lost: {:?}", acknowledged - &present);
    assert_eq!(present.len() as u64, last.0, "one timeline row per log entry");
    for n in &present {
        assert_complete(store, *n).await;
    }
    let names = store.read().all(&EVENT_NIDS, usize::MAX).await.unwrap().len() as u64;
    assert_eq!(names, last.0 * ROWS_OF_EACH, "no rows of batches that are not there");
    let nodes = store.read().all(&STATE_NODES, usize::MAX).await.unwrap().len() as u64;
    assert_eq!(nodes, last.0);
    last.0
}

async fn assert_complete(store: &Store, n: u64) {
    let keys: Vec<_> = (0..ROWS_OF_EACH).map(|row| event_id(n, row)).collect();
    let names = store.multi_get(&EVENT_NIDS, &keys).await.unwrap();
    assert!(names.iter().all(|nid| *nid == Some(EventNid(n))), "batch {n} is incomplete");
    let node = store.get(&STATE_NODES, &node_id(n)).await.unwrap();
    assert_eq!(node, Some(vec![n as u8; (n % 5000) as usize]), "batch {n} is damaged");
}
