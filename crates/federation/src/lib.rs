//! Everything that this server says to other servers, and what it takes from them (Server-Server API).
//!
//! - [`transport`]: the port to the network. [`client`]: signed requests over it. [`peers`]: who answers and who does not.
//! - [`keys`]: the signing keys of other servers, and this server's own as others see them.
//! - [`inbound`]: transactions from other servers: each PDU to its room's queue, each EDU to [`edus`].
//! - [`sender`]: one queue per destination, derived from the log and a cursor.
//! - [`devices`]: keys and device lists of users elsewhere.
//! - [`handshakes`]: joins, knocks, leaves and invites, from both sides.
//! - [`media`]: files of users elsewhere.
//! - [`policy`]: policy servers are asked.
//! - [`identity`]: identity servers: invites by address, bindings.
//! - [`serve`]: what other servers may read here. [`remote`]: what local users look up elsewhere.
//!
//! The rules of rooms are pure (`myelin-dag`), rooms are written by `myelin-rooms` alone; here is what brings the one to
//! the other over a network. Must not know: sockets, TLS, DNS, the HTTP framework.

pub mod client;
pub mod devices;
pub mod edus;
pub mod handshakes;
pub mod identity;
pub mod inbound;
pub mod keys;
pub mod media;
pub mod peers;
pub mod policy;
pub mod remote;
pub mod sender;
pub mod serve;
pub mod transport;
pub mod uri;
pub mod x_matrix;

use std::sync::Arc;

use myelin_dag::SigningKey;
use myelin_rooms::Rooms;
use myelin_sync::Sync;
use myelin_users::Users;
use myelin_view::View;
use ruma::OwnedServerName;

pub use self::{
    client::{Client, RequestError},
    devices::Devices,
    edus::{EduError, Edus, PresencePolicy},
    handshakes::{
        BoundInvite, HandshakeError, Handshakes, InviteRequest, JoinRequest, PartialInvite, SendJoin,
        WHOLE_STATE_MAX,
    },
    identity::{AddressInvite, Identity, IdentityError, IdentitySetup, IdentityTransport, NoIdentityServers},
    inbound::{Inbound, Reach, Reached},
    keys::{Busy, Keyring, Wanted},
    peers::Peers,
    policy::PolicyClient,
    remote::Remote,
    sender::Sender,
    serve::Serve,
    transport::{Budget, Nowhere, Pieces, Transport, TransportError},
};

/// The way to other servers, on which rooms stand too.
#[derive(Clone)]
pub struct Wire {
    pub peers: Arc<Peers>,
    pub client: Arc<Client>,
    pub policy: Arc<PolicyClient>,
}

impl Wire {
    /// `key` signs requests.
    pub fn new(view: &View, key: Arc<SigningKey>, transport: Arc<dyn Transport>) -> Self {
        let peers = Arc::new(Peers::new(view.env.clone()));
        let client = Arc::new(Client::new(view.server_name.clone(), key, transport, peers.clone()));
        let policy = Arc::new(PolicyClient::new(client.clone(), view.env.clone()));
        Self { peers, client, policy }
    }
}

/// What federation stands on.
pub struct Setup {
    pub view: View,
    pub rooms: Arc<Rooms>,
    pub users: Arc<Users>,
    pub sync: Arc<Sync>,
    /// As other servers are told it.
    pub key: Arc<SigningKey>,
    pub wire: Wire,
    /// Asked for the keys of servers that do not answer (`federation.trusted_key_servers`).
    pub notaries: Vec<OwnedServerName>,
    pub presence: PresencePolicy,
    /// Usually [`WHOLE_STATE_MAX`]: of a larger room members are left out of what joining servers get at once.
    pub whole_state_max: usize,
}

/// The parts of federation in one process; whoever needs one takes that one. Cheap to clone.
#[derive(Clone)]
pub struct Federation {
    pub peers: Arc<Peers>,
    pub client: Arc<Client>,
    pub keys: Arc<Keyring>,
    pub devices: Arc<Devices>,
    pub edus: Arc<Edus>,
    pub inbound: Arc<Inbound>,
    pub handshakes: Arc<Handshakes>,
    pub sender: Arc<Sender>,
    pub serve: Arc<Serve>,
    pub remote: Arc<Remote>,
}

impl Federation {
    /// Complete, but nothing runs yet: see [`Federation::start`].
    pub fn new(setup: Setup) -> Self {
        let Setup { view, rooms, users, sync, key, wire, notaries, presence, whole_state_max } = setup;
        let Wire { peers, client, .. } = wire;
        let keys = Arc::new(Keyring::new(view.clone(), client.clone(), &peers, key, notaries));
        let devices = Arc::new(Devices::new(view.clone(), users.clone(), client.clone()));
        let edus = Arc::new(Edus::new(view.clone(), users, sync, presence));
        let (rooms_in, client_in) = (rooms.clone(), client.clone());
        let inbound =
            Inbound::new(view.clone(), rooms_in, client_in, keys.clone(), peers.clone(), edus.clone());
        let inbound = Arc::new(inbound);
        let (rooms_in, client_in) = (rooms.clone(), client.clone());
        let handshakes = Handshakes::new(view.clone(), rooms_in, client_in, inbound.clone(), whole_state_max);
        let sender = Sender::new(view.clone(), client.clone(), &peers, presence);
        let serve = Arc::new(Serve::new(view.clone(), rooms));
        let remote = Arc::new(Remote::new(view, client.clone(), serve.clone()));
        Self {
            peers,
            client,
            keys,
            devices,
            edus,
            inbound,
            handshakes: Arc::new(handshakes),
            sender,
            serve,
            remote,
        }
    }

    /// Starts what runs by itself.
    pub fn start(&self, env: &myelin_core::Env) {
        use futures::FutureExt;
        env.spawner.spawn("federation sender", self.sender.clone().run().boxed());
        env.spawner.spawn("inbound federation", self.inbound.clone().run().boxed());
        env.spawner.spawn("device lists", self.devices.clone().run().boxed());
        env.spawner.spawn("partial joins", self.handshakes.clone().run().boxed());
    }
}
