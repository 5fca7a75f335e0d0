//! One server on a simulated disk.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use myelin_api::{AppState, Parts, ServerConfig, Serves, Shutdown, router};
use myelin_core::EventNid;
use myelin_dag::SigningKey;
use myelin_rooms::Rooms;
use myelin_store::{
    Direction, Store,
    memory::MemoryDisk,
    tables::{EVENTS, TIMELINE},
};
use myelin_sync::Sync;
use myelin_testenv::Sim;
use myelin_users::{Config, PasswordCost, RegistrationMode, Users};
use myelin_view::View;
use ruma::{RoomId, server_name};
use serde_json::Value;
use tower::ServiceExt;

use crate::disk::SimDisk;

const SIGNING_KEY_SEED: [u8; 32] = [7; 32];
const TIMELINE_MAX: usize = 1_000_000;

/// Running until it is dropped or crashed.
pub struct Server {
    pub sim: Sim,
    pub view: View,
    disk: SimDisk,
    router: Router,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub json: Value,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.json);
        self.json
    }

    pub fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }
}

impl Server {
    /// # Panics
    /// If the parts do not fit together: a test cannot go on.
    pub fn start(sim: &Sim, platters: MemoryDisk) -> Self {
        let sim = sim.rebooted();
        let env = sim.env();
        let disk = SimDisk::open(platters, env.clone());
        let mut config = ServerConfig::new(server_name!("sim.test"));
        config.rate_limits.enabled = false;
        let view = View::new(Store::new(Arc::new(disk.clone())), env.clone(), config.server_name.clone());
        let cheap = PasswordCost { memory_kib: 8, iterations: 1 };
        let accounts =
            Config { password_cost: cheap, registration: RegistrationMode::Open, ..Config::default() };
        let users = Arc::new(Users::new(view.clone(), accounts));
        let key = SigningKey::from_seed("sim", SIGNING_KEY_SEED).expect("a key from a seed");
        let rooms = Arc::new(Rooms::new(view.clone(), Arc::new(key)));
        let sync = Sync::new(view.clone());
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock.clone())));
        env.spawner.spawn("profiles", Box::pin(myelin_rooms::run_profile_propagation(rooms.clone())));
        let parts = Parts { view: view.clone(), users, rooms, sync, config, shutdown: Shutdown::never() };
        Self { router: router(AppState::new(parts), Serves::ALL), sim, view, disk }
    }

    /// Everything in memory is gone; what the disk kept is handed on.
    pub fn crash(self) -> MemoryDisk {
        self.disk.crash()
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |json| Body::from(json.to_string()));
        let request = request.body(body).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("the router cannot fail");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("bodies are in memory").to_bytes();
        Answer { status: parts.status, json: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    /// The event ids of a room in timeline order, from the tables: what really happened.
    ///
    /// # Panics
    /// If the room is not there or its rows do not fit together.
    pub async fn truth(&self, room_id: &str) -> Vec<String> {
        let room_id = <&RoomId>::try_from(room_id).expect("a room id");
        let room = self.view.interner.lookup_room(room_id).await.expect("readable").expect("the room");
        let store = &self.view.store;
        let rows = store.scan(&TIMELINE, &room, Direction::Forward, TIMELINE_MAX).await.expect("readable");
        let nids: Vec<EventNid> = rows.into_iter().map(|(_, nid)| nid).collect();
        let events = store.multi_get(&EVENTS, &nids).await.expect("readable");
        events.into_iter().map(|row| row.expect("a timeline row has its event").value.event_id).collect()
    }
}
