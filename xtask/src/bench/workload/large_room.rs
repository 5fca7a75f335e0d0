//! A very large room: another server joins it here, and this server joins it elsewhere.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bench::measure::Window;
use crate::bench::procfs;
use crate::bench::puppet::{Host, HostedRoom, Puppet, escaped, joined};
use crate::bench::report::{Row, Unit};
use crate::bench::world::World;

const COMPLETE_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);
/// Beyond the servers over which the members are spread.
const NEWCOMER: usize = 500;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let members = world.sizes.large_room;
    let host = Host::start().await?;
    let room = Arc::new(HostedRoom::build(&host, members));
    host.serve_room(room.clone());
    let mut user = world.fresh_user().await?;
    let memory_before = procfs::resident_bytes(world.server.pid())?;
    let window = Window::open(&world.server)?;
    let begun = Instant::now();
    let via = host.name_of(0);
    let path = format!("join/{}?server_name={via}&via={via}", escaped(&room.room_id));
    user.post(&path, &json!({})).await?;
    let usable = begun.elapsed();
    complete(&mut user, &room.room_id, members + 2).await?;
    let done = begun.elapsed();
    let cost = window.close()?;
    let memory = procfs::resident_bytes(world.server.pid())?.saturating_sub(memory_before);
    let served = serve(world, &host, &room.room_id).await?;
    let named = |what: &str| format!("room of {members} members, {what}");
    Ok(vec![
        Row::figure(named("joining: usable"), usable.as_secs_f64(), Unit::Seconds),
        Row::figure(named("joining: complete"), done.as_secs_f64(), Unit::Seconds),
        Row::figure(named("joining: CPU"), cost.server_cpu.as_secs_f64(), Unit::Seconds),
        Row::figure(named("joining: memory more"), memory as f64 / 1e6, Unit::Megabytes),
        Row::figure(named("serving a join"), served.0.as_secs_f64(), Unit::Seconds),
        Row::figure(named("serving a join: CPU"), served.1.as_secs_f64(), Unit::Seconds),
    ])
}

async fn complete(user: &mut crate::bench::user::User, room: &str, members: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = user.get(&format!("rooms/{}/joined_members", escaped(room))).await?;
        if joined(&answer)? >= members {
            return Ok(());
        }
        if begun.elapsed() > COMPLETE_MAX {
            bail!("{} of {members} members are known", joined(&answer)?);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Another server joins the room through the server under test: the whole state goes out.
async fn serve(world: &World, host: &Host, room: &str) -> Result<(Duration, Duration)> {
    let mut puppet = Puppet::open(host, world.server.address, NEWCOMER).await?;
    let newcomer = puppet.user(0);
    let window = Window::open(&world.server)?;
    let begun = Instant::now();
    let (_, answer) = puppet.join(room, &newcomer).await?;
    let took = begun.elapsed();
    answer["state"]
        .as_array()
        .filter(|state| state.len() > world.sizes.large_room)
        .context("not all state")?;
    Ok((took, window.close()?.server_cpu))
}
