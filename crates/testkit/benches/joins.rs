//! Serving and joining a room of 20,000 members between two servers in one thread: time until the join is answered, and
//! until the room is complete. One run, printed; `MEMBERS` in the environment makes it smaller.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::time::Instant;

use myelin_store::{memory::MemoryDisk, tables::PARTIAL_ROOMS};
use myelin_testenv::Sim;
use myelin_testkit::{
    client::{Client, percent, text},
    network::Network,
    server::Server,
};
use ruma::ServerName;
use serde_json::json;

const MEMBERS: usize = 20_000;
/// Invited when a room is created; the others one by one.
const AT_ONCE: usize = 1_000;

fn server(network: &Network, sim: &Sim, name: &str) -> Server {
    Server::start_in(network, <&ServerName>::try_from(name).expect("a name"), sim, MemoryDisk::default())
}

fn large_room(a: &Server, ann: &Client, members: usize) -> String {
    let user = |n: usize| format!("@many{n}:a.test");
    a.sim.block_on(async {
        let invite: Vec<_> = (0..members.min(AT_ONCE)).map(user).collect();
        let body = json!({ "preset": "public_chat", "name": "Large", "invite": invite });
        let room = text(&ann.post(a, "/_matrix/client/v3/createRoom", &body).await.ok()["room_id"]);
        let path = format!("/_matrix/client/v3/rooms/{}/invite", percent(&room));
        for n in AT_ONCE..members {
            ann.post(a, &path, &json!({ "user_id": user(n) })).await.ok();
        }
        room
    })
}

/// Resident bytes of this process, as far as the system tells.
fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096 / 1024 / 1024
}

fn main() {
    let members = std::env::var("MEMBERS").ok().and_then(|text| text.parse().ok()).unwrap_or(MEMBERS);
    let (sim, network) = (Sim::new(1), Network::default());
    let (a, b) = (server(&network, &sim, "a.test"), server(&network, &sim, "b.test"));
    let ann = sim.block_on(Client::register(&a, "ann"));
    let bob = sim.block_on(Client::register(&b, "bob"));
    let begun = Instant::now();
    let room = large_room(&a, &ann, members);
    println!("a room of {members} invited members made in {:?}, {} MiB", begun.elapsed(), resident_mib());
    let begun = Instant::now();
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
    sim.block_on(bob.post(&b, &path, &json!({}))).ok();
    println!("joined after {:?}, {} MiB", begun.elapsed(), resident_mib());
    while !sim.block_on(b.view.store.read().all(&PARTIAL_ROOMS, 1)).expect("readable").is_empty() {
        sim.clock().advance(std::time::Duration::from_secs(1));
        sim.settle();
    }
    println!("complete after {:?}, {} MiB with both servers", begun.elapsed(), resident_mib());
}
