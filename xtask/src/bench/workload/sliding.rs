//! Sliding sync of a user in very many rooms: the first window on them, and the way of a message into it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join;

use crate::bench::drive::{Turn, measured};
use crate::bench::measure::Samples;
use crate::bench::report::{Row, Unit};
use crate::bench::user::{User, message};
use crate::bench::world::World;

/// The sender waits so long until the other one does.
const HEAD_START: Duration = Duration::from_millis(20);

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let (count, wakeups) = (world.sizes.windowed_rooms, world.sizes.wakeups);
    let limit = world.sizes.limit(world.sizes.windows);
    let mut users = world.fresh_users(2).await?;
    let mut rooms = Vec::with_capacity(count);
    for _ in 0..count {
        let room = users[1].create_room().await?;
        users[0].join(&room).await?;
        rooms.push(room);
    }
    let newest = rooms[count - 1].clone();
    let open = async |user: &mut User, _: Turn| {
        let window = user.window(None, 0).await?;
        ensure!(window.mentions(&newest), "the newest room is not in the window");
        Ok(())
    };
    let driven = measured(&world.server, &mut users[..1], limit, open).await?;
    let name = format!("first window, {count} rooms");
    let mut table = Vec::new();
    if let Some(p50_ms) = driven.samples.percentile_ms(50.0) {
        table.push(Row::figure(format!("{name}: p50"), p50_ms, Unit::Milliseconds));
    }
    table.insert(0, Row::driven(name, &driven));

    let [reader, owner] = &mut users[..] else { return Ok(table) };
    let mut pos = reader.window(None, 0).await?.next_batch;
    let mut samples = Samples::default();
    for number in 0..wakeups {
        let marker = format!("window {number} ");
        let content = message(&marker);
        let room = &rooms[number % rooms.len()];
        let send = async {
            tokio::time::sleep(HEAD_START).await;
            owner.send(room, &content).await?;
            Ok(Instant::now())
        };
        let (sent, (seen, next)) = try_join(send, wait_for(reader, pos, &marker)).await?;
        samples.push(seen.saturating_duration_since(sent));
        pos = next;
    }
    let p50_ms = samples.percentile_ms(50.0).unwrap_or_default();
    table.push(Row::figure(format!("window wake-up, {count} rooms: p50"), p50_ms, Unit::Milliseconds));
    Ok(table)
}

async fn wait_for(user: &mut User, mut pos: String, marker: &str) -> Result<(Instant, String)> {
    loop {
        let window = user.window(Some(&pos), 30_000).await?;
        let arrived = Instant::now();
        if window.mentions(marker) {
            return Ok((arrived, window.next_batch));
        }
        pos = window.next_batch;
    }
}
