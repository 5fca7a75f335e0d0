//! Messages into a room of very many local members, for each of whom push rules say whether they are notified.
//!
//! The cost is that of the whole send: the evaluation cannot be told from the rest from outside.

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;

use crate::bench::drive::{Turn, measured};
use crate::bench::report::Row;
use crate::bench::user::{User, message};
use crate::bench::world::World;

const KEYWORD: &str = "zeppelin";
/// One of so many members watches for the keyword.
const WATCHFUL: usize = 100;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let members = world.sizes.audience;
    let limit = world.sizes.limit(world.sizes.judged);
    let mut owner = world.fresh_user().await?;
    let room = owner.create_room().await?;
    world.crowd(&room, members, WATCHFUL, KEYWORD).await?;
    world.server.settle().await?;
    let to_everybody = json!({ "msgtype": "m.text", "body": "@room hello", "m.mentions": { "room": true } });
    let kinds = [
        ("a message", message("hello ")),
        ("one that 1 in 100 watches for", message("a zeppelin is in it ")),
        ("one to the whole room", Bytes::from(to_everybody.to_string())),
    ];
    let mut rows = Vec::new();
    for (kind, content) in kinds {
        let send = async |user: &mut User, _: Turn| user.send(&room, &content).await.map(drop);
        let driven = measured(&world.server, std::slice::from_mut(&mut owner), limit, send).await?;
        rows.push(Row::driven(format!("push, {members} members: {kind}"), &driven));
    }
    Ok(rows)
}
