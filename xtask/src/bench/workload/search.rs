//! Search of messages: one user with many of them looks for one word and for two.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bench::drive::{Limit, Turn, drive, measured};
use crate::bench::report::{Row, Unit};
use crate::bench::user::User;
use crate::bench::world::{Parts, World, shared_room};

const WRITERS: usize = 8;
const WORDS_PER_MESSAGE: usize = 12;
/// Of which a word is in about one of 170 messages.
const VOCABULARY: usize = 2_000;
/// A slow server is searched with what it has taken by then.
const WRITING_MAX: Duration = Duration::from_secs(600);
const INDEXING_MAX: u32 = 300;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let Parts { server, users } = world.users(WRITERS).await?;
    let room = shared_room(users).await?;
    let write = async |user: &mut User, turn: Turn| {
        let body = json!({ "msgtype": "m.text", "body": sentence(turn.number) });
        user.send(&room, &body.to_string().into()).await.map(drop)
    };
    let limit = Limit { operations: sizes.search_messages, time: WRITING_MAX };
    let written = drive(users, limit, write).await?.len();
    let reader = &mut users[..1];
    wait_until_indexed(&mut reader[0], &room, written).await?;
    server.settle().await?;

    let one = async |user: &mut User, turn: Turn| look(user, &word(turn.number), "recent").await;
    let two = async |user: &mut User, turn: Turn| {
        look(user, &format!("{} {}", word(turn.number), word(turn.number + 7)), "rank").await
    };
    let limit = sizes.limit(sizes.searches);
    let one = measured(server, reader, limit, one).await?;
    let two = measured(server, reader, limit, two).await?;
    let name = format!("search among {written} messages");
    let p50 = one.samples.percentile_ms(50.0).unwrap_or_default();
    Ok(vec![
        Row::driven(format!("{name}, a word"), &one).without_writes(),
        Row::driven(format!("{name}, two words"), &two).without_writes(),
        Row::figure(format!("{name}: p50"), p50, Unit::Milliseconds),
    ])
}

async fn look(user: &mut User, term: &str, order: &str) -> Result<()> {
    let answer: Value = serde_json::from_slice(&user.post("search", &criteria(term, order)).await?)?;
    ensure!(answer["search_categories"]["room_events"]["results"].is_array(), "no results in {answer}");
    Ok(())
}

fn criteria(term: &str, order: &str) -> Value {
    json!({ "search_categories": { "room_events": {
        "search_term": term, "keys": ["content.body"], "order_by": order,
        "event_context": { "before_limit": 1, "after_limit": 1, "include_profile": true },
    } } })
}

/// Servers may index a little later than they answer.
async fn wait_until_indexed(user: &mut User, room: &str, number: usize) -> Result<()> {
    let marker = format!("marker{number}");
    user.send(room, &json!({ "msgtype": "m.text", "body": marker }).to_string().into()).await?;
    for _ in 0..INDEXING_MAX {
        let answer = user.post("search", &criteria(&marker, "recent")).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let results = &answer["search_categories"]["room_events"]["results"];
        if results.as_array().is_some_and(|results| !results.is_empty()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("a message was not found within {INDEXING_MAX} s")
}

fn sentence(number: usize) -> String {
    let words = (0..WORDS_PER_MESSAGE).map(|at| word(number * WORDS_PER_MESSAGE + at));
    words.collect::<Vec<_>>().join(" ")
}

/// The same ones in every run, in no visible order.
fn word(number: usize) -> String {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    format!("word{}x", mixed as usize % VOCABULARY)
}
