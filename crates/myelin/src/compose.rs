//! The composition root: who gets what. Every service is complete when it is made.

use std::sync::Arc;

use axum::extract::FromRef;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use myelin_api::{self as api, AppState, Notices, Serves, Shutdown, config::TurnCredentials};
use myelin_core::{Env, UserNid};
use myelin_federation::{Federation, IdentitySetup, PresencePolicy, Setup, Wire, media::RemoteMedia};
use myelin_media::{Media, preview::Previews};
use myelin_rooms::{
    Rooms, delayed, retention::run_retention, run_member_upkeep, server_notices::NoticeRoom,
    trimming::run_trimming,
};
use myelin_search::{DirectoryVisibility, Search};
use myelin_store::Store;
use myelin_sync::Sync;
use myelin_users::{Users, departure, mail::MailSetup};
use myelin_view::{RetentionPolicy, View};

use crate::{
    config::{
        Config,
        types::{BusUri, RateLimit, RegistrationMode, Surface},
    },
    identity::{self, Identity, KeyPlace},
    mail, media, outbound, previews, storage,
};

/// The services over one store.
pub struct Server {
    pub env: Env,
    pub store: Store,
    pub view: View,
    pub users: Arc<Users>,
    pub rooms: Arc<Rooms>,
    pub sync: Arc<Sync>,
    pub federation: Federation,
    pub media: Arc<Media>,
    pub previews: Arc<Previews>,
    pub search: Arc<Search>,
    pub identity: Arc<myelin_federation::Identity>,
}

impl Server {
    /// Opens the store and builds what stands on it. Nothing runs yet.
    pub async fn open(config: &Config, env: Env) -> anyhow::Result<Self> {
        // The bus inside one process is the feed of the log.
        let BusUri::Mem = config.bus.uri;
        let store = storage::open(&config.store).await?;
        let place = KeyPlace::of(storage::directory(&config.store.uri));
        let Identity { signing_key, .. } =
            identity::establish(&store, &place, &config.server.name, &env).await?;
        let view = View::new(store.clone(), env.clone(), config.server.name.clone());
        let view = view.with_retention(retention_policy(config));
        let mail = mail::setup(config)?;
        let users = Arc::new(Users::new(view.clone(), users_config(config, mail)));
        let key = Arc::new(signing_key);
        let signing_key = key.clone();
        let wire = Wire::new(&view, key.clone(), outbound::transport(&config.federation, &env)?);
        let rooms = Arc::new(Rooms::new(view.clone(), key.clone(), wire.policy.clone()));
        let sync = Sync::new(view.clone());
        let federation = Federation::new(Setup {
            view: view.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            sync: sync.clone(),
            key,
            wire,
            notaries: config.federation.notaries.clone(),
            presence: PresencePolicy {
                incoming: config.federation.incoming_presence,
                outgoing: config.federation.outgoing_presence,
            },
            whole_state_max: myelin_federation::WHOLE_STATE_MAX,
        });
        let media = Media::new(myelin_media::Setup {
            view: view.clone(),
            config: media::config(config),
            objects: media::backend(config)?,
            origin: Arc::new(RemoteMedia::new(federation.client.clone())),
            pages: previews::pages(config, &env)?,
        });
        let previews = Previews::new(media.clone(), previews::config(config));
        let visibility = match config.search.all_local_users {
            true => DirectoryVisibility::Everybody,
            false => DirectoryVisibility::SharedAndPublicRooms,
        };
        let identity = Arc::new(myelin_federation::Identity::new(IdentitySetup {
            view: view.clone(),
            rooms: rooms.clone(),
            handshakes: federation.handshakes.clone(),
            key: signing_key,
            transport: outbound::identity_transport(&config.federation, &env)?,
            trusted: config.identity.trusted_servers.clone(),
        }));
        let search = Search::new(view.clone(), sync.clone(), storage::search_place(config), visibility);
        Ok(Self { env, store, view, users, rooms, sync, federation, media, previews, search, identity })
    }

