//! Public keys of devices: uploaded, queried and claimed, as before the first message in an encrypted room.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use serde_json::{Map, Value, json};

use crate::bench::drive::{Limit, Turn, drive, measured};
use crate::bench::puppet::{sign_as, unpadded};
use crate::bench::report::Row;
use crate::bench::user::User;
use crate::bench::world::{Parts, World, shared_room};

/// Members of the room whose keys are asked for.
const MEMBERS: usize = 100;
/// Those who upload one-time keys, and claim each other's.
const ACTIVE: usize = 16;
/// One-time keys in one upload: what clients keep on the server.
const STOCK: usize = 50;
const ALGORITHM: &str = "signed_curve25519";

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let sizes = world.sizes;
    let Parts { server, users } = world.users(MEMBERS).await?;
    shared_room(users).await?;
    let introduce = async |user: &mut User, turn: Turn| {
        let body = json!({ "device_keys": device_keys(user, turn.user) });
        user.post("keys/upload", &body).await.map(drop)
    };
    drive(users, Limit::whole(MEMBERS), introduce).await?;
    let names: Vec<(String, String)> =
        users.iter().map(|user| (user.id.clone(), user.device.clone())).collect();
    let active = &mut users[..ACTIVE];

    let claims = sizes.claims.next_multiple_of(ACTIVE * STOCK);
    // Whose keys each upload brought: users take turns as they are free.
    let uploads = RefCell::new(Vec::new());
    let stock = async |user: &mut User, turn: Turn| {
        uploads.borrow_mut().push(turn.user);
        let body = json!({ "one_time_keys": one_time_keys(user, turn) });
        user.post("keys/upload", &body).await.map(drop)
    };
    let stocked = measured(server, active, Limit::whole(claims / STOCK), stock).await?;
    let uploads = uploads.into_inner();
    let claim = async |user: &mut User, turn: Turn| {
        let (owner, device) = &names[uploads[turn.number % uploads.len()]];
        let body = json!({ "one_time_keys": { owner: { device: ALGORITHM } } });
        let answer: Value = serde_json::from_slice(&user.post("keys/claim", &body).await?)?;
        ensure!(answer["one_time_keys"][owner][device].is_object(), "no key was claimed: {answer}");
        Ok(())
    };
    let claimed = measured(server, active, sizes.limit(claims), claim).await?;
    let mut rows = vec![
        Row::driven(format!("upload of {STOCK} one-time keys"), &stocked),
        Row::driven("claim of a one-time key", &claimed),
    ];
    for count in [1, MEMBERS] {
        let query = async |user: &mut User, turn: Turn| {
            let whom =
                (0..count).map(|number| (names[(turn.number + number) % MEMBERS].0.clone(), json!([])));
            let body = json!({ "device_keys": whom.collect::<Map<_, _>>() });
            let answer: Value = serde_json::from_slice(&user.post("keys/query", &body).await?)?;
            let found = answer["device_keys"].as_object().context("no device_keys")?.len();
            ensure!(found == count, "keys of {found} users came, not of {count}");
            Ok(())
        };
        let queried = measured(server, active, sizes.limit(sizes.key_queries), query).await?;
        let plural = if count == 1 { "" } else { "s" };
        rows.push(
            Row::driven(format!("query of the keys of {count} user{plural}"), &queried).without_writes(),
        );
    }
    Ok(rows)
}

fn device_keys(user: &User, number: usize) -> Value {
    let key = signing_key(number);
    let (identity, device) = (unpadded(key.verifying_key().as_bytes()), &user.device);
    let keys = json!({
        "user_id": user.id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{device}"): identity, format!("curve25519:{device}"): identity },
    });
    sign_as(keys, &user.id, &format!("ed25519:{device}"), &key)
}

/// Keys that no other upload has.
fn one_time_keys(user: &User, turn: Turn) -> Value {
    let key = signing_key(turn.user);
    let entity = format!("ed25519:{}", user.device);
    let keys = (0..STOCK).map(|number| {
        let id = turn.number * STOCK + number;
        let mut public = [0; 32];
        public[..8].copy_from_slice(&(id as u64 + 1).to_le_bytes());
        let signed = sign_as(json!({ "key": unpadded(&public) }), &user.id, &entity, &key);
        (format!("{ALGORITHM}:AAAA{id}"), signed)
    });
    Value::Object(keys.collect())
}

fn signing_key(number: usize) -> SigningKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SigningKey::from_bytes(&seed)
}
