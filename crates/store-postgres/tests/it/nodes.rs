//! Several nodes on one database.

use std::sync::Arc;

use futures::future::{join, join_all};
use myelin_core::{EventNid, Position, RoomNid};
use myelin_store::{
    Batch, CommitError, Direction, Store,
    conformance::{crash, sample_entry},
    maintenance::copy,
    memory::{Memory, MemoryDisk},
    tables::{Counter, LOG, NID_COUNTERS, TIMELINE},
};
use myelin_store_postgres::Postgres;

use crate::{database::Database, open, runtime};

async fn increment(store: &Store) -> bool {
    let loaded = store.get(&NID_COUNTERS, &0).await.unwrap();
    let mut batch = Batch::new();
    batch.require_unchanged(&NID_COUNTERS, &0, loaded.as_ref());
    batch.put(&NID_COUNTERS, &0, &Counter { next: loaded.map_or(0, |c| c.next) + 1 });
    let position = batch.log(&sample_entry());
    batch.put(&TIMELINE, &(RoomNid(1), position.into()), &EventNid(1));
    match store.commit(batch).await {
        Ok(_) => true,
        Err(CommitError::Conflict { .. }) => false,
        Err(CommitError::Store(error)) => panic!("{error}"),
    }
}

#[test]
fn increments_of_three_nodes_are_all_there_and_in_order() {
    runtime().block_on(async {
        let database = Database::create().await;
        let nodes = join_all((0..3).map(|_| open(&database))).await;
        join_all((0..12).map(|task| {
            let store = nodes[task % 3].clone();
            async move {
                for _ in 0..10 {
                    while !increment(&store).await {}
                }
            }
        }))
        .await;
        for node in &nodes {
            assert_eq!(node.get(&NID_COUNTERS, &0).await.unwrap(), Some(Counter { next: 120 }));
            let log = node.read().all(&LOG, 1000).await.unwrap();
            assert!(log.iter().map(|(position, _)| position.0).eq(1..=120));
            let timeline = node.scan(&TIMELINE, &RoomNid(1), Direction::Forward, 1000).await.unwrap();
            assert_eq!(timeline.len(), 120);
        }
        join_all(nodes.iter().map(Store::close)).await;
        database.drop().await;
    });
}

#[test]
fn a_node_hears_of_another_nodes_commit() {
    runtime().block_on(async {
        let database = Database::create().await;
        let (writing, waiting) = (open(&database).await, open(&database).await);
        for n in 1..=20 {
            let (position, committed) = join(waiting.wait_past(Position(n - 1)), increment(&writing)).await;
            assert!(committed);
            assert_eq!(position, Position(n));
            let row = waiting.get(&NID_COUNTERS, &0).await.unwrap();
            assert_eq!(row, Some(Counter { next: n }), "what is announced is there");
        }
        database.drop().await;
    });
}

#[test]
fn opening_at_the_same_time_is_harmless() {
    runtime().block_on(async {
        let database = Database::create().await;
        let opening = (0..5).map(|_| async {
            let backend = Arc::new(Postgres::open(&database.uri).await.unwrap());
            Store::open(backend).await.unwrap()
        });
        let stores = join_all(opening).await;
        assert!(stores.iter().all(|store| store.position() == Position::ZERO));
        database.drop().await;
    });
}

#[test]
fn an_address_without_a_server_says_so() {
    runtime().block_on(async {
        let refused = Postgres::open("postgres://u:secret@127.0.0.1:1/db").await.err().unwrap().to_string();
        assert!(refused.contains("PostgreSQL"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        let refused = Postgres::open("postgres://host:port/").await.err().unwrap().to_string();
        assert!(refused.contains("URI is not valid"), "{refused}");
    });
}

/// From one engine to another and back: every row and the position arrive.
#[test]
fn a_copy_goes_between_engines() {
    runtime().block_on(async {
        let database = Database::create().await;
        let memory = || Store::new(Arc::new(Memory::open(MemoryDisk::default())));
        let (original, postgres, back) = (memory(), open(&database).await, memory());
        for n in 1..=300 {
            crash::commit_numbered(&original, n).await.unwrap();
        }
        copy(&original, &postgres, &mut |_| {}).await.unwrap();
        crash::check(&postgres, &(1..=300).collect()).await;
        let copied = copy(&postgres, &back, &mut |_| {}).await.unwrap();
        assert_eq!(copied.position, Position(300));
        crash::check(&back, &(1..=300).collect()).await;
        assert!(increment(&postgres).await);
        assert_eq!(postgres.position(), Position(301), "it goes on where the original stood");
        database.drop().await;
    });
}
