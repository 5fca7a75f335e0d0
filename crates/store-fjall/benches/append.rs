//! Durable append: 8 puts, one deletion and one log entry per batch, at 1, 32 and 256 batches under way.
//!
//! Besides criterion's wall time, each case prints CPU time per batch (the whole process) and fsyncs per batch.

use std::{hint::black_box, path::Path, process::Command, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{
    executor::block_on,
    stream::{self, StreamExt},
};
use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_store::{
    Batch, Direction, Store,
    backend::Backend,
    log::LogEntry,
    tables::{EVENT_NIDS, META, RECEIPTS_BY_POSITION, ROOM_ALIASES, STATE_NODES, TIMELINE, USER_NIDS},
};
use myelin_store_fjall::Fjall;

/// Batches of one measurement: a lone batch takes a whole fsync.
fn batches(under_way: usize) -> u64 {
    if under_way == 1 { 64 } else { 2048 }
}

fn batch(n: u64) -> Batch {
    let mut batch = Batch::new();
    let room = RoomNid(n % 16);
    let position = batch.log(&LogEntry::Account { user: UserNid(n) });
    batch.put(&TIMELINE, &(room, position.into()), &EventNid(n));
    batch.put(&EVENT_NIDS, &format!("${:043x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), &EventNid(n));
    batch.put(&META, &format!("event {n:016x}"), &event(n));
    batch.put(&META, &format!("head {room:?}"), &vec![n as u8; 60]);
    let mut node = [0; 16];
    node[..8].copy_from_slice(&n.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
    batch.put(&STATE_NODES, &node, &vec![7; 120]);
    batch.put(&USER_NIDS, &format!("@user{n}:x"), &UserNid(n));
    batch.put(&ROOM_ALIASES, &(room, format!("{n}")), &());
    batch.delete(&RECEIPTS_BY_POSITION, &(room, position));
    batch
}

/// 715 bytes of which half do not compress, as in a PDU with its hashes and signatures.
fn event(n: u64) -> Vec<u8> {
    let mut state = n;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (state >> 60) as u8
    };
    (0..715).map(|at| if at % 128 < 64 { b'x' } else { noise() }).collect()
}

fn append(store: &Store, from: u64, under_way: usize) {
    let commits = stream::iter(from..from + batches(under_way)).map(|n| store.commit(batch(n)));
    let all = commits.buffer_unordered(under_way).for_each(|committed| {
        committed.expect("the bench directory is writable");
        std::future::ready(())
    });
    block_on(all);
}

/// User and system time of this process in microseconds.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|n| n.parse().ok()).collect();
    fields.iter().sum::<u64>() * 10_000
}

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

fn appends(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
    let backend = Arc::new(Fjall::open(directory.path()).expect("a new store"));
    let store = Store::new(backend.clone());
    let mut next = 0;
    let mut group = criterion.benchmark_group("append");
    group.sample_size(10);
    for under_way in [1, 32, 256] {
        group.throughput(Throughput::Elements(batches(under_way)));
        let (cpu, groups, first) = (cpu_micros(), backend.groups_committed(), next);
        group.bench_function(format!("{under_way} under way"), |bencher| {
            bencher.iter(|| {
                append(&store, next, under_way);
                next += batches(under_way);
            });
        });
        let committed = (next - first) as f64;
        let cpu = (cpu_micros() - cpu) as f64 / committed;
        let fsyncs = (backend.groups_committed() - groups) as f64 / committed;
        println!(
            "{under_way} under way: {cpu:.1} us CPU and {fsyncs:.3} fsyncs per batch; {}",
            resident_kib()
        );
    }
    group.finish();
    reads(criterion, &store, next);
    println!("{next} batches: {} KiB on disk", disk_kib(directory.path()));
    // As a crash would leave it.
    let crashed = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let copied =
        Command::new("cp").arg("-a").arg(directory.path()).arg(crashed.path().join("store")).status();
    assert!(copied.is_ok_and(|status| status.success()));
    block_on(backend.close()).expect("closing flushes");
    println!("closed: {} KiB on disk", disk_kib(directory.path()));
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    for (name, path) in [("closed", directory.path()), ("crashed", &crashed.path().join("store"))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| drop(Fjall::open(path).expect("it opens again")))
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion, store: &Store, batches: u64) {
    let mut n = 0;
    criterion.bench_function("get 715 bytes", |bencher| {
        bencher.iter(|| {
            n = (n + 1) % batches.min(500);
            black_box(
                block_on(store.get(&META, &format!("event {:016x}", batches - 1 - n))).expect("it is there"),
            )
        });
    });
    criterion.bench_function("scan 50 rows", |bencher| {
        bencher.iter(|| {
            black_box(
                block_on(store.scan(&TIMELINE, &RoomNid(3), Direction::Reverse, 50)).expect("they are there"),
            )
        });
    });
}

/// Blocks in use, as `du` counts.
fn disk_kib(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_kib(&entry.path()),
            Ok(meta) => meta.blocks() / 2,
            Err(_) => 0,
        })
        .sum()
}

criterion_group!(benches, appends);
criterion_main!(benches);
