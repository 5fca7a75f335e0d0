//! Receipts and typing in a room of sixteen.

use anyhow::Result;
use serde_json::json;

use crate::bench::drive::{Turn, measured};
use crate::bench::report::Row;
use crate::bench::user::{User, event_id, message};
use crate::bench::world::{Parts, World, shared_room};

const MEMBERS: usize = 16;
/// Receipts that move forward; a repeated one may be no work at all.
const EVENTS_MAX: usize = 1_000;

/// Every member reads every message, in order.
pub async fn receipt(world: &mut World) -> Result<Vec<Row>> {
    let receipts = world.sizes.ephemeral.min(EVENTS_MAX * MEMBERS);
    let limit = world.sizes.limit(receipts);
    let Parts { server, users } = world.users(MEMBERS).await?;
    let room = shared_room(users).await?;
    let mut events = Vec::new();
    for _ in 0..receipts.div_ceil(MEMBERS) {
        events.push(event_id(&users[0].send(&room, &message("read me ")).await?)?);
    }
    let read = async |user: &mut User, turn: Turn| {
        let event = &events[turn.number / MEMBERS];
        user.post(&format!("rooms/{room}/receipt/m.read/{event}"), &json!({})).await.map(drop)
    };
    let driven = measured(server, users, limit, read).await?;
    Ok(vec![Row::driven("receipt", &driven)])
}

/// Every member starts and stops.
pub async fn typing(world: &mut World) -> Result<Vec<Row>> {
    let limit = world.sizes.limit(world.sizes.ephemeral);
    let Parts { server, users } = world.users(MEMBERS).await?;
    let room = shared_room(users).await?;
    let starting = json!({ "typing": true, "timeout": 30_000 });
    let stopping = json!({ "typing": false });
    let toggle = async |user: &mut User, turn: Turn| {
        let path = format!("rooms/{room}/typing/{}", user.id);
        let body = if (turn.number / MEMBERS).is_multiple_of(2) { &starting } else { &stopping };
        user.put(&path, body).await.map(drop)
    };
    let driven = measured(server, users, limit, toggle).await?;
    Ok(vec![Row::driven("typing", &driven).without_writes()])
}
