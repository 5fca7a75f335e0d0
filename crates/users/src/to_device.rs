//! To-device messages on their way into inboxes of local devices and to other servers (Client-Server API, "Send-to-Device
//! messaging"; Server-Server API, `m.direct_to_device`). How they leave the inboxes: `myelin_sync::v2`.
//!
//! **What happens to an inbox that nobody reads**: it holds [`INBOX_SIZE_MAX`] bytes; when it is fuller than that, its oldest
//! messages go, down to nine tenths. The size is counted per process and looked up again before anything goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use myelin_core::{Position, UserNid, limits};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{DEVICES, RECEIVED_TO_DEVICE, TO_DEVICE, TRANSACTIONS, ToDeviceRecord, TransactionRecord},
};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{Error, Session, Users, outgoing::put_edu, transaction::transact};

/// Bytes waiting for one device, each message counting [`MESSAGE_OVERHEAD`] more than its content.
pub const INBOX_SIZE_MAX: usize = 32 * 1024 * 1024;
pub const MESSAGE_OVERHEAD: usize = 256;
/// Bytes of one message: as much as an event may have.
pub const MESSAGE_SIZE_MAX: usize = limits::PDU_SIZE_MAX;
/// Messages of one request or EDU, each device counting.
pub const MESSAGES_MAX: usize = 10_000;

/// Bytes of one EDU; a message to many users of one server becomes several.
const EDU_SIZE_MAX: usize = 64 * 1024;
const MESSAGE_ID_LENGTH: usize = 24;
/// Bytes of the `message_id` of another server (specification: 32 characters).
const MESSAGE_ID_SIZE_MAX: usize = 255;
const SCOPE: &str = "sendToDevice/";
const ALL_DEVICES: &str = "*";
const EDU: &str = "m.direct_to_device";
const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
/// Weeks for which a repeated EDU is recognised.
const WEEKS_REMEMBERED: u64 = 5;
/// Forgotten per EDU that is remembered: more than one, so that they become fewer.
const FORGOTTEN_MAX: usize = 8;
/// Messages of one inbox looked through to find the oldest ones.
const INBOX_MESSAGES_MAX: usize = INBOX_SIZE_MAX / MESSAGE_OVERHEAD;
const INBOXES_COUNTED_MAX: usize = 50_000;

/// User id to device id (or `*`) to content.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ToDeviceError {
    #[error("a to-device message is an object of at most {MESSAGE_SIZE_MAX} bytes")]
    Content,
    #[error("one request carries at most {MESSAGES_MAX} messages")]
    TooMany,
    #[error("the type of a message has 1 to {} bytes", limits::EVENT_FIELD_SIZE_MAX)]
    Type,
    #[error("a transaction id has at most {} bytes", limits::TXN_ID_SIZE_MAX)]
    TransactionId,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// About how many bytes wait in the inboxes that this process wrote to. Reading is not noticed: that makes it look again.
#[derive(Default)]
pub(crate) struct InboxSizes(Mutex<HashMap<(UserNid, String), usize>>);

#[derive(Deserialize)]
struct DirectToDevice {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    event_type: String,
    message_id: String,
    messages: Messages,
}

/// What is put into inboxes by one commit.
struct Delivery<'a> {
    sender: &'a UserId,
    event_type: &'a str,
    messages: Vec<(UserNid, String, &'a str)>,
}

