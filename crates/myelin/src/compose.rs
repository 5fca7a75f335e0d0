//! The composition root: who gets what. Every service is complete when it is made.

use std::sync::Arc;

use myelin_api::{self as api, AppState, Serves, Shutdown};
use myelin_core::Env;
use myelin_store::Store;
use myelin_view::View;

use crate::{
    config::{
        Config,
        types::{RateLimit, RegistrationMode, Surface},
    },
    identity::{self, Identity, KeyPlace},
    storage,
};

/// The services over one store.
pub struct Server {
    pub env: Env,
    pub store: Store,
    pub view: View,
    pub first_start: bool,
}

impl Server {
    /// Opens the store and builds what stands on it. Nothing runs yet.
    pub async fn open(config: &Config, env: Env) -> anyhow::Result<Self> {
        let store = storage::open(&config.store).await?;
        let place = KeyPlace::of(storage::directory(&config.store.uri));
        let Identity { signing_key, first_start } =
            identity::establish(&store, &place, &config.server.name, &env).await?;
        let view = View::new(store.clone(), env.clone(), config.server.name.clone());
        drop(signing_key);
        Ok(Self { env, store, view, first_start })
    }

    pub fn state(&self, config: &Config, shutdown: Shutdown) -> AppState {
        AppState::new(api::Parts {
            view: self.view.clone(),
            config: api_config(config),
            sessions: Arc::new(NobodySignedIn),
            shutdown,
        })
    }

    /// Starts what follows the log.
    pub fn start_readers(&self) {
        let feed = self.view.feed.clone();
        self.env.spawner.spawn("feed", Box::pin(feed.run(self.env.clock.clone())));
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

fn api_config(config: &Config) -> api::ServerConfig {
    api::ServerConfig {
        well_known: well_known(config),
        registration: registration(config),
        rate_limits: rate_limits(config),
        query_access_tokens: config.accounts.query_access_tokens,
        trusted_proxies: config.server.trusted_proxies.clone(),
        ..api::ServerConfig::new(&config.server.name)
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
    }
}

fn registration(config: &Config) -> api::config::Registration {
    let terms = config.registration.terms.iter().map(|terms| api::config::Terms {
        id: terms.id.clone(),
        version: terms.version.clone(),
        language: terms.language.clone(),
        name: terms.name.clone(),
        url: terms.url.to_string(),
    });
    api::config::Registration {
        mode: match config.registration.mode {
            RegistrationMode::Closed => api::config::RegistrationMode::Closed,
            RegistrationMode::Token => api::config::RegistrationMode::Token,
            RegistrationMode::Open => api::config::RegistrationMode::Open,
        },
        guests: config.registration.guests,
        shared_secret: config.registration.shared_secret.as_ref().map(|secret| secret.0.clone()),
        terms: terms.collect(),
    }
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
    }
}

struct NobodySignedIn;

impl api::Sessions for NobodySignedIn {
    fn lookup<'a>(
        &'a self,
        _: &'a str,
    ) -> futures::future::BoxFuture<'a, Result<api::SessionLookup, api::ApiError>> {
        Box::pin(std::future::ready(Ok(api::SessionLookup::Unknown)))
    }
}