    pub fn state(&self, config: &Config, shutdown: Shutdown) -> AppState {
        AppState::new(api::Parts {
            view: self.view.clone(),
            config: api_config(config),
            users: self.users.clone(),
            rooms: self.rooms.clone(),
            sync: self.sync.clone(),
            federation: self.federation.clone(),
            media: self.media.clone(),
            previews: self.previews.clone(),
            search: self.search.clone(),
            identity: self.identity.clone(),
            shutdown,
        })
    }

    pub fn notices(&self, config: &Config) -> Notices {
        Notices::from_ref(&self.state(config, Shutdown::never()))
    }

    /// What makes commits visible: for commands that write into rooms.
    pub fn start_feed(&self) {
        self.env.spawner.spawn("feed", self.view.feed.clone().run(self.env.clock.clone()).boxed());
    }

    /// Starts what follows the log and what has to be done from time to time.
    pub fn start_readers(&self) {
        let spawn = |name, task| self.env.spawner.spawn(name, task);
        self.start_feed();
        spawn("typing expiry", self.sync.clone().run_expiry().boxed());
        spawn("member upkeep", run_member_upkeep(self.rooms.clone()).boxed());
        spawn("trimming", run_trimming(self.rooms.clone()).boxed());
        spawn("retention", run_retention(self.rooms.clone()).boxed());
        spawn("delayed events", delayed::run_delayed_events(self.rooms.clone()).boxed());
        spawn("search index", self.search.clone().run().boxed());
        let departing = Arc::new(Departing(self.rooms.clone()));
        self.federation.start(&self.env);
        spawn("room for remote media", self.media.clone().run_eviction().boxed());
        spawn("old previews", self.previews.clone().run_sweep().boxed());
        spawn("media", self.media.clone().run().boxed());
        spawn("departures", self.users.clone().run_departures(departing).boxed());
    }
}

/// Deactivated accounts leave their rooms: what users need of rooms.
struct Departing(Arc<Rooms>);

impl departure::Rooms for Departing {
    fn leave_all(&self, user: UserNid) -> BoxFuture<'_, Result<(), String>> {
        self.0.leave_all(user).map_err(|error| error.to_string()).boxed()
    }
}

pub fn serves(surfaces: &[Surface]) -> Serves {
    let has = |surface| surfaces.contains(&surface);
    Serves {
        client: has(Surface::Client),
        federation: has(Surface::Federation),
        admin: has(Surface::Admin),
        metrics: has(Surface::Metrics),
    }
}

fn users_config(config: &Config, mail: Option<MailSetup>) -> myelin_users::Config {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    myelin_users::Config {
        registration: match config.registration.mode {
            RegistrationMode::Closed => myelin_users::RegistrationMode::Closed,
            RegistrationMode::Token => myelin_users::RegistrationMode::Token,
            RegistrationMode::Open => myelin_users::RegistrationMode::Open,
        },
        guests: config.registration.guests,
        shared_secret: config.registration.shared_secret.as_ref().map(|secret| secret.0.clone()),
        refreshable_token_lifetime_ms: ms(config.accounts.access_token_lifetime),
        refresh_token_lifetime_ms: Some(ms(config.accounts.refresh_token_lifetime)),
        login_token_lifetime_ms: ms(config.accounts.login_token_lifetime),
        mail,
        ..myelin_users::Config::default()
    }
}

fn api_config(config: &Config) -> api::ServerConfig {
    api::ServerConfig {
        well_known: well_known(config),
        terms: terms(config),
        rate_limits: rate_limits(config),
        query_access_tokens: config.accounts.query_access_tokens,
        trusted_proxies: config.server.trusted_proxies.clone(),
        delayed_events: delayed_events(config),
        turn: turn(config),
        notices_localpart: config.server_notices.localpart.clone(),
        notice_room: NoticeRoom {
            name: config.server_notices.room_name.clone(),
            topic: config.server_notices.room_topic.clone(),
        },
        livekit_services: config.calls.livekit_services.iter().map(ToString::to_string).collect(),
        unauthenticated_media: media::unauthenticated(config),
        ..api::ServerConfig::new(&config.server.name)
    }
}

