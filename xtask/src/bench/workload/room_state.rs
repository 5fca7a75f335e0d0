//! A room with thousands of state events: what setting one costs, and what reading all of them does.

use anyhow::{Result, ensure};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::bench::drive::{Limit, Turn, measured};
use crate::bench::report::Row;
use crate::bench::user::User;
use crate::bench::world::World;

const CONNECTIONS: usize = 8;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let mut owner = world.fresh_user().await?;
    let room = owner.create_room().await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(owner.also().await?);
    }
    let set = async |user: &mut User, turn: Turn| {
        let path = format!("rooms/{room}/state/org.example.bench/key{}", turn.number);
        user.put(&path, &json!({ "value": turn.number, "of": "a state event" })).await.map(drop)
    };
    let keys = sizes.state_keys;
    let written = measured(&world.server, &mut connections, Limit::whole(keys), set).await?;

    let get = async |user: &mut User, _: Turn| {
        let answer = user.get(&format!("rooms/{room}/state")).await?;
        let events: Vec<IgnoredAny> = serde_json::from_slice(&answer)?;
        ensure!(events.len() > keys, "{} state events where {keys} were set", events.len());
        Ok(())
    };
    let read = measured(&world.server, &mut connections[..1], sizes.limit(sizes.state_reads), get).await?;
    Ok(vec![
        Row::driven(format!("set one of {keys} state events"), &written),
        Row::driven(format!("get all {keys} state events"), &read).without_writes(),
    ])
}
