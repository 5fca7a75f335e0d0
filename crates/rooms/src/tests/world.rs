//! One server in one thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use myelin_core::{Env, Position, Spawner};
use myelin_dag::SigningKey;
use myelin_store::{
    Batch, Direction, Error as StoreError, Store,
    backend::{Backend, CommitFuture, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    memory::{Memory, MemoryDisk},
    tables::{ACCOUNTS, AccountKind, AccountRecord, TIMELINE, TableId},
};
use myelin_testenv::Sim;
use myelin_view::{Event, RoomSnapshot, View};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, server_name};
use serde_json::{Value, json, value::to_raw_value};

use super::policy::PolicyDesk;
use crate::{CreateRoom, Error, Join, MembershipChange, Preset, Rooms, Sender, Transaction};

pub struct World {
    pub sim: Sim,
    pub disk: MemoryDisk,
    pub view: View,
    pub rooms: Arc<Rooms>,
    pub counts: Arc<Counts>,
    pub policy: Arc<PolicyDesk>,
    sent: AtomicUsize,
}

/// What went through the store, and what was worked on apart.
#[derive(Default)]
pub struct Counts {
    pub commits: AtomicUsize,
    pub writes: AtomicUsize,
    pub bytes: AtomicUsize,
    /// Whether a batch takes effect when its answer comes, and not when it is taken already.
    pub lags: AtomicBool,
    pub blocking: AtomicUsize,
}

struct Counting {
    disk: MemoryDisk,
    memory: Memory,
    counts: Arc<Counts>,
}

struct CountingTasks {
    tasks: Arc<dyn Spawner>,
    counts: Arc<Counts>,
}

