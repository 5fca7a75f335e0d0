//! One server, its requests and its answers.

use std::sync::Arc;

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use myelin_api::{AppState, Parts, ServerConfig, Serves, Shutdown, router};
use myelin_dag::SigningKey;
use myelin_federation::{Federation, Identity, IdentitySetup, Nowhere, PresencePolicy, Setup, Wire};
use myelin_media::{Backend, Media, NoOrigin, NoPages, preview, preview::Previews};
use myelin_rooms::Rooms;
use myelin_search::{DirectoryVisibility, Place, Search};
use myelin_store::{Store, memory::Memory};
use myelin_sync::Sync;
use myelin_testenv::Sim;
use myelin_users::{Config, DeviceRequest, PasswordCost, Users, registration::Registration};
use myelin_view::View;
use ruma::{owned_server_name, server_name};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::threepids::FakeIdentityServer;

pub struct World {
    pub sim: Sim,
    pub view: View,
    pub users: Arc<Users>,
    pub rooms: Arc<Rooms>,
    pub sync: Arc<Sync>,
    pub identity_server: Arc<FakeIdentityServer>,
    router: Router,
    state: AppState,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// What is not JSON is `Null`.
    pub json: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.json);
        self.json
    }

    pub fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.json["errcode"].as_str().unwrap_or_default())
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// Rate limits are off unless `configure` turns them on.
    pub fn with(configure: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::open(configure, |_| (), DirectoryVisibility::default())
    }

    /// Registration is closed unless `configure` opens it; passwords are cheap.
    pub fn with_users(configure: impl FnOnce(&mut Config)) -> Self {
        Self::open(|_| (), configure, DirectoryVisibility::default())
    }

    /// The user directory finds all local users.
    pub fn where_everybody_is_found() -> Self {
        Self::open(|_| (), |_| (), DirectoryVisibility::Everybody)
    }

    fn open(
        configure: impl FnOnce(&mut ServerConfig),
        configure_users: impl FnOnce(&mut Config),
        visibility: DirectoryVisibility,
    ) -> Self {
        let sim = Sim::new(1);
        let mut config = ServerConfig::new(server_name!("localhost"));
        config.rate_limits.enabled = false;
        configure(&mut config);
        let password_cost = PasswordCost { memory_kib: 8, iterations: 1 };
        let mut users = Config { password_cost, ..Config::default() };
        configure_users(&mut users);
        let store = Store::new(Arc::new(Memory::default()));
        let view = View::new(store, sim.env(), config.server_name.clone());
        let env = sim.env();
        env.spawner.spawn("feed", Box::pin(view.feed.clone().run(env.clock)));
        let users = Arc::new(Users::new(view.clone(), users));
        let sync = Sync::new(view.clone());
        let key = Arc::new(SigningKey::from_seed("1", [7; 32]).unwrap());
        let wire = Wire::new(&view, key.clone(), Arc::new(Nowhere));
        let rooms = Arc::new(Rooms::new(view.clone(), key.clone(), wire.policy.clone()));
        let key_of_server = key.clone();
        let federation = Federation::new(Setup {
            view: view.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            sync: sync.clone(),
            key,
            wire,
            notaries: Vec::new(),
            presence: PresencePolicy::default(),
            whole_state_max: myelin_federation::WHOLE_STATE_MAX,
        });
        let media = Media::new(myelin_media::Setup {
            view: view.clone(),
            config: media_config(),
            objects: Backend::memory(),
            origin: Arc::new(NoOrigin),
            pages: Arc::new(NoPages),
        });
        let previews = Previews::new(media.clone(), preview::Config::default());
        let search = Search::new(view.clone(), sync.clone(), Place::Memory, visibility);
        let identity_server = Arc::<FakeIdentityServer>::default();
        let identity = Arc::new(Identity::new(IdentitySetup {
            view: view.clone(),
            rooms: rooms.clone(),
            handshakes: federation.handshakes.clone(),
            key: key_of_server,
            transport: identity_server.clone(),
            trusted: vec![owned_server_name!("id.example.org")],
        }));
        let parts = Parts {
            view: view.clone(),
            users: users.clone(),
            rooms: rooms.clone(),
            sync: sync.clone(),
            federation,
            media,
            previews,
            search,
            identity,
            config,
            shutdown: Shutdown::never(),
        };
        let state = AppState::new(parts);
        Self {
            router: router(state.clone(), Serves::ALL),
            state,
            sim,
            view,
            users,
            rooms,
            sync,
            identity_server,
        }
    }

    /// The same server behind a listener that serves only this.
    pub fn serving(self, serves: Serves) -> Self {
        Self { router: router(self.state.clone(), serves), ..self }
    }

    /// Registers somebody; their access token. The password is `<name>'s password`.
    pub fn user(&self, name: &str) -> String {
        self.register(name, false)
    }

    pub fn admin(&self, name: &str) -> String {
        self.register(name, true)
    }

    fn register(&self, name: &str, admin: bool) -> String {
        let registration = Registration {
            username: Some(name.to_owned()),
            password: Some(format!("{name}'s password")),
            login: Some(DeviceRequest::default()),
            admin,
            ..Registration::default()
        };
        let registered = self.sim.block_on(self.users.register(&registration)).unwrap();
        registered.grant.unwrap().access_token
    }

    /// Makes a room and says something in it: their ids.
    pub fn room_with_message(&self, token: &str) -> (String, String) {
        let room = self.post("/_matrix/client/v3/createRoom", Some(token), &json!({})).ok();
        let room_id = room["room_id"].as_str().unwrap().to_owned();
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1");
        let sent = self.put(&path, Some(token), &json!({ "msgtype": "m.text", "body": "hello" })).ok();
        (room_id, sent["event_id"].as_str().unwrap().to_owned())
    }

    pub fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.request(Method::GET, path, token, "")
    }

    pub fn post(&self, path: &str, token: Option<&str>, json: &Value) -> Answer {
        self.request(Method::POST, path, token, json.to_string())
    }

    pub fn put(&self, path: &str, token: Option<&str>, json: &Value) -> Answer {
        self.request(Method::PUT, path, token, json.to_string())
    }

    pub fn request(&self, method: Method, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(body.into()).unwrap())
    }

    pub fn send(&self, request: Request<Body>) -> Answer {
        self.sim.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let json = serde_json::from_slice(&bytes).unwrap_or_default();
            Answer { status: parts.status, headers: parts.headers, bytes, json }
        })
    }
}

/// Small limits, so that tests reach them.
fn media_config() -> myelin_media::Config {
    myelin_media::Config {
        upload_size_max: 1024 * 1024,
        pending_per_user_max: 3,
        ..myelin_media::Config::default()
    }
}
