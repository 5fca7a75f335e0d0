//! What other servers cost: events that come in, and one event that goes out to a thousand of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use serde_json::json;

use crate::bench::drive::Driven;
use crate::bench::measure::{Samples, Window};
use crate::bench::puppet::{Host, Place, Puppet, ROOM_VERSION, Transaction};
use crate::bench::report::{Row, Unit};
use crate::bench::user::{User, event_id, message};
use crate::bench::world::World;

/// PDUs per transaction, the most that there may be.
pub const TRANSACTION_PDUS: usize = 50;
const JOINS_CONCURRENT: usize = 8;
const DELIVERY_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
const ARRIVAL_MAX: Duration = Duration::from_secs(600);
/// Rarely, as every look costs the server something.
const ARRIVAL_POLL: Duration = Duration::from_millis(250);

/// Events from one server, and from sixteen in rooms of their own.
pub async fn inbound(world: &mut World) -> Result<Vec<Row>> {
    let pdus = world.sizes.inbound;
    let host = Host::start().await?;
    let mut rows = Vec::new();
    for origins in [1, 16] {
        let mut sources = Vec::new();
        for number in 0..origins {
            sources.push(Source::prepare(world, &host, number, pdus / origins).await?);
        }
        world.server.settle().await?;
        let window = Window::open(&world.server)?;
        let time = world.sizes.time;
        let samples = try_join_all(sources.iter_mut().map(|source| source.send_all(time))).await?;
        let cost = window.close()?;
        let mut driven = Driven { samples: Samples::default(), cost };
        samples.into_iter().for_each(|each| driven.samples.extend(each));
        let plural = if origins == 1 { "" } else { "s" };
        rows.push(Row::driven(format!("inbound PDU, {origins} origin{plural}"), &driven));
    }
    Ok(rows)
}

/// A server with a user in a room here, and the transactions that it is going to send.
struct Source {
    puppet: Puppet,
    transactions: Vec<Transaction>,
    owner: User,
    room: String,
    answers_early: bool,
}

impl Source {
    async fn prepare(world: &mut World, host: &Host, number: usize, pdus: usize) -> Result<Self> {
        let mut owner = world.fresh_user().await?;
        let room = room_of(&mut owner).await?;
        let mut puppet = Puppet::open(host, world.server.address, number).await?;
        let user = puppet.user(0);
        let (join, answer) = puppet.join(&room, &user).await?;
        let mut auth = auth_of(&answer["state"], &["m.room.create", "m.room.power_levels"])?;
        auth.push(join.event_id.clone());
        let (mut last, mut depth) = (join.event_id, join.json["depth"].as_u64().unwrap_or(1));
        let mut events = Vec::with_capacity(pdus);
        for line in 0..pdus {
            depth += 1;
            let place = Place { room_id: &room, prev_events: vec![last], auth_events: auth.clone(), depth };
            let content = json!({ "msgtype": "m.text", "body": format!("{line:.<150}") });
            let event = puppet.event(&place, &user, "m.room.message", None, content);
            last = event.event_id.clone();
            events.push(event);
        }
        let transactions = events.chunks(TRANSACTION_PDUS).map(|pdus| puppet.transaction(pdus)).collect();
        Ok(Self { puppet, transactions, owner, room, answers_early: world.server.kind.answers_early() })
    }

    async fn send_all(&mut self, time: Duration) -> Result<Samples> {
        let Self { puppet, transactions, owner, room, answers_early } = self;
        let mut lane = Lane { puppet, witness: owner, room, answers_early: *answers_early };
        lane.bring(transactions, time).await
    }
}

/// One server that sends events of one room, and a user here who sees whether they have arrived.
pub struct Lane<'a> {
    pub puppet: &'a mut Puppet,
    pub witness: &'a mut User,
    pub room: &'a str,
    pub answers_early: bool,
}

