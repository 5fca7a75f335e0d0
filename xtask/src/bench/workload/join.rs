//! Many users join one room. Whether the last join costs what the first did is the question.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use futures::stream;

use crate::bench::drive::Driven;
use crate::bench::measure::{Samples, Window};
use crate::bench::report::{Row, Unit};
use crate::bench::server::Server;
use crate::bench::user::User;
use crate::bench::world::{Parts, World};

const CONCURRENT: usize = 8;
const COMPARED: usize = 100;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let joins = world.sizes.joins;
    let mut owner = world.fresh_user().await?;
    let room = owner.create_room().await?;
    let Parts { server, users } = world.users(joins).await?;
    let mut hundreds = Vec::new();
    for hundred in users.chunks_mut(COMPARED) {
        hundreds.push(join_all(server, hundred, &room).await?);
    }
    let first = hundreds.first().context("nobody joined")?;
    let last = hundreds.last().context("nobody joined")?;
    let parts = [
        Row::driven("join, the first hundred", first),
        Row::driven("join, the last hundred", last),
        Row::figure(
            "join: last hundred to first, CPU",
            cpu_per_join(last) / cpu_per_join(first),
            Unit::Ratio,
        ),
    ];
    let mut rows = vec![Row::driven(format!("join, {joins} users into one room"), &Driven::sum(hundreds))];
    rows.extend(parts);
    Ok(rows)
}

async fn join_all(server: &Server, users: &mut [User], room: &str) -> Result<Driven> {
    let window = Window::open(server)?;
    let mut joins = stream::iter(users.iter_mut())
        .map(|user| async {
            let begun = Instant::now();
            user.join(room).await.map(|()| begun.elapsed())
        })
        .buffer_unordered(CONCURRENT);
    let mut samples = Samples::default();
    while let Some(sample) = joins.next().await {
        samples.push(sample?);
    }
    Ok(Driven { samples, cost: window.close()? })
}

fn cpu_per_join(driven: &Driven) -> f64 {
    driven.cost.cpu_us_per(driven.samples.len())
}