impl Users {
    /// `PUT /sendToDevice/{eventType}/{txnId}`: once per transaction id of a device.
    pub async fn send_to_device(
        &self,
        session: &Session,
        event_type: &str,
        transaction_id: &str,
        messages: &Messages,
    ) -> Result<(), ToDeviceError> {
        check(event_type, messages)?;
        if transaction_id.len() > limits::TXN_ID_SIZE_MAX {
            return Err(ToDeviceError::TransactionId);
        }
        let scope = format!("{SCOPE}{event_type}");
        let sent = (session.user, session.device_id.clone(), scope, transaction_id.to_owned());
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if self.view.store.get(&TRANSACTIONS, &sent).await.map_err(Error::from)?.is_some() {
                return Ok((batch, ()));
            }
            batch.require_absent(&TRANSACTIONS, &sent);
            let done = TransactionRecord { event_id: String::new(), at_ms: self.now_ms() };
            batch.put(&TRANSACTIONS, &sent, &done);
            let delivery = Delivery {
                sender: &session.user_id,
                event_type,
                messages: self.local_recipients(messages).await?,
            };
            self.deliver(&mut batch, delivery).await?;
            self.send_out(&mut batch, &session.user_id, event_type, messages);
            Ok((batch, ()))
        })
        .await
    }

    /// An `m.direct_to_device` of another server; each is taken once. What is malformed is dropped.
    pub async fn receive_direct_to_device(
        &self,
        origin: &ServerName,
        content: &RawValue,
    ) -> Result<(), Error> {
        let Ok(edu) = serde_json::from_str::<DirectToDevice>(content.get()) else { return Ok(()) };
        let foreign = edu.sender.server_name() != origin || origin == self.view.server_name;
        if foreign
            || edu.message_id.len() > MESSAGE_ID_SIZE_MAX
            || check(&edu.event_type, &edu.messages).is_err()
        {
            tracing::debug!(%origin, sender = %edu.sender, "a to-device EDU was dropped");
            return Ok(());
        }
        let week = self.now_ms() / WEEK_MS;
        let row = |week| (week, origin.to_string(), edu.message_id.clone());
        let seen: Vec<_> = (week.saturating_sub(WEEKS_REMEMBERED - 1)..=week).map(row).collect();
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let found = self.view.store.multi_get(&RECEIVED_TO_DEVICE, &seen).await?;
            if found.iter().any(Option::is_some) {
                return Ok((batch, ()));
            }
            batch.require_absent(&RECEIVED_TO_DEVICE, &row(week));
            batch.put(&RECEIVED_TO_DEVICE, &row(week), &());
            self.forget_received(&mut batch, week).await?;
            let delivery = Delivery {
                sender: &edu.sender,
                event_type: &edu.event_type,
                messages: self.local_recipients(&edu.messages).await?,
            };
            self.deliver(&mut batch, delivery).await?;
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    async fn forget_received(&self, batch: &mut Batch, week: u64) -> Result<(), Error> {
        let first_kept = week.saturating_sub(WEEKS_REMEMBERED - 1);
        let old =
            self.view.store.range(&RECEIVED_TO_DEVICE, &0, &first_kept, Direction::Forward, FORGOTTEN_MAX);
        for (row, ()) in old.await? {
            batch.delete(&RECEIVED_TO_DEVICE, &row);
        }
        Ok(())
    }

    /// Devices that are there, each once.
    async fn local_recipients<'a>(
        &self,
        messages: &'a Messages,
    ) -> Result<Vec<(UserNid, String, &'a str)>, Error> {
        let mut recipients = Vec::new();
        for (user_id, by_device) in messages.iter().filter(|(user_id, _)| self.view.is_local(user_id)) {
            let Some(user) = self.view.interner.lookup_user(user_id).await? else { continue };
            let limit = limits::DEVICES_PER_USER_MAX;
            let rows = self.view.store.scan(&DEVICES, &user, Direction::Forward, limit).await?;
            for ((_, device_id), _) in rows {
                // What is meant for one device in particular goes before what is meant for all.
                let content = by_device.get(&device_id).or_else(|| by_device.get(ALL_DEVICES));
                recipients.extend(content.map(|content| (user, device_id, content.get())));
            }
        }
        Ok(recipients)
    }

    async fn deliver(&self, batch: &mut Batch, delivery: Delivery<'_>) -> Result<(), Error> {
        let users: BTreeSet<_> = delivery.messages.iter().map(|(user, _, _)| *user).collect();
        let positions: BTreeMap<UserNid, Position> =
            users.into_iter().map(|user| (user, batch.log(&LogEntry::ToDevice { user }))).collect();
        for (user, device_id, content) in delivery.messages {
            let Some(position) = positions.get(&user) else { continue };
            let message = ToDeviceRecord {
                sender: delivery.sender.to_string(),
                event_type: delivery.event_type.to_owned(),
                content: content.to_owned(),
            };
            self.make_space(batch, user, &device_id, content.len() + MESSAGE_OVERHEAD).await?;
            batch.put(&TO_DEVICE, &(user, device_id, *position), &message);
        }
        Ok(())
    }

    /// Adds the deletion of the oldest messages of an inbox that is too full for `size` more.
    async fn make_space(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
        size: usize,
    ) -> Result<(), Error> {
        let inbox = (user, device_id.to_owned());
        if self.inbox_sizes.grow(&inbox, size).is_some_and(|size| size <= INBOX_SIZE_MAX) {
            return Ok(());
        }
        let rows =
            self.view.store.scan(&TO_DEVICE, &inbox, Direction::Forward, INBOX_MESSAGES_MAX + 1).await?;
        let of = |message: &ToDeviceRecord| message.content.len() + MESSAGE_OVERHEAD;
        let mut held = size + rows.iter().map(|(_, message)| of(message)).sum::<usize>();
        if held > INBOX_SIZE_MAX {
            tracing::warn!(?user, device_id, held, "an inbox that nobody reads loses its oldest messages");
            for (row, message) in &rows {
                if held <= INBOX_SIZE_MAX / 10 * 9 {
                    break;
                }
                batch.delete(&TO_DEVICE, row);
                held -= of(message);
            }
        }
        self.inbox_sizes.set(inbox, held);
        Ok(())
    }

    /// Adds the EDUs for users of other servers.
    fn send_out(&self, batch: &mut Batch, sender: &UserId, event_type: &str, messages: &Messages) {
        let mut by_server: BTreeMap<OwnedServerName, Vec<(&OwnedUserId, Value)>> = BTreeMap::new();
        for (user_id, by_device) in messages.iter().filter(|(user_id, _)| !self.view.is_local(user_id)) {
            let of_server = by_server.entry(user_id.server_name().to_owned()).or_default();
            of_server.push((user_id, json!(by_device)));
        }
        for (server, users) in by_server {
            for messages in chunks(users) {
                let content = json!({
                    "sender": sender,
                    "type": event_type,
                    "message_id": self.view.env.random_string(MESSAGE_ID_LENGTH),
                    "messages": messages,
                });
                put_edu(batch, &server, EDU, &content);
            }
        }
    }

    /// Adds the deletion of a device's inbox.
    pub(crate) async fn delete_inbox(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<(), Error> {
        let inbox = (user, device_id.to_owned());
        let rows =
            self.view.store.scan(&TO_DEVICE, &inbox, Direction::Forward, INBOX_MESSAGES_MAX + 1).await?;
        rows.iter().for_each(|(row, _)| batch.delete(&TO_DEVICE, row));
        self.inbox_sizes.forget(&inbox);
        Ok(())
    }
}