fn retention_policy(config: &Config) -> RetentionPolicy {
    let ms = |duration: Option<std::time::Duration>| {
        duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    };
    let retention = &config.retention;
    RetentionPolicy {
        default_ms: ms(retention.default_lifetime),
        shortest_ms: ms(retention.shortest_lifetime),
        longest_ms: ms(retention.longest_lifetime),
    }
}

/// `None` without servers, or without a way to make credentials for them.
fn turn(config: &Config) -> Option<api::config::Turn> {
    let calls = &config.calls;
    let secret = calls.turn_secret.as_ref().map(|secret| TurnCredentials::Secret(secret.0.clone()));
    let account = calls.turn_username.clone().zip(calls.turn_password.as_ref());
    let account = account
        .map(|(username, password)| TurnCredentials::Account { username, password: password.0.clone() });
    let credentials = secret.or(account)?;
    let uris = calls.turn_uris.clone();
    let turn = api::config::Turn { uris, credentials, lifetime_s: calls.turn_lifetime.as_secs() };
    (!turn.uris.is_empty()).then_some(turn)
}

fn delayed_events(config: &Config) -> delayed::DelayLimits {
    let ms = config.delayed_events.max_delay.as_millis();
    delayed::DelayLimits {
        delay_ms_max: u64::try_from(ms).unwrap_or(u64::MAX),
        scheduled_per_user_max: config.delayed_events.max_per_user as usize,
    }
}

fn well_known(config: &Config) -> api::config::WellKnown {
    let base_url = config.well_known.client_base_url.as_ref().or(config.server.public_base_url.as_ref());
    let contacts = config.well_known.support_contacts.iter().map(|contact| api::config::SupportContact {
        role: contact.role.clone(),
        matrix_id: contact.matrix_id.as_ref().map(ToString::to_string),
        email_address: contact.email_address.clone(),
    });
    api::config::WellKnown {
        client_base_url: base_url.map(|url| url.as_str().trim_end_matches('/').to_owned()),
        server: config.well_known.server.as_ref().map(ToString::to_string),
        support_page: config.well_known.support_page.as_ref().map(ToString::to_string),
        support_contacts: contacts.collect(),
        policy_server_key: config.well_known.policy_server_key.clone(),
    }
}

fn terms(config: &Config) -> Vec<api::config::Terms> {
    let terms = config.registration.terms.iter().map(|terms| api::config::Terms {
        id: terms.id.clone(),
        version: terms.version.clone(),
        language: terms.language.clone(),
        name: terms.name.clone(),
        url: terms.url.to_string(),
    });
    terms.collect()
}

fn rate_limits(config: &Config) -> api::rate_limit::RateLimits {
    let limits = &config.rate_limits;
    let limit =
        |limit: RateLimit| api::rate_limit::Limit { per_second: limit.per_second, burst: limit.burst };
    api::rate_limit::RateLimits {
        enabled: limits.enabled,
        login: limit(limits.login),
        failed_login: limit(limits.failed_login),
        registration: limit(limits.registration),
        registration_check: limit(limits.registration_check),
        message: limit(limits.message),
        join: limit(limits.join),
        invite: limit(limits.invite),
        room_creation: limit(limits.room_creation),
        profile: limit(limits.profile),
        report: limit(limits.report),
        write: limit(limits.write),
        read: limit(limits.read),
        search: limit(limits.search),
        url_preview: limit(limits.url_preview),
        key_fetch: limit(limits.key_fetch),
        server_request: limit(limits.server_request),
        server_join: limit(limits.server_join),
        server_invite: limit(limits.server_invite),
        invite_received: limit(limits.invite_received),
        user_invited: limit(limits.user_invited),
    }
}
