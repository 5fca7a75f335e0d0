//! What the server takes after everything before: memory, the time of a restart, the disk per event.

use anyhow::Result;

use crate::bench::drive::{Turn, drive};
use crate::bench::procfs;
use crate::bench::report::{Row, Unit};
use crate::bench::user::{User, message};
use crate::bench::world::{World, shared_room};

const SENDERS: usize = 16;
const BYTES_PER_MEGABYTE: f64 = 1e6;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let resident = procfs::resident_bytes(world.server.pid())? as f64 / BYTES_PER_MEGABYTE;
    let room = shared_room(world.users(SENDERS).await?.users).await?;

    world.server.stop().await?;
    let disk_before = world.server.disk_bytes()?;
    let restart = world.server.start_again().await?;

    let content = message("on the disk ");
    let send = async |user: &mut User, _: Turn| user.send(&room, &content).await.map(drop);
    let users = world.users(SENDERS).await?.users;
    let events = drive(users, sizes.limit(sizes.disk_events), send).await?.len();
    world.server.stop().await?;
    let grown = world.server.disk_bytes()?.saturating_sub(disk_before);
    world.server.start_again().await?;

    Ok(vec![
        Row::figure("resident memory after the run", resident, Unit::Megabytes),
        Row::figure("restart to ready", restart.as_secs_f64(), Unit::Seconds),
        Row::figure("disk per 700-byte event", grown as f64 / events as f64, Unit::Bytes),
    ])
}