impl InboxSizes {
    /// The new size; `None` if the inbox has not been looked at.
    fn grow(&self, inbox: &(UserNid, String), by: usize) -> Option<usize> {
        let mut sizes = self.0.lock();
        let size = sizes.get_mut(inbox)?;
        *size += by;
        Some(*size)
    }

    fn set(&self, inbox: (UserNid, String), size: usize) {
        let mut sizes = self.0.lock();
        if sizes.len() >= INBOXES_COUNTED_MAX {
            sizes.clear();
        }
        sizes.insert(inbox, size);
    }

    fn forget(&self, inbox: &(UserNid, String)) {
        self.0.lock().remove(inbox);
    }
}

fn check(event_type: &str, messages: &Messages) -> Result<(), ToDeviceError> {
    if event_type.is_empty() || event_type.len() > limits::EVENT_FIELD_SIZE_MAX {
        return Err(ToDeviceError::Type);
    }
    let contents = || messages.values().flat_map(BTreeMap::values);
    if contents().count() > MESSAGES_MAX {
        return Err(ToDeviceError::TooMany);
    }
    let fits = |content: &RawValue| content.get().len() <= MESSAGE_SIZE_MAX && content.get().starts_with('{');
    if contents().map(|content| &**content).all(fits) { Ok(()) } else { Err(ToDeviceError::Content) }
}

