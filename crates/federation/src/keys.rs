//! Signing keys of servers (Server-Server API, "Retrieving server keys").
//!
//! - [`answer`]: what a server says of its keys, checked.
//! - [`own`]: this server's keys as others see them.
//! - [`others`]: what is known of the keys of others, durable. `fetch`: how it comes here.
//!
//! Must not know: what is signed with the keys.

pub mod answer;
mod fetch;
mod others;
pub mod own;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use myelin_dag::SigningKey;
use myelin_view::View;
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

use self::{
    others::Others,
    own::{OwnKeys, OwnKeysError},
};
use crate::{Client, Peers};

/// How long whoever asks for keys waits for them; what is on its way then still arrives.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for whoever asks this server as a notary.
const NOTARY_PATIENCE: Duration = Duration::from_secs(15);
/// Servers asked at once on behalf of one caller.
const PARALLEL_MAX: usize = 32;
/// With more unknown servers than this, a notary is asked before each of them is.
const NOTARY_FIRST: usize = 16;

/// Keys that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub server: OwnedServerName,
    /// `ed25519:version`. Empty: all keys that are valid.
    pub key_ids: Vec<String>,
    /// When they must have been valid, in milliseconds; 0 for any time (room versions up to 4).
    pub at_ms: u64,
}

/// The keys of other servers, and this server's own as others see them.
pub struct Keyring {
    own: OwnKeys,
    others: Arc<Others>,
    view: View,
}

impl Keyring {
    /// `notaries` are asked for keys that their owners do not hand out.
    pub fn new(
        view: View,
        client: Arc<Client>,
        peers: &Peers,
        key: Arc<SigningKey>,
        notaries: Vec<OwnedServerName>,
    ) -> Self {
        let own = OwnKeys::new(view.clone(), key);
        let others = Others::new(view.clone(), client, notaries);
        let alive = Arc::downgrade(&others);
        peers.on_sign_of_life(move |server| {
            if let Some(others) = alive.upgrade() {
                others.is_alive(server);
            }
        });
        Self { own, others, view }
    }

    pub fn own(&self) -> &OwnKeys {
        &self.own
    }

    /// The keys that are wanted, as far as they can be had: from memory, from the store, from their owners, from
    /// notaries. A key is among them if it was valid at the times of *all* who want keys of that server: whoever
    /// verifies events of different times asks for all of them first and then, at no cost, for each.
    pub async fn keys_for(&self, wanted: &[Wanted]) -> PublicKeyMap {
        let lacking = self.lacking(wanted).await;
        if !lacking.is_empty() {
            let fetched = self.view.env.timeout(PATIENCE, self.fetch(&lacking)).await;
            if fetched.is_none() {
                tracing::info!(servers = lacking.len(), "fetching the keys of servers takes long");
            }
        }
        let mut keys = PublicKeyMap::new();
        for wanted in wanted {
            let valid = self.known(wanted).await;
            keys.entry(wanted.server.to_string())
                .and_modify(|both| both.retain(|id, _| valid.contains_key(id)))
                .or_insert(valid);
        }
        keys
    }

    /// What this server, as a notary, has to say of another: its answers with this server's signature beside its own,
    /// valid until `at_ms` if that can be had.
    pub async fn answer_as_notary(&self, wanted: Wanted) -> Result<Vec<CanonicalJsonObject>, OwnKeysError> {
        if wanted.server == self.view.server_name {
            return Ok(vec![self.own.signed().await?]);
        }
        let lacking = self.lacking(std::slice::from_ref(&wanted)).await;
        self.view.env.timeout(NOTARY_PATIENCE, self.fetch_directly(&lacking)).await;
        let answers = self.others.known(&wanted.server).await.answers_with(&wanted.key_ids);
        answers.iter().map(|answer| self.own.countersigned(answer)).collect()
    }

    async fn fetch(&self, lacking: &[Wanted]) {
        let mut lacking = lacking.to_vec();
        if lacking.len() > NOTARY_FIRST && self.others.has_notaries() {
            self.others.ask_notaries(&lacking).await;
            lacking = self.lacking(&lacking).await;
        }
        self.fetch_directly(&lacking).await;
        if self.others.has_notaries() {
            let lacking = self.lacking(&lacking).await;
            self.others.ask_notaries(&lacking).await;
        }
    }

    async fn fetch_directly(&self, lacking: &[Wanted]) {
        let servers: std::collections::BTreeSet<_> = lacking.iter().map(|wanted| &wanted.server).collect();
        let servers = stream::iter(servers.into_iter().cloned());
        servers.for_each_concurrent(PARALLEL_MAX, |server| self.others.clone().fetch(server)).await;
    }

    async fn lacking(&self, wanted: &[Wanted]) -> Vec<Wanted> {
        let mut lacking = Vec::new();
        for wanted in wanted.iter().filter(|wanted| wanted.server != self.view.server_name) {
            let known = self.known(wanted).await;
            let complete = wanted.key_ids.iter().all(|id| known.contains_key(id));
            if known.is_empty() || !complete {
                lacking.push(wanted.clone());
            }
        }
        lacking
    }

    async fn known(&self, wanted: &Wanted) -> PublicKeySet {
        if wanted.server == self.view.server_name {
            return self.own.public_keys(wanted.at_ms).await;
        }
        let known = self.others.clone().lookup(&wanted.server).await;
        let mut keys = known.valid_at(wanted.at_ms);
        if !wanted.key_ids.is_empty() {
            keys.retain(|id, _| wanted.key_ids.contains(id));
        }
        keys
    }

    /// One key of a server that is valid now.
    pub async fn current_key(&self, server: &ServerName, key_id: &str) -> Option<Base64> {
        let at_ms = self.view.env.now_ms();
        let wanted = Wanted { server: server.to_owned(), key_ids: vec![key_id.to_owned()], at_ms };
        let mut keys: BTreeMap<_, _> = self.keys_for(&[wanted]).await;
        keys.get_mut(server.as_str())?.remove(key_id)
    }
}
