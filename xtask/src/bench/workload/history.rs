//! Back-pagination: from the newest message to the first, a hundred at a time.

use std::cell::{Cell, RefCell};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::bench::drive::{Limit, Turn, drive, measured};
use crate::bench::report::Row;
use crate::bench::user::{User, message};
use crate::bench::world::{Parts, World, shared_room};

const WRITERS: usize = 4;

#[derive(Deserialize)]
struct Page {
    end: Option<String>,
    chunk: Vec<IgnoredAny>,
}

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let Parts { server, users } = world.users(WRITERS).await?;
    let room = shared_room(users).await?;
    let content = message("history ");
    let write = async |user: &mut User, _: Turn| user.send(&room, &content).await.map(drop);
    drive(users, Limit::whole(sizes.history), write).await?;
    server.settle().await?;

    let from = RefCell::new(None::<String>);
    let seen = Cell::new(0);
    let read = async |user: &mut User, _: Turn| {
        let position = from.take().map_or(String::new(), |from| format!("&from={from}"));
        let answer = user.get(&format!("rooms/{room}/messages?dir=b&limit=100{position}")).await?;
        let page: Page = serde_json::from_slice(&answer)?;
        seen.set(seen.get() + page.chunk.len());
        // The newest page again once the beginning is reached.
        let more = !page.chunk.is_empty();
        if !more || page.end.is_none() {
            ensure!(seen.get() >= sizes.history, "a walk saw {} of {} messages", seen.get(), sizes.history);
            seen.set(0);
        }
        from.replace(page.end.filter(|_| more));
        Ok(())
    };
    let driven = measured(server, &mut users[..1], sizes.limit(sizes.pages), read).await?;
    Ok(vec![Row::driven("page of 100 messages", &driven).without_writes()])
}
