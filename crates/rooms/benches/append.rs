//! What a message, a state event and a join cost beside the disk: the engine over the memory store.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use criterion::{Criterion, criterion_group, criterion_main};
use myelin_dag::SigningKey;
use myelin_rooms::{CreateRoom, Join, NoPolicyServers, Preset, Rooms, Sender, Transaction};
use myelin_store::{Store, memory::Memory};
use myelin_testenv::Sim;
use myelin_view::View;
use ruma::{OwnedRoomId, OwnedUserId, server_name};
use serde_json::{json, value::to_raw_value};

struct World {
    sim: Sim,
    rooms: Rooms,
    count: AtomicU64,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(1);
        let store = Store::new(Arc::new(Memory::default()));
        let view = View::new(store, sim.env(), server_name!("localhost").to_owned());
        let key = SigningKey::from_seed("1", [7; 32]).expect("the version is legal");
        Self {
            rooms: Rooms::new(view, Arc::new(key), Arc::new(NoPolicyServers)),
            sim,
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    fn user(&self) -> Sender {
        let user_id: OwnedUserId = format!("@user{}:localhost", self.next()).try_into().expect("a user id");
        let user =
            self.sim.block_on(self.rooms.view().interner.user(&user_id)).expect("memory does not fail");
        Sender { user, user_id, guest: false, suspended: false, admin: false }
    }

    fn create(&self, sender: &Sender) -> OwnedRoomId {
        let request = CreateRoom {
            preset: Some(Preset::PublicChat),
            name: Some(format!("Room {}", self.next())),
            ..CreateRoom::default()
        };
        self.sim.block_on(self.rooms.create_room(sender, &request)).expect("the request is right")
    }
}

fn append(c: &mut Criterion) {
    let world = World::new();
    let alice = world.user();
    let room = world.create(&alice);
    let body = json!({ "msgtype": "m.text", "body": "x".repeat(200) });
    let content = to_raw_value(&body).expect("JSON");
    c.bench_function("send a message", |b| {
        b.iter(|| {
            let transaction =
                Transaction { device_id: "D".to_owned(), transaction_id: world.next().to_string() };
            let kind = "m.room.message".into();
            let sent = world.rooms.send_message(&alice, &room, kind, &content, &transaction);
            black_box(world.sim.block_on(sent).expect("sent"))
        });
    });
    c.bench_function("set one of 2,000 state events", |b| {
        b.iter(|| {
            let n = world.next();
            let content = to_raw_value(&json!({ "n": n })).expect("JSON");
            let key = format!("key{}", n % 2_000);
            let sent = world.rooms.send_state(&alice, &room, "org.example.state".into(), &key, &content);
            black_box(world.sim.block_on(sent).expect("set"))
        });
    });
    c.bench_function("create a room", |b| b.iter(|| black_box(world.create(&alice))));
    c.bench_function("join a growing room", |b| {
        b.iter(|| {
            let user = world.user();
            let joined = world.rooms.join(&user, &room, Join::default());
            black_box(world.sim.block_on(joined).expect("joined"))
        });
    });
}

criterion_group!(benches, append);
criterion_main!(benches);
