//! Signing keys of servers (Server-Server API, "Retrieving server keys").
//!
//! - [`answer`]: what a server says of its keys, checked.
//! - [`own`]: this server's keys as others see them.
//! - [`others`]: what is known of the keys of others, durable. `fetch`: how it comes here; `attempts`: how often;
//!   `lanes`: on whose behalf, and how much at once.
//!
//! Must not know: what is signed with the keys.

pub mod answer;
mod attempts;
mod fetch;
mod lanes;
mod others;
pub mod own;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use futures::{TryStreamExt, stream};
use myelin_dag::SigningKey;
use myelin_view::View;
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

pub use self::lanes::Busy;
use self::{
    lanes::Asker,
    others::Others,
    own::{OwnKeys, OwnKeysError},
};
use crate::{Client, Peers};

/// How long whoever asks for keys waits for them; what is on its way then still arrives.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where many strangers ask at once, one waits so long before it tries again: a server that is sent away for that may not
/// come again for ten minutes.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
const BUSY_TRIES: usize = 10;
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

impl Wanted {
    fn is_among(&self, keys: &PublicKeySet) -> bool {
        !keys.is_empty() && self.key_ids.iter().all(|id| keys.contains_key(id))
    }
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
        self.bring(wanted).await;
        self.at_hand(wanted).await
    }

    /// Looks for those that lack. What is not there when this is done cannot be had now.
    pub async fn bring(&self, wanted: &[Wanted]) {
        self.bring_for(Asker::Here, wanted).await;
    }

    /// The same for what `origin` has sent: whatever names are in it, others are looked for besides.
    pub async fn bring_brought_by(&self, origin: &ServerName, wanted: &[Wanted]) {
        self.bring_for(Asker::Origin(origin), wanted).await;
    }

    async fn bring_for(&self, asker: Asker<'_>, wanted: &[Wanted]) {
        if self.fetch_lacking(wanted, asker, PATIENCE).await.is_err() {
            tracing::warn!("so many keys of servers are being looked for that some are not");
        }
    }

    /// Those that are here; nobody is waited for.
    pub async fn at_hand(&self, wanted: &[Wanted]) -> PublicKeyMap {
        let mut keys = PublicKeyMap::new();
        for wanted in wanted {
            let valid = self.known(wanted, Asker::Here).await;
            keys.entry(wanted.server.to_string())
                .and_modify(|both| both.retain(|id, _| valid.contains_key(id)))
                .or_insert(valid);
        }
        keys
    }

    /// Whether one of the keys that are wanted is there by now; nobody is asked.
    pub async fn is_here(&self, wanted: &Wanted) -> bool {
        let known = self.others.known(&wanted.server).await.valid_at(wanted.at_ms);
        wanted.key_ids.iter().any(|id| known.contains_key(id))
    }

    /// What this server, as a notary, has to say of another: its answers with this server's signature beside its own,
    /// valid until `at_ms` if that can be had in time. `asker`: the address of who asks; without, nobody else is asked.
    pub async fn answer_as_notary(
        &self,
        wanted: Wanted,
        asker: Option<IpAddr>,
        patience: Duration,
    ) -> Result<Vec<CanonicalJsonObject>, OwnKeysError> {
        if wanted.server == self.view.server_name {
            return Ok(vec![self.own.signed().await?]);
        }
        if let Some(asker) = asker.map(Asker::Stranger) {
            let lacking = self.lacking(std::slice::from_ref(&wanted), asker).await;
            // What is known is an answer, too.
            self.view.env.timeout(patience, self.fetch_directly(&lacking, asker)).await;
        }
        let answers = self.others.known(&wanted.server).await.answers_with(&wanted.key_ids);
        answers.iter().map(|answer| self.own.countersigned(answer)).collect()
    }

    /// Whether something is lacking of what is wanted, so that others would have to be asked.
    pub async fn lacks(&self, wanted: &Wanted) -> bool {
        if wanted.server == self.view.server_name {
            return false;
        }
        !wanted.is_among(&self.others.known(&wanted.server).await.valid_at(wanted.at_ms))
    }

    /// One key of a server that is valid now, for somebody at the address `asker` who claims to be that server.
    pub async fn current_key(
        &self,
        server: &ServerName,
        key_id: &str,
        asker: IpAddr,
    ) -> Result<Option<Base64>, Busy> {
        let wanted = self.now(server, key_id);
        let asker = self.caller(&wanted, asker).await;
        let mut fetched = self.fetch_lacking(std::slice::from_ref(&wanted), asker, PATIENCE).await;
        for _ in 0..BUSY_TRIES {
            if fetched.is_ok() {
                break;
            }
            self.view.env.clock.sleep(BUSY_PAUSE).await;
            fetched = self.fetch_lacking(std::slice::from_ref(&wanted), asker, PATIENCE).await;
        }
        match self.known(&wanted, asker).await.remove(key_id) {
            Some(key) => Ok(Some(key)),
            None => fetched.map(|()| None),
        }
    }

    /// Who is at this address, if it is whose keys are wanted. Of a server with which a room is shared there are but so many,
    /// and one whose keys expire because of strangers would be shut out.
    async fn caller(&self, wanted: &Wanted, address: IpAddr) -> Asker<'static> {
        let known = self.others.known(&wanted.server).await;
        let fresh = known.newest().is_some_and(|answer| !answer.is_stale(wanted.at_ms));
        if fresh && wanted.is_among(&known.valid_at(wanted.at_ms)) {
            // Nobody will be asked.
            return Asker::Stranger(address);
        }
        match self.view.rooms_of_server(&wanted.server).await {
            Ok(rooms) if !rooms.is_empty() => Asker::Neighbour(address),
            _ => Asker::Stranger(address),
        }
    }

    /// What [`Keyring::current_key`] looks for.
    pub fn now(&self, server: &ServerName, key_id: &str) -> Wanted {
        Wanted { server: server.to_owned(), key_ids: vec![key_id.to_owned()], at_ms: self.view.env.now_ms() }
    }

    async fn fetch_lacking(
        &self,
        wanted: &[Wanted],
        asker: Asker<'_>,
        patience: Duration,
    ) -> Result<(), Busy> {
        let lacking = self.lacking(wanted, asker).await;
        if lacking.is_empty() {
            return Ok(());
        }
        let fetched = self.view.env.timeout(patience, self.fetch(&lacking, asker)).await;
        if fetched.is_none() {
            tracing::info!(servers = lacking.len(), "fetching the keys of servers takes long");
        }
        fetched.unwrap_or(Ok(()))
    }

    async fn fetch(&self, lacking: &[Wanted], asker: Asker<'_>) -> Result<(), Busy> {
        let mut lacking = lacking.to_vec();
        if lacking.len() > NOTARY_FIRST && self.others.has_notaries() {
            self.others.ask_notaries(&lacking, asker).await;
            lacking = self.lacking(&lacking, asker).await;
        }
        let fetched = self.fetch_directly(&lacking, asker).await;
        let lacking = self.lacking(&lacking, asker).await;
        if fetched.is_ok() && !lacking.is_empty() && self.others.has_notaries() {
            let lane = self.others.lanes.enter(asker)?;
            self.others.ask_notaries(&lacking, asker).await;
            drop(lane);
        }
        fetched
    }

    async fn fetch_directly(&self, lacking: &[Wanted], asker: Asker<'_>) -> Result<(), Busy> {
        let servers: BTreeSet<_> = lacking.iter().map(|wanted| &wanted.server).collect();
        let servers = stream::iter(servers.into_iter().cloned().map(Ok));
        let fetch = |server| self.others.clone().fetch(server, asker);
        servers.try_for_each_concurrent(PARALLEL_MAX, fetch).await
    }

    async fn lacking(&self, wanted: &[Wanted], asker: Asker<'_>) -> Vec<Wanted> {
        let mut lacking = Vec::new();
        for wanted in wanted.iter().filter(|wanted| wanted.server != self.view.server_name) {
            if !wanted.is_among(&self.known(wanted, asker).await) {
                lacking.push(wanted.clone());
            }
        }
        lacking
    }

    async fn known(&self, wanted: &Wanted, asker: Asker<'_>) -> PublicKeySet {
        if wanted.server == self.view.server_name {
            return self.own.public_keys(wanted.at_ms).await;
        }
        let known = self.others.clone().lookup(&wanted.server, asker).await;
        let mut keys = known.valid_at(wanted.at_ms);
        if !wanted.key_ids.is_empty() {
            keys.retain(|id, _| wanted.key_ids.contains(id));
        }
        keys
    }
}
