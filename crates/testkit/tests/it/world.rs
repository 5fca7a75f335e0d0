//! One server in one thread, without HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use myelin_core::{Position, RoomNid};
use myelin_dag::SigningKey;
use myelin_rooms::{
    CreateRoom, Error, InitialState, Join, MembershipChange, NoPolicyServers, Preset, Rooms, Sender,
    Transaction,
};
use myelin_store::{
    Direction, Error as StoreError, Store,
    backend::{Backend, CommitFuture, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    memory::{Memory, MemoryDisk},
    tables::{TIMELINE, TableId},
};
use myelin_sync::{Requester, Sync};
use myelin_testkit::env::Sim;
use myelin_users::{Config, Users};
use myelin_view::{Event, RoomSnapshot, View};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, server_name};
use serde_json::{Map, Value, json, value::to_raw_value};

pub struct World {
    pub sim: Sim,
    pub disk: MemoryDisk,
    pub view: View,
    pub rooms: Arc<Rooms>,
    pub sync: Arc<Sync>,
    pub users: Arc<Users>,
    reads: Arc<AtomicUsize>,
    sent: AtomicUsize,
}

#[derive(Clone, Debug)]
pub struct User {
    pub sender: Sender,
    pub requester: Requester,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::on(MemoryDisk::default(), seed)
    }

    pub fn on(disk: MemoryDisk, seed: u64) -> Self {
        let sim = Sim::new(seed);
        let reads = Arc::new(AtomicUsize::new(0));
        let backend = Counting { memory: Memory::open(disk.clone()), reads: reads.clone() };
        let view = View::new(Store::new(Arc::new(backend)), sim.env(), server_name!("localhost").to_owned());
        let env = sim.env();
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock.clone())));
        let key = Arc::new(SigningKey::from_seed("1", [7; 32]).unwrap());
        let rooms = Arc::new(Rooms::new(view.clone(), key, Arc::new(NoPolicyServers)));
        let users = Arc::new(Users::new(view.clone(), Config::default()));
        let sync = Sync::new(view.clone());
        Self { sim, disk, view, rooms, sync, users, reads, sent: AtomicUsize::new(0) }
    }

    /// The same after a crash: what was durable is there, and clients do not repeat their transactions.
    pub fn reopened(&self, seed: u64) -> Self {
        let sent = AtomicUsize::new(self.sent.load(Ordering::Relaxed));
        Self { sent, ..Self::on(self.disk.clone(), seed) }
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let output = self.sim.block_on(future);
        self.sim.settle();
        output
    }

    /// Reads of the store while `act` runs.
    pub fn reads_of<T>(&self, act: impl FnOnce() -> T) -> (T, usize) {
        let before = self.reads.load(Ordering::Relaxed);
        let output = act();
        (output, self.reads.load(Ordering::Relaxed) - before)
    }

    pub fn user(&self, name: &str) -> User {
        let user_id: ruma::OwnedUserId = format!("@{name}:localhost").try_into().unwrap();
        let user = self.run(self.view.interner.user(&user_id)).unwrap();
        let requester = Requester { user, user_id: user_id.clone(), device_id: "DEVICE".to_owned() };
        User { sender: Sender { user, user_id, guest: false, admin: false, suspended: false }, requester }
    }

    pub fn create(&self, user: &User, request: CreateRoom) -> OwnedRoomId {
        self.run(self.rooms.create_room(&user.sender, &request)).unwrap()
    }

    pub fn public_room(&self, user: &User) -> OwnedRoomId {
        self.create(user, CreateRoom { preset: Some(Preset::PublicChat), ..CreateRoom::default() })
    }

    pub fn room_with(&self, user: &User, state: &[(&str, Value)]) -> OwnedRoomId {
        let initial_state = state.iter().map(|(event_type, content)| InitialState {
            event_type: (*event_type).to_owned(),
            state_key: String::new(),
            content: to_raw_value(content).unwrap(),
        });
        let preset = Some(Preset::PublicChat);
        self.create(
            user,
            CreateRoom { preset, initial_state: initial_state.collect(), ..CreateRoom::default() },
        )
    }

    pub fn join(&self, user: &User, room: &RoomId) -> Result<OwnedEventId, Error> {
        self.run(self.rooms.join(&user.sender, room, Join::default()))
    }

    pub fn knock(&self, user: &User, room: &RoomId) -> Result<OwnedEventId, Error> {
        self.run(self.rooms.knock(&user.sender, room, MembershipChange::default()))
    }

    pub fn leave(&self, user: &User, room: &RoomId) -> Result<(), Error> {
        self.run(self.rooms.leave(&user.sender, room, MembershipChange::default()))
    }

    pub fn forget(&self, user: &User, room: &RoomId) -> Result<(), Error> {
        self.run(self.rooms.forget(&user.sender, room))
    }

    pub fn invite(&self, user: &User, room: &RoomId, target: &User) -> Result<OwnedEventId, Error> {
        self.run(self.rooms.invite(&user.sender, room, &target.sender.user_id, MembershipChange::default()))
    }

    pub fn kick(&self, user: &User, room: &RoomId, target: &User) -> Result<(), Error> {
        self.run(self.rooms.kick(&user.sender, room, &target.sender.user_id, MembershipChange::default()))
    }

    pub fn ban(&self, user: &User, room: &RoomId, target: &User) -> Result<(), Error> {
        self.run(self.rooms.ban(&user.sender, room, &target.sender.user_id, MembershipChange::default()))
    }

    pub fn unban(&self, user: &User, room: &RoomId, target: &User) -> Result<(), Error> {
        self.run(self.rooms.unban(&user.sender, room, &target.sender.user_id, MembershipChange::default()))
    }

    pub fn say(&self, user: &User, room: &RoomId, body: &str) -> Result<OwnedEventId, Error> {
        self.send(user, room, "m.room.message", json!({ "msgtype": "m.text", "body": body }))
    }

    /// A message that relates to another one.
    pub fn relate(
        &self,
        user: &User,
        room: &RoomId,
        rel_type: &str,
        to: &OwnedEventId,
        key: &str,
    ) -> OwnedEventId {
        let (kind, relates_to) = match rel_type {
            "m.annotation" => ("m.reaction", json!({ "rel_type": rel_type, "event_id": to, "key": key })),
            _ => ("m.room.message", json!({ "rel_type": rel_type, "event_id": to })),
        };
        let mut content = json!({ "msgtype": "m.text", "body": key, "m.relates_to": relates_to });
        if rel_type == "m.replace" {
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": key });
        }
        self.send(user, room, kind, content).unwrap()
    }

    pub fn send(
        &self,
        user: &User,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let content = to_raw_value(&content).unwrap();
        self.run(self.rooms.send_message(&user.sender, room, kind.into(), &content, &self.transaction()))
    }

    pub fn set(
        &self,
        user: &User,
        room: &RoomId,
        kind: &str,
        key: &str,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let content = to_raw_value(&content).unwrap();
        self.run(self.rooms.send_state(&user.sender, room, kind.into(), key, &content))
    }

    pub fn redact(&self, user: &User, room: &RoomId, target: &OwnedEventId) -> Result<OwnedEventId, Error> {
        let transaction = self.transaction();
        self.run(self.rooms.redact(&user.sender, room, target, Map::new(), &transaction))
    }

    /// `room == None`: global.
    pub fn put_account_data(&self, user: &User, room: Option<&RoomId>, kind: &str, content: Value) {
        let room = room.map_or(RoomNid::GLOBAL, |room| self.snapshot(room).nid());
        let content = to_raw_value(&content).unwrap();
        self.run(self.users.put_account_data(user.sender.user, room, kind, &content)).unwrap();
    }

    pub fn ignore(&self, user: &User, ignored: &User) {
        let content = json!({ "ignored_users": { ignored.sender.user_id.as_str(): {} } });
        self.put_account_data(user, None, "m.ignored_user_list", content);
    }

    fn transaction(&self) -> Transaction {
        let transaction_id = format!("txn{}", self.sent.fetch_add(1, Ordering::Relaxed));
        Transaction { device_id: "DEVICE".to_owned(), transaction_id }
    }

    pub fn snapshot(&self, room: &RoomId) -> Arc<RoomSnapshot> {
        self.run(self.view.room_by_id(room)).unwrap().unwrap()
    }

    /// The timeline, oldest first, out of the tables.
    pub fn timeline(&self, room: &RoomId) -> Vec<Arc<Event>> {
        let nid = self.snapshot(room).nid();
        let rows = self.run(self.view.store.scan(&TIMELINE, &nid, Direction::Forward, 100_000)).unwrap();
        let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
        self.run(self.view.events.load_many(&nids)).unwrap().into_iter().map(Option::unwrap).collect()
    }
}

struct Counting {
    memory: Memory,
    reads: Arc<AtomicUsize>,
}

impl Counting {
    fn count(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

impl RawRead for Counting {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.count();
        self.memory.get(table, key)
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, StoreError>> {
        self.count();
        self.memory.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.count();
        self.memory.scan(table, range, direction, limit)
    }
}

impl Backend for Counting {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        self.memory.submit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, StoreError>> {
        self.count();
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
