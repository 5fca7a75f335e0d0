//! One message to a room whose members all wait in a long poll.
//!
//! The cost of a delivery has everything in it: reading the request of the sync, letting it wait, waking it,
//! answering, and its share of the send. The latency runs from the answer to the send until the last member
//! has its answer.

use std::time::Instant;

use anyhow::Result;
use futures::future::{try_join, try_join_all};

use crate::bench::measure::{Cost, Samples, Window};
use crate::bench::report::{Row, Unit};
use crate::bench::server::Server;
use crate::bench::user::{User, message};
use crate::bench::world::{Parts, World, shared_room};

/// A user with the token of its last sync.
struct Waiter<'a> {
    user: &'a mut User,
    since: String,
}

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for members in world.sizes.fanouts {
        let rounds = world.sizes.rounds;
        let Parts { server, users } = world.users(members + 1).await?;
        rows.extend(fan_out(server, users, rounds).await?);
    }
    Ok(rows)
}

async fn fan_out(server: &Server, users: &mut [User], rounds: usize) -> Result<Vec<Row>> {
    let members = users.len() - 1;
    let room = shared_room(users).await?;
    let Some((sender, members_of_room)) = users.split_first_mut() else { return Ok(Vec::new()) };
    let mut waiters = Vec::with_capacity(members);
    for user in members_of_room {
        waiters.push(Waiter::start(user).await?);
    }
    let mut last_member = Samples::default();
    let mut total = Cost::default();
    // The first round is for what is done once.
    round(server, sender, &mut waiters, &room, "warm-up ").await?;
    for number in 0..rounds {
        let window = Window::open(server)?;
        let (sent, last) = round(server, sender, &mut waiters, &room, &format!("round {number} ")).await?;
        total += window.close()?;
        last_member.push(last.saturating_duration_since(sent));
    }
    let deliveries = rounds * members;
    let mut delivery = Row::figure(
        format!("fan-out to {members}: a delivery"),
        total.cpu_us_per(deliveries),
        Unit::CpuMicroseconds,
    );
    delivery.operations = Some(deliveries);
    delivery.generator_cpu_us = Some(total.generator_cpu.as_secs_f64() * 1e6 / deliveries as f64);
    Ok(vec![delivery, last_member_row(members, &last_member)])
}

fn last_member_row(members: usize, samples: &Samples) -> Row {
    let p50_ms = samples.percentile_ms(50.0);
    Row {
        p50_ms,
        p99_ms: samples.percentile_ms(99.0),
        operations: Some(samples.len()),
        ..Row::figure(
            format!("fan-out to {members}: last member p50"),
            p50_ms.unwrap_or_default(),
            Unit::Milliseconds,
        )
    }
}

/// When the send was answered, and when the last waiting sync was.
async fn round(
    server: &Server,
    sender: &mut User,
    waiters: &mut [Waiter<'_>],
    room: &str,
    marker: &str,
) -> Result<(Instant, Instant)> {
    let content = message(marker);
    let send = async {
        server.settle().await?;
        sender.send(room, &content).await?;
        Ok(Instant::now())
    };
    let arrivals = try_join_all(waiters.iter_mut().map(|waiter| waiter.wait_for(marker)));
    let (sent, arrivals) = try_join(send, arrivals).await?;
    Ok((sent, arrivals.into_iter().max().unwrap_or(sent)))
}

impl<'a> Waiter<'a> {
    async fn start(user: &'a mut User) -> Result<Self> {
        let filter = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1%7D,%22state%22:%7B%22lazy_load_members%22:true%7D%7D%7D";
        let since = user.sync(&format!("timeout=0&filter={filter}")).await?.next_batch;
        Ok(Self { user, since })
    }

    async fn wait_for(&mut self, marker: &str) -> Result<Instant> {
        loop {
            let synced = self.user.sync(&format!("timeout=30000&since={}", self.since)).await?;
            let arrived = Instant::now();
            let found = synced.mentions(marker);
            self.since = synced.next_batch;
            if found {
                return Ok(arrived);
            }
        }
    }
}