impl Spawner for CountingTasks {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(name, task);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.counts.blocking.fetch_add(1, Ordering::Relaxed);
        self.tasks.run_blocking(work)
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::on(MemoryDisk::default(), seed)
    }

    pub fn on(disk: MemoryDisk, seed: u64) -> Self {
        let sim = Sim::new(seed);
        let counts = Arc::new(Counts::default());
        let backend =
            Counting { disk: disk.clone(), memory: Memory::open(disk.clone()), counts: counts.clone() };
        let spawner = Arc::new(CountingTasks { tasks: sim.env().spawner, counts: counts.clone() });
        let env = Env { spawner, ..sim.env() };
        let view = View::new(Store::new(Arc::new(backend)), env, server_name!("localhost").to_owned());
        let feed = view.feed.clone().run(sim.env().clock);
        sim.env().spawner.spawn("feed", Box::pin(feed));
        let key = Arc::new(SigningKey::from_seed("1", [7; 32]).unwrap());
        let policy = Arc::new(PolicyDesk::default());
        let rooms = Arc::new(Rooms::new(view.clone(), key, policy.clone()));
        Self { sim, disk, view, rooms, counts, policy, sent: AtomicUsize::new(0) }
    }

    /// The same data in a new process.
    pub fn restarted(&self) -> Self {
        let world = Self::on(self.disk.clone(), 99);
        world.sent.store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
        world
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let output = self.sim.block_on(future);
        self.sim.settle();
        output
    }

    pub fn user(&self, name: &str) -> Sender {
        let user_id: ruma::OwnedUserId = format!("@{name}:localhost").try_into().unwrap();
        let user = self.run(self.view.interner.user(&user_id)).unwrap();
        Sender { user, user_id, guest: false, suspended: false, admin: false }
    }

    pub fn has_account(&self, user: &Sender, kind: AccountKind) {
        let account = AccountRecord {
            password_hash: None,
            created_ms: 0,
            kind,
            admin: false,
            locked: false,
            suspended: false,
            deactivated: false,
            erased: false,
        };
        let mut batch = Batch::new();
        batch.put(&ACCOUNTS, &user.user, &account);
        self.run(self.view.store.commit(batch)).unwrap();
    }

    pub fn create(&self, sender: &Sender, request: CreateRoom) -> OwnedRoomId {
        self.run(self.rooms.create_room(sender, &request)).unwrap()
    }

    pub fn public_room(&self, sender: &Sender) -> OwnedRoomId {
        self.create(sender, CreateRoom { preset: Some(Preset::PublicChat), ..CreateRoom::default() })
    }

    pub fn room_of_version(&self, sender: &Sender, version: RoomVersionId) -> OwnedRoomId {
        let preset = Some(Preset::PublicChat);
        self.create(sender, CreateRoom { preset, room_version: Some(version), ..CreateRoom::default() })
    }

    pub fn join(&self, sender: &Sender, room: &RoomId) -> Result<OwnedEventId, Error> {
        self.run(self.rooms.join(sender, room, Join::default()))
    }

    pub fn invite(&self, sender: &Sender, room: &RoomId, target: &Sender) -> Result<OwnedEventId, Error> {
        self.run(self.rooms.invite(sender, room, &target.user_id, MembershipChange::default()))
    }

    pub fn leave(&self, sender: &Sender, room: &RoomId) -> Result<(), Error> {
        self.run(self.rooms.leave(sender, room, MembershipChange::default()))
    }

    pub fn kick(&self, sender: &Sender, room: &RoomId, target: &Sender) -> Result<(), Error> {
        self.run(self.rooms.kick(sender, room, &target.user_id, MembershipChange::default()))
    }

    pub fn ban(&self, sender: &Sender, room: &RoomId, target: &Sender) -> Result<(), Error> {
        self.run(self.rooms.ban(sender, room, &target.user_id, MembershipChange::default()))
    }

    pub fn unban(&self, sender: &Sender, room: &RoomId, target: &Sender) -> Result<(), Error> {
        self.run(self.rooms.unban(sender, room, &target.user_id, MembershipChange::default()))
    }

    pub fn transaction(&self) -> Transaction {
        txn(&format!("txn{}", self.sent.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn say(&self, sender: &Sender, room: &RoomId, body: &str) -> Result<OwnedEventId, Error> {
        self.send(sender, room, "m.room.message", json!({ "msgtype": "m.text", "body": body }))
    }

    pub fn send(
        &self,
        sender: &Sender,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let content = to_raw_value(&content).unwrap();
        self.run(self.rooms.send_message(sender, room, kind.into(), &content, &self.transaction()))
    }

    pub fn set(
        &self,
        sender: &Sender,
        room: &RoomId,
        kind: &str,
        key: &str,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let content = to_raw_value(&content).unwrap();
        self.run(self.rooms.send_state(sender, room, kind.into(), key, &content))
    }

    pub fn snapshot(&self, room: &RoomId) -> Arc<RoomSnapshot> {
        self.run(self.view.room_by_id(room)).unwrap().unwrap()
    }

    /// The content of a state event.
    pub fn state(&self, room: &RoomId, kind: &str, key: &str) -> Option<Value> {
        let event = self.run(self.view.current_state_event(&self.snapshot(room), kind, key)).unwrap()?;
        Some(content(&event))
    }

    pub fn event(&self, id: &OwnedEventId) -> Arc<Event> {
        self.run(self.view.events.load_by_id(id)).unwrap().unwrap()
    }

    /// The timeline, oldest first, out of the tables.
    pub fn timeline(&self, room: &RoomId) -> Vec<Arc<Event>> {
        let nid = self.snapshot(room).nid();
        let rows = self.run(self.view.store.scan(&TIMELINE, &nid, Direction::Forward, 100_000)).unwrap();
        let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
        self.run(self.view.events.load_many(&nids)).unwrap().into_iter().map(Option::unwrap).collect()
    }

    /// `type` or `type membership` of every event, oldest first.
    pub fn kinds(&self, room: &RoomId) -> Vec<String> {
        let kind = |event: &Arc<Event>| match event.pdu.membership() {
            Some(membership) => format!("{} {membership}", event.pdu.event_type),
            None => event.pdu.event_type.to_string(),
        };
        self.timeline(room).iter().map(kind).collect()
    }
}

pub fn content(event: &Event) -> Value {
    serde_json::from_str(event.pdu.content.get()).unwrap()
}

pub fn txn(id: &str) -> Transaction {
    Transaction { device_id: "DEVICE".to_owned(), transaction_id: id.to_owned() }
}

#[track_caller]
pub fn assert_forbidden<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    match result {
        Err(Error::Forbidden(message)) => assert!(message.contains(words), "{message}"),
        other => panic!("expected to be forbidden: {other:?}"),
    }
}

impl RawRead for Counting {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.memory.get(table, key)
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, StoreError>> {
        self.memory.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.memory.scan(table, range, direction, limit)
    }
}

impl Backend for Counting {
    /// As in a real engine, the answer comes later than the batch is taken: others get their turn in between.
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        let size = |write: &myelin_store::backend::Write| match write {
            myelin_store::backend::Write::Put { key, value, .. } => key.bytes.len() + value.bytes.len(),
            myelin_store::backend::Write::Delete { key, .. } => key.len(),
        };
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.writes.fetch_add(batch.writes.len(), Ordering::Relaxed);
        self.counts.bytes.fetch_add(batch.writes.iter().map(size).sum(), Ordering::Relaxed);
        if self.counts.lags.load(Ordering::Relaxed) {
            let memory = Memory::open(self.disk.clone());
            return Box::pin(async move {
                yield_once().await;
                memory.submit(batch).await
            });
        }
        let answer = self.memory.submit(batch);
        Box::pin(async move {
            yield_once().await;
            answer.await
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, StoreError>> {
        self.memory.snapshot()
    }

    fn position(&self) -> Position {
        self.memory.position()
    }

    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        self.memory.wait_past(seen)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.close()
    }
}

async fn yield_once() {
    let mut yielded = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
