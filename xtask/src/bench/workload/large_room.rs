//! A very large room: this server joins it elsewhere, and other servers join it here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bench::measure::{Cost, Window};
use crate::bench::puppet::{Host, HostedRoom, Puppet, escaped, joined};
use crate::bench::report::{Row, Unit};
use crate::bench::user::{User, event_id, message};
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
    let window = Window::open(&world.server)?;
    let begun = Instant::now();
    let via = host.name_of(0);
    let path = format!("join/{}?server_name={via}&via={via}", escaped(&room.room_id));
    user.post(&path, &json!({})).await?;
    event_id(&user.send(&escaped(&room.room_id), &message("here I am")).await?)?;
    let usable = begun.elapsed();
    complete(&mut user, &room.room_id, members + 2).await?;
    let done = begun.elapsed();
    let cost = window.close()?;
    let named = |what: &str| format!("room of {members} members, {what}");
    let mut rows = vec![
        Row::figure(named("joining: usable"), usable.as_secs_f64(), Unit::Seconds),
        Row::figure(named("joining: complete"), done.as_secs_f64(), Unit::Seconds),
    ];
    rows.extend(costs(&named("joining"), cost));
    let forms = [("serving a join without members", true), ("serving a join", false)];
    for (newcomer, (what, partially)) in forms.into_iter().enumerate() {
        // Nothing of the room is in memory any more.
        world.server.stop().await?;
        world.server.start_again().await?;
        let cost = serve(world, &host, &room.room_id, NEWCOMER + newcomer, partially).await?;
        rows.push(Row::figure(named(what), cost.wall.as_secs_f64(), Unit::Seconds));
        rows.extend(costs(&named(what), cost));
    }
    Ok(rows)
}

fn costs(name: &str, cost: Cost) -> [Row; 2] {
    [
        Row::figure(format!("{name}: CPU"), cost.server_cpu.as_secs_f64(), Unit::Seconds),
        Row::figure(format!("{name}: peak of memory more"), cost.memory_bytes as f64 / 1e6, Unit::Megabytes),
    ]
}

async fn complete(user: &mut User, room: &str, members: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = user.get(&format!("rooms/{}/joined_members", escaped(room))).await?;
        if joined(&answer)? >= members {
            return Ok(());
        }
        ensure!(begun.elapsed() < COMPLETE_MAX, "{} of {members} members are known", joined(&answer)?);
        tokio::time::sleep(POLL).await;
    }
}

/// Another server joins the room through the server under test, whole or as servers ask for it.
async fn serve(world: &World, host: &Host, room: &str, newcomer: usize, partially: bool) -> Result<Cost> {
    let mut puppet = Puppet::open(host, world.server.address, newcomer).await?;
    let user = puppet.user(0);
    let window = Window::open(&world.server)?;
    let (_, answer) = match partially {
        true => puppet.join_partially(room, &user).await?,
        false => puppet.join(room, &user).await?,
    };
    let cost = window.close()?;
    let state = answer["state"].as_array().map_or(0, Vec::len);
    let omitted = answer["members_omitted"] == Value::Bool(true);
    let whole = state > world.sizes.large_room;
    ensure!(
        (omitted, whole) == (partially, !partially),
        "{state} events of state, members omitted: {omitted}"
    );
    Ok(cost)
}
