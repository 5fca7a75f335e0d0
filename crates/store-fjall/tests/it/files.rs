//! The directory: locking, and what is said when it cannot be opened.

use std::path::Path;

use futures::executor::block_on;
use myelin_core::{EventNid, Position};
use myelin_store::{
    Batch,
    conformance::{crash, sample_entry},
    maintenance::copy,
    tables::EVENT_NIDS,
};
use myelin_store_fjall::Fjall;

use crate::open;

#[test]
fn a_store_in_use_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let refused = Fjall::open(directory.path()).err().expect("the directory is locked").to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    block_on(store.close()).unwrap();
    open(directory.path());
}

#[test]
fn a_directory_that_cannot_be_made_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = Fjall::open(&file.path().join("store")).err().expect("not a directory").to_string();
    assert!(refused.contains("cannot open"), "{refused}");
}

#[test]
fn a_closed_store_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    block_on(store.close()).unwrap();
    assert!(block_on(store.get(&EVENT_NIDS, &"$a".to_owned())).is_err());
    assert!(block_on(store.snapshot()).is_err());
    assert!(block_on(store.commit(Batch::new())).is_err());
}

#[test]
fn compaction_keeps_every_row() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..3_u64 {
        let mut batch = Batch::new();
        for n in 0..500_u64 {
            batch.put(&EVENT_NIDS, &format!("${n}"), &EventNid(round));
        }
        batch.delete(&EVENT_NIDS, &format!("${round}"));
        batch.log(&sample_entry());
        block_on(store.commit(batch)).unwrap();
        block_on(store.backend().compact()).unwrap();
    }
    let rows = block_on(store.read().all(&EVENT_NIDS, 1000)).unwrap();
    assert_eq!(rows.len(), 499);
    assert!(rows.iter().all(|(_, nid)| *nid == EventNid(2)));
    assert_eq!(store.position(), Position(3));
}

#[test]
fn a_backup_during_writes_is_one_moment() {
    let (directory, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(directory.path());
    for n in 1..=500 {
        block_on(crash::commit_numbered(&store, n)).unwrap();
    }
    let writing = store.clone();
    let mut next = 500;
    let mut write_on = |_| {
        next += 1;
        drop(crash::commit_numbered(&writing, next));
    };
    let backup = open(target.path());
    let copied = block_on(copy(&store, &backup, &mut write_on)).unwrap();
    block_on(backup.close()).unwrap();
    assert!(next > 520, "there were writes meanwhile");

    let restored = open(target.path());
    assert_eq!(restored.position(), copied.position);
    assert!(copied.position >= Position(500));
    block_on(crash::check(&restored, &(1..=copied.position.0).collect()));
}

fn journal_bytes(directory: &Path) -> u64 {
    std::fs::metadata(directory.join("0.jnl")).unwrap().len()
}

#[test]
fn closing_empties_the_journal_and_keeps_every_row() {
    let directory = tempfile::tempdir().unwrap();
    for session in 0..3 {
        let store = open(directory.path());
        for n in session * 200 + 1..=session * 200 + 200 {
            block_on(crash::commit_numbered(&store, n)).unwrap();
        }
        assert!(journal_bytes(directory.path()) > 0);
        block_on(store.close()).unwrap();
        assert_eq!(journal_bytes(directory.path()), 0);
        drop(store);
        let again = open(directory.path());
        block_on(crash::check(&again, &(1..=session * 200 + 200).collect()));
    }
}

#[test]
fn a_snapshot_keeps_the_journal_of_a_closed_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    block_on(crash::commit_numbered(&store, 1)).unwrap();
    let snapshot = block_on(store.snapshot()).unwrap();
    block_on(store.close()).unwrap();
    assert!(journal_bytes(directory.path()) > 0, "the database is still open");
    drop(snapshot);
    block_on(crash::check(&open(directory.path()), &[1].into()));
}
