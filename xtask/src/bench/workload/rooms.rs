//! Creating rooms.

use anyhow::Result;

use crate::bench::drive::{Turn, measured};
use crate::bench::report::Row;
use crate::bench::user::User;
use crate::bench::world::World;

const CREATORS: usize = 4;

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let limit = world.sizes.limit(world.sizes.creations);
    let mut creators = world.fresh_users(CREATORS).await?;
    let create = async |user: &mut User, _: Turn| user.create_room().await.map(drop);
    let driven = measured(&world.server, &mut creators, limit, create).await?;
    Ok(vec![Row::driven("create a room", &driven)])
}
