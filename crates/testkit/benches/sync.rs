//! `/sync` without a network: a user in 200 rooms, over the memory store, through the real router.

use criterion::{Criterion, criterion_group, criterion_main};
use myelin_store::memory::MemoryDisk;
use myelin_testenv::Sim;
use myelin_testkit::{
    client::{Client, percent, text},
    server::Server,
};
use serde_json::json;

const ROOMS: usize = 200;

struct World {
    server: Server,
    reader: Client,
    /// Before and after one message in one room.
    before: String,
    after: String,
}

fn world() -> World {
    let sim = Sim::new(1);
    let server = Server::start(&sim, MemoryDisk::default());
    let (reader, before, after) = server.sim.block_on(async {
        let mut reader = Client::register(&server, "reader").await;
        let mut last = String::new();
        for _ in 0..ROOMS {
            let made = reader.post(&server, "/_matrix/client/v3/createRoom", &json!({})).await.ok();
            last = text(&made["room_id"]);
        }
        reader.sync(&server, 10, 0).await;
        let before = reader.since.clone().unwrap_or_default();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/t", percent(&last));
        reader.put(&server, &path, &json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
        reader.sync(&server, 10, 0).await;
        let after = reader.since.clone().unwrap_or_default();
        (reader, before, after)
    });
    World { server, reader, before, after }
}

fn sync(criterion: &mut Criterion) {
    let World { server, reader, before, after } = world();
    let mut group = criterion.benchmark_group("sync of a user in 200 rooms");
    let lazy = percent(r#"{"room":{"state":{"lazy_load_members":true}}}"#);
    for (name, query) in [
        ("nothing new", format!("since={after}")),
        ("one message", format!("since={before}")),
        ("initial", format!("filter={lazy}")),
    ] {
        let path = format!("/_matrix/client/v3/sync?set_presence=offline&{query}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| server.sim.block_on(reader.get(&server, &path)).ok());
        });
    }
    group.finish();
}

criterion_group!(benches, sync);
criterion_main!(benches);
