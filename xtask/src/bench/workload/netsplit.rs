//! A netsplit that ends: members of a large room changed on both sides, and the other side's events come in.
//!
//! Every transaction of theirs makes the server resolve the two states anew, over a conflict that grows with each.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::federation::{Lane, TRANSACTION_PDUS, auth_of, room_of};
use crate::bench::drive::Driven;
use crate::bench::measure::Window;
use crate::bench::puppet::{Host, Place, Puppet, Transaction, joined};
use crate::bench::report::{Row, Unit};
use crate::bench::world::World;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let (members, disputed) = (world.sizes.split_room, world.sizes.disputed);
    let host = Host::start().await?;
    let mut owner = world.fresh_user().await?;
    let room = room_of(&mut owner).await?;
    let mut puppet = Puppet::open(&host, world.server.address, 0).await?;
    let mut side = Side::begin(&mut puppet, &room).await?;
    let joins: Vec<Change> = (1..members).map(|number| Change::join(number, "once")).collect();
    let joins = side.grow(&puppet, &joins);
    let answers_early = world.server.kind.answers_early();
    let mut lane = Lane { puppet: &mut puppet, witness: &mut owner, room: &room, answers_early };
    lane.bring(&joins, Duration::MAX).await?;

    let mut here = side.clone();
    let mut there = side;
    let names: Vec<Change> = (1..=disputed).map(|number| Change::join(number, "here")).collect();
    let names = here.grow(lane.puppet, &names);
    // Half of them leave, the others have another name. What comes later in time wins.
    let changes = (1..=disputed).map(|number| match number % 2 {
        0 => Change::leave(number),
        _ => Change::join(number, "there"),
    });
    let changes = there.grow(lane.puppet, &changes.collect::<Vec<_>>());
    let merge = merge(lane.puppet, &here, &there);
    lane.bring(&names, Duration::MAX).await?;
    world.server.settle().await?;

    let window = Window::open(&world.server)?;
    let samples = lane.bring(&changes, Duration::MAX).await?;
    let driven = Driven { samples, cost: window.close()? };
    world.server.settle().await?;
    let window = Window::open(&world.server)?;
    lane.bring(std::slice::from_ref(&merge), Duration::MAX).await?;
    let merged = window.close()?;

    let left = joined(&owner.get(&format!("rooms/{room}/joined_members")).await?)?;
    let expected = members + 1 - disputed / 2;
    if left != expected {
        bail!("{left} members are joined after the split, not {expected}");
    }
    let name = format!("netsplit, {disputed} of {members} members");
    Ok(vec![
        Row::driven(format!("{name}: an event of the other side"), &driven),
        Row::figure(
            format!("{name}: the merge"),
            merged.server_cpu.as_secs_f64() * 1e6,
            Unit::CpuMicroseconds,
        ),
    ])
}

/// What one member does.
struct Change {
    member: usize,
    content: Value,
}

impl Change {
    fn join(member: usize, name: &str) -> Self {
        Self {
            member,
            content: json!({ "membership": "join", "displayname": format!("Member {member} {name}") }),
        }
    }

    fn leave(member: usize) -> Self {
        Self { member, content: json!({ "membership": "leave" }) }
    }
}

/// One side's view of the room.
#[derive(Clone)]
struct Side {
    room: String,
    last: String,
    depth: u64,
    /// Create, power levels, join rules.
    auth: Vec<String>,
    /// The member event of each, by number.
    members: Vec<String>,
}

impl Side {
    /// The first of the members joins in the ordinary way.
    async fn begin(puppet: &mut Puppet, room: &str) -> Result<Self> {
        let (join, answer) = puppet.join(room, &puppet.user(0)).await?;
        let types = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let auth = auth_of(&answer["state"], &types)?;
        let depth = join.json["depth"].as_u64().context("a join without depth")?;
        Ok(Self {
            room: room.to_owned(),
            last: join.event_id.clone(),
            depth,
            auth,
            members: vec![join.event_id],
        })
    }

    /// One event after the other.
    fn grow(&mut self, puppet: &Puppet, changes: &[Change]) -> Vec<Transaction> {
        let mut events = Vec::with_capacity(changes.len());
        for Change { member, content } in changes {
            // Join rules authorise joins only.
            let count = if content["membership"] == "join" { self.auth.len() } else { 2 };
            let mut auth_events = self.auth[..count].to_vec();
            auth_events.extend(self.members.get(*member).cloned());
            self.depth += 1;
            let prev_events = vec![std::mem::take(&mut self.last)];
            let place = Place { room_id: &self.room, prev_events, auth_events, depth: self.depth };
            let user = puppet.user(*member);
            let event = puppet.event(&place, &user, "m.room.member", Some(&user), content.clone());
            self.last = event.event_id.clone();
            match self.members.get_mut(*member) {
                Some(held) => held.clone_from(&event.event_id),
                None => self.members.push(event.event_id.clone()),
            }
            events.push(event);
        }
        events.chunks(TRANSACTION_PDUS).map(|pdus| puppet.transaction(pdus)).collect()
    }
}

/// A message after both sides, by the member who changed on neither.
fn merge(puppet: &Puppet, here: &Side, there: &Side) -> Transaction {
    let prev_events = vec![here.last.clone(), there.last.clone()];
    let auth_events = vec![here.auth[0].clone(), here.auth[1].clone(), here.members[0].clone()];
    let depth = here.depth.max(there.depth) + 1;
    let place = Place { room_id: &here.room, prev_events, auth_events, depth };
    let content = json!({ "msgtype": "m.text", "body": "there you are" });
    let event = puppet.event(&place, &puppet.user(0), "m.room.message", None, content);
    puppet.transaction(std::slice::from_ref(&event))
}