impl Lane<'_> {
    /// One transaction after the other, until all are brought or the time is over, and until the last event is there.
    /// The samples count PDUs, each with the time of its transaction.
    pub async fn bring(&mut self, transactions: &[Transaction], time: Duration) -> Result<Samples> {
        let started = Instant::now();
        let mut samples = Samples::default();
        let mut last = None;
        for transaction in transactions.iter().take_while(|_| started.elapsed() < time) {
            let begun = Instant::now();
            self.puppet.send(transaction).await?;
            if self.answers_early {
                self.arrived(&transaction.last).await?;
            }
            (0..transaction.pdus).for_each(|_| samples.push(begun.elapsed()));
            last = Some(&transaction.last);
        }
        if let Some(last) = last {
            self.arrived(last).await?;
        }
        Ok(samples)
    }

    async fn arrived(&mut self, last: &str) -> Result<()> {
        arrived(self.witness, self.room, last).await
    }
}

/// Waits until `last` is the last event in the room.
async fn arrived(user: &mut User, room: &str, last: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let page = user.get(&format!("rooms/{room}/messages?dir=b&limit=1")).await?;
        let page: serde_json::Value = serde_json::from_slice(&page)?;
        if page["chunk"][0]["event_id"] == last {
            return Ok(());
        }
        if begun.elapsed() > ARRIVAL_MAX {
            bail!("the last event sent is not the last event of the room");
        }
        tokio::time::sleep(ARRIVAL_POLL).await;
    }
}

/// One event to very many servers.
pub async fn outbound(world: &mut World) -> Result<Vec<Row>> {
    let (servers, rounds) = (world.sizes.destinations, world.sizes.rounds);
    let host = Host::start().await?;
    let mut owner = world.fresh_user().await?;
    let room = room_of(&mut owner).await?;
    join_from(world, &host, &room, servers).await?;
    let mut samples = Samples::default();
    // The first one meets no open connections.
    send_and_wait(&host, &mut owner, &room, servers).await?;
    world.server.settle().await?;
    let window = Window::open(&world.server)?;
    for _ in 0..rounds {
        let took = send_and_wait(&host, &mut owner, &room, servers).await?;
        (0..servers).for_each(|_| samples.push(took));
    }
    let driven = Driven { samples, cost: window.close()? };
    let name = format!("outbound event, {servers} destinations: a delivery");
    let p50 = driven.samples.percentile_ms(50.0).context("nothing was delivered")?;
    Ok(vec![
        Row::driven(name, &driven).without_writes(),
        Row::figure(format!("outbound event, {servers} destinations: all p50"), p50, Unit::Milliseconds),
    ])
}

async fn join_from(world: &World, host: &Host, room: &str, servers: usize) -> Result<()> {
    for first in (0..servers).step_by(JOINS_CONCURRENT) {
        let batch = first..(first + JOINS_CONCURRENT).min(servers);
        let joins = batch.map(|number| async move {
            let mut puppet = Puppet::open(host, world.server.address, number).await?;
            let user = puppet.user(0);
            puppet.join(room, &user).await.map(drop)
        });
        try_join_all(joins).await?;
    }
    settle_deliveries(host).await;
    Ok(())
}

/// The joins are brought to those who were there before: waits until nothing comes any more.
async fn settle_deliveries(host: &Host) {
    let mut before = usize::MAX;
    while host.transactions() != before {
        before = host.transactions();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn send_and_wait(host: &Host, owner: &mut User, room: &str, servers: usize) -> Result<Duration> {
    let (before, begun) = (host.pdus(), Instant::now());
    event_id(&owner.send(room, &message("out")).await?)?;
    while host.pdus() < before + servers {
        if begun.elapsed() > DELIVERY_MAX {
            bail!("{} of {servers} servers got the event", host.pdus() - before);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(begun.elapsed())
}

/// A public room in the version that puppets speak.
pub async fn room_of(owner: &mut User) -> Result<String> {
    let request = json!({ "preset": "public_chat", "room_version": ROOM_VERSION });
    let answer: serde_json::Value = serde_json::from_slice(&owner.post("createRoom", &request).await?)?;
    Ok(answer["room_id"].as_str().context("no room id")?.to_owned())
}

/// The events of these types in a state, by their ids.
pub fn auth_of(state: &serde_json::Value, types: &[&str]) -> Result<Vec<String>> {
    let events = state.as_array().context("no state")?;
    let found = types.iter().map(|wanted| {
        let found = events.iter().find(|event| event["type"] == *wanted);
        found.map(crate::bench::puppet::id_of).context("an auth event is missing")
    });
    found.collect()
}
