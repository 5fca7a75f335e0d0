//! Messages into one room and into sixteen, from one sender and from sixteen.

use anyhow::Result;

use crate::bench::drive::{Turn, measured};
use crate::bench::report::Row;
use crate::bench::user::{User, message};
use crate::bench::world::{Parts, World, shared_room};

const SENDERS: usize = 16;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let limit = world.sizes.limit(world.sizes.sends);
    let Parts { server, users } = world.users(SENDERS).await?;
    let mut rooms = Vec::new();
    for _ in 0..SENDERS {
        rooms.push(shared_room(users).await?);
    }
    let mut rows = Vec::new();
    for (rooms, senders) in
        [(1, 1), (1, SENDERS), (SENDERS, 1), (SENDERS, SENDERS)].map(|(r, s)| (&rooms[..r], s))
    {
        let content = message("");
        let send = async |user: &mut User, turn: Turn| {
            // A sender has a room of its own where there are enough, else all rooms in turn.
            let room = if senders == rooms.len() { turn.user } else { turn.number % rooms.len() };
            user.send(&rooms[room], &content).await.map(drop)
        };
        let driven = measured(server, &mut users[..senders], limit, send).await?;
        rows.push(Row::driven(name(rooms.len(), senders), &driven));
    }
    Ok(rows)
}

fn name(rooms: usize, senders: usize) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    format!("send, {rooms} room{}, {senders} sender{}", plural(rooms), plural(senders))
}
