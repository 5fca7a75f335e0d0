//! Messages between devices: one by one, to a hundred devices in one request, and on their way out to who syncs.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::bench::drive::{Turn, measured};
use crate::bench::measure::{Cost, Window};
use crate::bench::report::Row;
use crate::bench::server::Server;
use crate::bench::user::User;
use crate::bench::world::{Parts, World};

const SENDERS: usize = 16;
const RECIPIENTS: usize = 100;
/// About what an encrypted room key takes.
const CIPHERTEXT_SIZE: usize = 600;
/// `{"room":{"rooms":[]}}`: rooms are not what is measured.
const NO_ROOMS: &str = "filter=%7B%22room%22:%7B%22rooms%22:%5B%5D%7D%7D";

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let Parts { server, users } = world.users(RECIPIENTS).await?;
    let devices: Vec<(String, String)> =
        users.iter().map(|user| (user.id.clone(), user.device.clone())).collect();
    let mut tokens = Vec::new();
    for user in &mut users[..SENDERS] {
        tokens.push(user.sync(&format!("timeout=0&{NO_ROOMS}")).await?.next_batch);
    }
    let one = async |user: &mut User, turn: Turn| send(user, &devices[turn.number % SENDERS..][..1]).await;
    let single = measured(server, &mut users[..SENDERS], sizes.limit(sizes.to_device), one).await?;
    let sent = single.samples.len();
    let received = receive(server, &mut users[..SENDERS], tokens, sent).await?;
    let all = async |user: &mut User, _: Turn| send(user, &devices).await;
    let limit = sizes.limit(sizes.to_device.div_ceil(RECIPIENTS));
    let many = measured(server, &mut users[..1], limit, all).await?;
    let messages = many.samples.len() * RECIPIENTS;
    Ok(vec![
        Row::driven("to-device message, 1 in a request", &single),
        Row::shared_out(format!("to-device message, {RECIPIENTS} in a request"), messages, many.cost),
        Row::shared_out("to-device message, received", sent, received),
    ])
}

async fn send(user: &mut User, devices: &[(String, String)]) -> Result<()> {
    static TRANSACTION: AtomicU64 = AtomicU64::new(0);
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2",
        "sender_key": "7qrVAmvpsWFLKjeJhkTuEjDBBpu5rXzMqfJQBCLVmBs",
        "ciphertext": { "key": { "type": 1, "body": "A".repeat(CIPHERTEXT_SIZE) } },
    });
    let messages = devices.iter().map(|(user, device)| (user.clone(), json!({ device: content })));
    let body = json!({ "messages": messages.collect::<Map<_, Value>>() });
    let transaction = TRANSACTION.fetch_add(1, Ordering::Relaxed);
    user.put(&format!("sendToDevice/m.room.encrypted/d{transaction}"), &body).await.map(drop)
}

/// Everybody syncs until all messages are there.
async fn receive(server: &Server, users: &mut [User], tokens: Vec<String>, sent: usize) -> Result<Cost> {
    #[derive(Deserialize, Default)]
    struct Inbox {
        #[serde(default)]
        events: Vec<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        to_device: Inbox,
    }
    let window = Window::open(server)?;
    let count = Cell::new(0);
    let reads = users.iter_mut().zip(tokens).map(async |(user, mut since)| {
        loop {
            let synced = user.sync(&format!("timeout=0&{NO_ROOMS}&since={since}")).await?;
            let found = serde_json::from_slice::<Answer>(&synced.body)?.to_device.events.len();
            count.set(count.get() + found);
            since = synced.next_batch;
            if found == 0 {
                return anyhow::Ok(());
            }
        }
    });
    futures::future::try_join_all(reads).await?;
    ensure!(count.get() == sent, "{} of {sent} messages arrived", count.get());
    window.close()
}
