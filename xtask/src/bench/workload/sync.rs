//! Syncs of a user in many rooms: nothing new, something new in one of them, everything.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join;

use crate::bench::drive::{Turn, measured};
use crate::bench::measure::{Samples, Window};
use crate::bench::report::{Row, Unit};
use crate::bench::user::{User, message};
use crate::bench::world::{Busy, World};

/// `{"room":{"state":{"lazy_load_members":true}}}`
const LAZY: &str = "filter=%7B%22room%22:%7B%22state%22:%7B%22lazy_load_members%22:true%7D%7D%7D";

const CONNECTIONS: usize = 16;

/// `timeout=0`, and nothing has happened: over many connections, and over one, where the server falls asleep after
/// each answer and has to be woken for the next.
pub async fn idle(world: &mut World) -> Result<Vec<Row>> {
    let limit = world.sizes.limit(world.sizes.idle_syncs);
    let (server, busy) = world.busy().await?;
    let since = RefCell::new(caught_up(&mut busy.reader).await?);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(busy.reader.also().await?);
    }
    let sync = async |user: &mut User, _: Turn| {
        let query = format!("timeout=0&since={}", since.borrow());
        let synced = user.sync(&query).await?;
        *since.borrow_mut() = synced.next_batch;
        Ok(())
    };
    let many = measured(server, &mut connections, limit, sync).await?;
    let one = measured(server, &mut connections[..1], limit, sync).await?;
    let name = format!("idle sync, {} rooms", busy.rooms.len());
    Ok(vec![
        Row::driven(name.clone(), &many).without_writes(),
        Row::driven(format!("{name}, 1 connection"), &one).without_writes(),
    ])
}

/// A long poll meets a message in one of the rooms. The cost is that of the whole exchange less that of the
/// same sends, as far apart, while nobody waits; the latency runs from the answer to the send.
pub async fn wakeup(world: &mut World) -> Result<Vec<Row>> {
    let wakeups = world.sizes.wakeups;
    let limit = world.sizes.limit(wakeups);
    let (server, Busy { reader, owner, rooms }) = world.busy().await?;
    let content = message("alone ");
    let send = async |user: &mut User, turn: Turn| {
        server.settle().await?;
        user.send(&rooms[turn.number % rooms.len()], &content).await.map(drop)
    };
    let alone = measured(server, std::slice::from_mut(owner), limit, send).await?;

    let mut since = caught_up(reader).await?;
    let mut samples = Samples::default();
    let mut with_waiting = Duration::ZERO;
    for number in 0..wakeups {
        let marker = format!("wake {number} ");
        let window = Window::open(server)?;
        let content = message(&marker);
        let send = async {
            server.settle().await?;
            owner.send(&rooms[number % rooms.len()], &content).await?;
            Ok(Instant::now())
        };
        let (sent, (woken, next)) = try_join(send, wait_for(reader, since, &marker)).await?;
        with_waiting += window.close()?.server_cpu;
        since = next;
        samples.push(woken.saturating_duration_since(sent));
    }
    let each_alone = alone.cost.cpu_us_per(alone.samples.len());
    let each = with_waiting.as_secs_f64() * 1e6 / wakeups as f64;
    let p50_ms = samples.percentile_ms(50.0);
    let name = format!("wake-up, {} rooms", rooms.len());
    let latency = Row::figure(format!("{name}: p50"), p50_ms.unwrap_or_default(), Unit::Milliseconds);
    let cost = Row {
        p50_ms,
        p99_ms: samples.percentile_ms(99.0),
        operations: Some(samples.len()),
        ..Row::figure(name, (each - each_alone).max(0.0), Unit::CpuMicroseconds)
    };
    Ok(vec![cost, latency])
}

/// No `since`, lazily loaded members.
pub async fn initial(world: &mut World) -> Result<Vec<Row>> {
    let limit = world.sizes.limit(world.sizes.initial_syncs);
    let (server, busy) = world.busy().await?;
    let rooms = &busy.rooms;
    let sync = async |user: &mut User, _: Turn| {
        let synced = user.sync(&format!("timeout=0&{LAZY}")).await?;
        let missing = rooms.iter().filter(|room| !synced.mentions(room)).count();
        ensure!(missing == 0, "{missing} rooms are missing in an initial sync");
        Ok(())
    };
    let driven = measured(server, std::slice::from_mut(&mut busy.reader), limit, sync).await?;
    let name = format!("initial sync, {} rooms", rooms.len());
    Ok(vec![Row::driven(name, &driven).without_writes()])
}

async fn wait_for(user: &mut User, mut since: String, marker: &str) -> Result<(Instant, String)> {
    loop {
        let synced = user.sync(&format!("timeout=30000&since={since}")).await?;
        let arrived = Instant::now();
        if synced.mentions(marker) {
            return Ok((arrived, synced.next_batch));
        }
        since = synced.next_batch;
    }
}

async fn caught_up(user: &mut User) -> Result<String> {
    let first = user.sync(&format!("timeout=0&{LAZY}")).await?.next_batch;
    Ok(user.sync(&format!("timeout=0&since={first}")).await?.next_batch)
}
