//! The workloads. Each sets up what it needs outside the measured window and returns rows of the table.

mod ephemeral;
mod fanout;
mod federation;
mod footprint;
mod history;
mod join;
mod keys;
mod large_room;
mod media;
mod netsplit;
mod push;
mod room_state;
mod rooms;
mod search;
mod send;
mod sliding;
mod sync;
mod to_device;

use anyhow::{Result, bail};

use super::report::Row;
use super::world::World;

/// In the order in which they run: those that care how many rooms the shared accounts are in come first,
/// the footprint of everything comes last.
pub const NAMES: [&str; 22] = [
    "fanout",
    "send",
    "idle",
    "wakeup",
    "initial",
    "sliding",
    "join",
    "history",
    "state",
    "rooms",
    "receipt",
    "typing",
    "inbound",
    "outbound",
    "large-room",
    "netsplit",
    "push",
    "keys",
    "to-device",
    "search",
    "media",
    "footprint",
];

pub async fn run(name: &str, world: &mut World) -> Result<Vec<Row>> {
    match name {
        "fanout" => fanout::run(world).await,
        "send" => send::run(world).await,
        "idle" => sync::idle(world).await,
        "wakeup" => sync::wakeup(world).await,
        "initial" => sync::initial(world).await,
        "sliding" => sliding::run(world).await,
        "join" => join::run(world).await,
        "history" => history::run(world).await,
        "state" => room_state::run(world).await,
        "rooms" => rooms::run(world).await,
        "receipt" => ephemeral::receipt(world).await,
        "typing" => ephemeral::typing(world).await,
        "inbound" => federation::inbound(world).await,
        "outbound" => federation::outbound(world).await,
        "large-room" => large_room::run(world).await,
        "netsplit" => netsplit::run(world).await,
        "push" => push::run(world).await,
        "keys" => keys::run(world).await,
        "to-device" => to_device::run(world).await,
        "search" => search::run(world).await,
        "media" => media::run(world).await,
        "footprint" => footprint::run(world).await,
        _ => bail!("there is no workload {name}"),
    }
}
