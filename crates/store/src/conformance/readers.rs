//! What readers see while writers go on: snapshots, waiting, reopening.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{self, Either, join},
};
use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};

use super::{Harness, open, sample_entry};
use crate::{
    Batch, Direction, Store,
    tables::{Counter, EVENT_NIDS, LOG, META, NID_COUNTERS, TIMELINE},
};

/// Commit `n` writes `n` to several tables; every reader sees the same `n` in all of them.
fn numbered(n: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&NID_COUNTERS, &0, &Counter { next: n });
    let position = batch.log(&sample_entry());
    batch.put(&TIMELINE, &(RoomNid(1), position.into()), &EventNid(n));
    batch.put(&EVENT_NIDS, &"$last".to_owned(), &EventNid(n));
    batch
}

const COMMITS: u64 = 300;

async fn write_numbered(store: Store) {
    for n in 1..=COMMITS {
        store.commit(numbered(n)).await.unwrap();
    }
}

async fn last_number(store: &Store) -> u64 {
    store.get(&NID_COUNTERS, &0).await.unwrap().map_or(0, |c| c.next)
}

pub async fn snapshots_are_consistent_across_tables(harness: &dyn Harness) {
    let store = open(harness).await;
    let reader = {
        let store = store.clone();
        async move {
            while last_number(&store).await < COMMITS {
                assert_snapshot_agrees(&store).await;
            }
        }
    };
    harness.run_all(vec![write_numbered(store.clone()).boxed(), reader.boxed()]).await;

    let before = store.snapshot().await.unwrap();
    store.commit(numbered(COMMITS + 1)).await.unwrap();
    let seen = before.read().get(&NID_COUNTERS, &0).await.unwrap();
    assert_eq!(seen, Some(Counter { next: COMMITS }), "a snapshot does not move");
    assert_snapshot_agrees(&store).await;
}

async fn assert_snapshot_agrees(store: &Store) {
    let snapshot = store.snapshot().await.unwrap();
    let read = snapshot.read();
    let counter = read.get(&NID_COUNTERS, &0).await.unwrap().map_or(0, |c| c.next);
    futures_yield().await;
    let nid = read.get(&EVENT_NIDS, &"$last".to_owned()).await.unwrap().map_or(0, |n| n.0);
    let logged = read.range(&LOG, &Position(0), &Position(u64::MAX), Direction::Reverse, 1).await.unwrap();
    let timeline = read.scan(&TIMELINE, &RoomNid(1), Direction::Forward, 1000).await.unwrap();
    assert_eq!(nid, counter);
    assert_eq!(logged.first().map_or(0, |(position, _)| position.0), counter);
    assert_eq!(timeline.len() as u64, counter);
}

/// Lets a concurrent task of the same executor go on.
async fn futures_yield() {
    let mut yielded = false;
    future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Without a snapshot too: who has read a row of commit `n` finds every other row of commit `n`.
pub async fn later_reads_see_no_less(harness: &dyn Harness) {
    let store = open(harness).await;
    let reader = {
        let store = store.clone();
        async move {
            loop {
                let counter = last_number(&store).await;
                let nid = store.get(&EVENT_NIDS, &"$last".to_owned()).await.unwrap().map_or(0, |n| n.0);
                assert!(nid >= counter, "{nid} < {counter}");
                let row = store.get(&TIMELINE, &(RoomNid(1), Position(nid).into())).await.unwrap();
                assert!(nid == 0 || row == Some(EventNid(nid)));
                if counter == COMMITS {
                    break;
                }
                futures_yield().await;
            }
        }
    };
    harness.run_all(vec![write_numbered(store).boxed(), reader.boxed()]).await;
}

pub async fn waiting_for_a_position_wakes(harness: &dyn Harness) {
    let store = open(harness).await;
    store.commit(numbered(1)).await.unwrap();
    assert_eq!(store.wait_past(Position::ZERO).await, Position(1), "already past");

    let waiting = store.wait_past(Position(1));
    let Either::Right((_, waiting)) = future::select(waiting, future::ready(())).await else {
        panic!("woke without a commit");
    };
    let mut without_entry = Batch::new();
    without_entry.put(&META, &"k".to_owned(), &vec![]);
    store.commit(without_entry).await.unwrap();
    let Either::Right((_, waiting)) = future::select(waiting, future::ready(())).await else {
        panic!("woke although the position stayed");
    };
    let writer = async { store.commit(numbered(2)).await.unwrap() };
    let (position, committed) = join(waiting, writer).await;
    assert_eq!(position, committed.last);

    // Many waiters at different positions, all of them wake.
    let waiters = (2..40_u64).map(|seen| {
        let store = store.clone();
        async move { assert!(store.wait_past(Position(seen)).await > Position(seen)) }.boxed()
    });
    let writer = {
        let store = store.clone();
        async move {
            for n in 3..=40 {
                store.commit(numbered(n)).await.unwrap();
            }
        }
    };
    harness.run_all(waiters.chain([writer.boxed()]).collect()).await;
}

pub async fn a_position_is_announced_after_its_rows_are_there(harness: &dyn Harness) {
    let store = open(harness).await;
    let reader = {
        let store = store.clone();
        async move {
            let mut seen = Position::ZERO;
            while seen < Position(COMMITS) {
                let position = store.wait_past(seen).await;
                let (from, to) = (seen.next(), position.next());
                let entries = store.range(&LOG, &from, &to, Direction::Forward, 1000).await.unwrap();
                assert_eq!(entries.len() as u64, position.0 - seen.0);
                assert!(last_number(&store).await >= position.0);
                seen = position;
            }
        }
    };
    harness.run_all(vec![reader.boxed(), write_numbered(store).boxed()]).await;
}

pub async fn reopening_keeps_everything(harness: &dyn Harness) {
    for session in 0..3_u64 {
        let store = open(harness).await;
        assert_eq!(store.position(), Position(session * 20));
        assert_eq!(last_number(&store).await, session * 20);
        for n in 1..=20 {
            store.commit(numbered(session * 20 + n)).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let store = open(harness).await;
    let timeline = store.scan(&TIMELINE, &RoomNid(1), Direction::Forward, 1000).await.unwrap();
    let expected: Vec<_> =
        (1..=60).map(|n| ((RoomNid(1), TimelineOrder::from(Position(n))), EventNid(n))).collect();
    assert_eq!(timeline, expected);
    assert_eq!(store.read().all(&LOG, 1000).await.unwrap().len(), 60);
}

pub async fn closing_twice_is_harmless(harness: &dyn Harness) {
    let backend = harness.open().await;
    let store = Store::new(Arc::clone(&backend));
    let pending = store.commit(numbered(1));
    store.close().await.unwrap();
    pending.await.expect("what was submitted before is written");
    backend.close().await.unwrap();
    drop((store, backend));
    assert_eq!(last_number(&open(harness).await).await, 1);
}