/// Users with their messages, about [`EDU_SIZE_MAX`] bytes each.
fn chunks(users: Vec<(&OwnedUserId, Value)>) -> Vec<serde_json::Map<String, Value>> {
    let mut chunks = vec![serde_json::Map::new()];
    let mut size = 0;
    for (user_id, by_device) in users {
        size += by_device.to_string().len();
        let full = size > EDU_SIZE_MAX && chunks.last().is_some_and(|chunk| !chunk.is_empty());
        if full {
            chunks.push(serde_json::Map::new());
            size = by_device.to_string().len();
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.insert(user_id.to_string(), by_device);
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use myelin_store::tables::OUTBOX;
    use ruma::server_name;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::{keys::tests::session, testing::World};

    fn messages(value: &Value) -> Messages {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    async fn inbox(world: &World, session: &Session) -> Vec<String> {
        let prefix = (session.user, session.device_id.clone());
        let rows = world.view.store.scan(&TO_DEVICE, &prefix, Direction::Forward, 1000).await.unwrap();
        rows.into_iter().map(|(_, message)| message.content).collect()
    }

    #[test]
    fn messages_arrive_in_order_and_once_per_transaction() {
        let world = World::new();
        world.run(async {
            let (alice, bob) = (session(&world, "alice").await, session(&world, "bob").await);
            let second = world.login("bob", "bob's password").await.unwrap();
            let send = async |txn: &str, kind: &str, value: Value| {
                world.users.send_to_device(&alice, kind, txn, &messages(&value)).await.unwrap();
            };
            let (to, device) = (bob.user_id.as_str(), bob.device_id.as_str());
            send("1", "m.x", json!({ to: { device: { "n": 1 }, "*": { "n": 2 } } })).await;
            send("1", "m.x", json!({ to: { device: { "n": 99 } } })).await;
            send(
                "1",
                "m.y",
                json!({ to: { device: { "n": 3 }, "NONE": {} }, "@nobody:example.org": { "*": {} } }),
            )
            .await;
            assert_eq!(inbox(&world, &bob).await, [r#"{"n":1}"#, r#"{"n":3}"#]);
            let other = world.users.session(&second.access_token).await.unwrap();
            assert_eq!(inbox(&world, &other).await, [r#"{"n":2}"#]);
        });
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let world = World::new();
        world.run(async {
            let alice = session(&world, "alice").await;
            let send = async |kind: &str, txn: &str, value: Value| {
                world.users.send_to_device(&alice, kind, txn, &messages(&value)).await
            };
            let to = |content: Value| json!({ "@bob:example.org": { "*": content } });
            assert!(matches!(send("m.x", "1", to(json!(1))).await, Err(ToDeviceError::Content)));
            let large = to(json!({ "a": "x".repeat(MESSAGE_SIZE_MAX) }));
            assert!(matches!(send("m.x", "1", large).await, Err(ToDeviceError::Content)));
            let many: serde_json::Map<_, _> =
                (0..=MESSAGES_MAX).map(|n| (format!("D{n}"), json!({}))).collect();
            let many = json!({ "@bob:example.org": many });
            assert!(matches!(send("m.x", "1", many).await, Err(ToDeviceError::TooMany)));
            let long = "x".repeat(256);
            assert!(matches!(send(&long, "1", to(json!({}))).await, Err(ToDeviceError::Type)));
            assert!(matches!(send("", "1", to(json!({}))).await, Err(ToDeviceError::Type)));
            assert!(matches!(send("m.x", &long, to(json!({}))).await, Err(ToDeviceError::TransactionId)));
        });
    }

    #[test]
    fn a_full_inbox_loses_its_oldest_messages() {
        let world = World::new();
        world.run(async {
            let (alice, bob) = (session(&world, "alice").await, session(&world, "bob").await);
            let to = (bob.user_id.as_str(), bob.device_id.as_str());
            let size = MESSAGE_SIZE_MAX - 64;
            let fit = INBOX_SIZE_MAX / (size + MESSAGE_OVERHEAD);
            for n in 0..=fit {
                let value = json!({ to.0: { to.1: { "n": format!("{n:05}"), "x": "x".repeat(size) } } });
                world.users.send_to_device(&alice, "m.x", &n.to_string(), &messages(&value)).await.unwrap();
            }
            let left = inbox(&world, &bob).await;
            let total: usize = left.iter().map(|content| content.len() + MESSAGE_OVERHEAD).sum();
            assert!(total <= INBOX_SIZE_MAX / 10 * 9 && total > INBOX_SIZE_MAX / 10 * 8, "{total}");
            assert!(left.last().unwrap().contains(&format!("{fit:05}")), "the newest stay");
            assert!(!left[0].contains("00000"), "the oldest go");
        });
    }

    #[test]
    fn users_elsewhere_get_edus_of_bounded_size() {
        let world = World::new();
        world.run(async {
            let alice = session(&world, "alice").await;
            let mut to = serde_json::Map::new();
            for n in 0..3 {
                to.insert(format!("@u{n}:b.test"), json!({ "D": { "x": "x".repeat(40_000) } }));
            }
            to.insert("@c:c.test".to_owned(), json!({ "*": {} }));
            world.users.send_to_device(&alice, "m.x", "1", &messages(&to.into())).await.unwrap();
            let rows = world.view.store.read().all(&OUTBOX, 9).await.unwrap();
            let servers: Vec<_> = rows.iter().map(|((server, _), _)| server.as_str()).collect();
            assert_eq!(servers, ["b.test", "b.test", "b.test", "c.test"]);
            let content: Value = serde_json::from_str(&rows[3].1.json).unwrap();
            assert_eq!(rows[3].1.edu_type, "m.direct_to_device");
            assert_eq!(content["messages"], json!({ "@c:c.test": { "*": {} } }));
            assert_eq!((&content["sender"], &content["type"]), (&json!(alice.user_id), &json!("m.x")));
            assert!(content["message_id"].as_str().unwrap().len() <= 32);
        });
    }

    #[test]
    fn an_edu_is_taken_once_from_whom_it_is() {
        let world = World::new();
        world.run(async {
            let bob = session(&world, "bob").await;
            let edu = |sender: &str, id: &str, n: u64| {
                to_raw_value(&json!({
                    "sender": sender, "type": "m.x", "message_id": id,
                    "messages": { bob.user_id.as_str(): { "*": { "n": n } }, "@x:b.test": { "*": {} } },
                }))
                .unwrap()
            };
            let (b, own) = (server_name!("b.test"), server_name!("example.org"));
            let receive = async |origin: &ServerName, edu: &RawValue| {
                world.users.receive_direct_to_device(origin, edu).await.unwrap();
            };
            receive(b, &edu("@a:b.test", "1", 1)).await;
            receive(b, &edu("@a:b.test", "1", 9)).await;
            world.advance_ms(WEEK_MS);
            receive(b, &edu("@a:b.test", "1", 9)).await;
            receive(b, &edu("@a:c.test", "2", 9)).await;
            receive(own, &edu("@a:example.org", "2", 9)).await;
            receive(b, &edu("@a:b.test", &"x".repeat(MESSAGE_ID_SIZE_MAX + 1), 9)).await;
            receive(b, &to_raw_value(&json!({ "sender": 1 })).unwrap()).await;
            receive(b, &edu("@a:b.test", "2", 2)).await;
            assert_eq!(inbox(&world, &bob).await, [r#"{"n":1}"#, r#"{"n":2}"#]);
            world.advance_ms(WEEKS_REMEMBERED * WEEK_MS);
            receive(b, &edu("@a:b.test", "3", 3)).await;
            assert_eq!(world.view.store.read().all(&RECEIVED_TO_DEVICE, 9).await.unwrap().len(), 1);
        });
    }
}
