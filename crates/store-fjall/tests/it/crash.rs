//! `kill -9` under load, and journals torn at any byte.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use futures::executor::block_on;
use myelin_store::conformance::crash;

use crate::open;

const CHILD_DIRECTORY: &str = "MYELIN_TEST_CRASH_DIRECTORY";

/// The process that is killed: started by the test below, does nothing otherwise.
#[test]
#[ignore = "the child process of `everything_acknowledged_survives_kill_9`"]
fn child_writes_until_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let acknowledge = |n| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {n}").and_then(|()| out.flush()).unwrap();
    };
    block_on(crash::write_forever(open(directory), acknowledge));
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for commits_before_kill in [1, 200, 3000] {
        acknowledged.extend(write_and_kill(directory.path(), commits_before_kill));
        let store = open(directory.path());
        block_on(crash::check(&store, &acknowledged));
        block_on(store.close()).unwrap();
    }
    assert!(acknowledged.len() >= 3201);
}

/// What a child acknowledged before it died.
fn write_and_kill(directory: &Path, commits: usize) -> BTreeSet<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_writes_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
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

/// A journal that ends anywhere, cut off or followed by zeros (the file is allocated in advance), opens with every
/// batch before the tear and nothing of the torn one.
#[test]
fn a_torn_journal_opens_without_the_torn_batch() {
    let original = tempfile::tempdir().unwrap();
    let store = open(original.path());
    // Values of about 4 KiB: some are compressed in the journal, some are not.
    for n in 4090..4102 {
        block_on(crash::commit_numbered(&store, n)).unwrap();
    }
    let journal = fs::read(original.path().join("0.jnl")).unwrap();
    let written = journal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut commits_seen = BTreeSet::new();
    for step in 0..30 {
        let length = written - (written * step / 32) - step % 7;
        let torn = tempfile::tempdir().unwrap();
        copy_directory(original.path(), torn.path());
        let mut bytes = journal[..length].to_vec();
        bytes.resize(length + 4096 * (step % 2), 0);
        fs::write(torn.path().join("0.jnl"), bytes).unwrap();
        commits_seen.insert(block_on(crash::check(&open(torn.path()), &BTreeSet::new())));
    }
    assert!(commits_seen.len() >= 8, "tears at different commits: {commits_seen:?}");
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
