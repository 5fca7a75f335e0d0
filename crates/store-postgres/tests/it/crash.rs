//! The writing process killed, and its connections ended, under load.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use myelin_store::{Store, conformance::crash};
use myelin_store_postgres::Postgres;

use crate::{database::Database, open, runtime};

const CHILD_DATABASE: &str = "MYELIN_TEST_CRASH_DATABASE";

/// The process that is killed: started by the test below, does nothing otherwise.
#[test]
#[ignore = "the child process of `everything_acknowledged_survives_kill_9`"]
fn child_writes_until_killed() {
    let Ok(uri) = std::env::var(CHILD_DATABASE) else { return };
    let acknowledge = |n| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {n}").and_then(|()| out.flush()).unwrap();
    };
    runtime().block_on(async {
        let store = Store::new(Arc::new(Postgres::open(&uri).await.unwrap()));
        crash::write_forever(store, acknowledge).await;
    });
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    runtime().block_on(async {
        let database = Database::create().await;
        let mut acknowledged = BTreeSet::new();
        for commits_before_kill in [1, 400] {
            acknowledged.extend(write_and_kill(&database.uri, commits_before_kill));
            // What the server was told before the kill may still be under way.
            database.terminate_connections().await;
            let store = open(&database).await;
            crash::check(&store, &acknowledged).await;
            store.close().await.unwrap();
        }
        assert!(acknowledged.len() >= 401);
        database.drop().await;
    });
}

/// What a child acknowledged before it died.
fn write_and_kill(uri: &str, commits: usize) -> BTreeSet<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_writes_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_DATABASE, uri)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeSet::new();
    for line in lines.map_while(Result::ok) {
        let Some(n) = line.rsplit_once("acknowledged ").and_then(|(_, n)| n.parse().ok()) else { continue };
        acknowledged.insert(n);
        if acknowledged.len() == commits {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= commits, "the child died early");
    acknowledged
}

/// A batch whose connection was lost is answered truly: what succeeded is there, what failed is not.
#[test]
fn lost_connections_lose_no_acknowledged_commit() {
    runtime().block_on(async {
        let database = Database::create().await;
        let store = open(&database).await;
        let mut outcomes = Vec::new();
        let mut terminated = 0;
        for round in 0..8 {
            let commits: Vec<_> =
                (1..=50).map(|n| (round * 50 + n, crash::commit_numbered(&store, round * 50 + n))).collect();
            tokio::task::yield_now().await;
            terminated += database.terminate_connections().await;
            for (n, commit) in commits {
                outcomes.push((n, commit.await.is_ok()));
            }
        }
        assert!(terminated > 0);
        let of = |ok: bool| {
            outcomes.iter().filter(move |(_, o)| *o == ok).map(|(n, _)| *n).collect::<BTreeSet<_>>()
        };
        let present = crash::check(&store, &of(true)).await;
        assert_eq!(present, of(true).len() as u64, "what failed is not there");
        crash::commit_numbered(&store, 1_000_000).await.expect("the store has connected again");
        database.drop().await;
    });
}
