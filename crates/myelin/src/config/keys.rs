//! Every key there is, declared once: documentation, name, type and default. `docs/configuration.md`, `config default`,
//! the checks and the types all come from here.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use ruma::OwnedServerName;
use url::Url;

use super::{
    declare::{Key, Section, declare, read_key},
    problem::Problem,
    size::{ByteSize, Date},
    tree::Node,
    types::{BusUri, Contact, Listener, LogFilter, MediaUri, RateLimit, RegistrationMode, StoreUri, Terms},
    value::{FromNode, Secret},
};

declare! {
    /// Who this server is and where it listens.
    ["server"] server: Server {
        /// The name after the colon in user ids, `@alice:example.org`. It is part of every event and **cannot be
        /// changed** once the server has been started; a start with another name on the same store is refused.
        name: OwnedServerName = "localhost";
        /// Where to listen and what to answer there. `serves` chooses among `client` (the Client-Server API),
        /// `federation` (keys and other servers), `admin` (the administration endpoints) and `metrics`; left out, it is
        /// `["client", "federation"]`. With `tls` the listener speaks HTTPS with the given PEM files. Port 0 takes a
        /// free port. The health endpoints `/_myelin/health/live` and `/_myelin/health/ready` are on every listener.
        listen: Vec<Listener> = [{ address = "127.0.0.1:8008", serves = ["client", "federation", "admin"] }];
        /// The URL under which clients reach this server, through whatever proxy stands before it. Announced in
        /// `/.well-known/matrix/client` and checked by `doctor`.
        public_base_url: Option<Url> => "https://matrix.example.org";
        /// Reverse proxies whose `X-Forwarded-For` is believed, as addresses. Rate limits by address need it when
        /// every request arrives from the proxy.
        trusted_proxies: Vec<std::net::IpAddr> = ["127.0.0.1", "::1"];
        /// Connections that one address may have open, and one IPv6 network of 64 bits. Addresses of `trusted_proxies` and
        /// of private networks may have any number: everybody may stand behind them. Other servers may open a connection for each
        /// request; those of one that wait here for their turn are up to 1,240.
        connections_per_address: u32 = 1500;
        /// A socket by which commands on this machine (`myelin store`, `myelin federation`) reach the running server; each
        /// server needs one of its own. Not set: `control.sock` in the directory of an embedded store,
        /// `./myelin-data/control.sock` with PostgreSQL, and none with `memory:`.
        control_socket: Option<PathBuf> => "/run/myelin/control.sock";
    }

    /// What `/.well-known/matrix/*` says. Serve these paths on the server name itself.
    ["server.well_known"] well_known: WellKnown {
        /// `m.homeserver` of `/.well-known/matrix/client`. Not set: `server.public_base_url`; neither set: the
        /// document is not served.
        client_base_url: Option<Url> => "https://matrix.example.org";
        /// `m.server` of `/.well-known/matrix/server`, a host and port for other servers.
        server: Option<OwnedServerName> => "matrix.example.org:443";
        /// A page on how to get help, for `/.well-known/matrix/support`.
        support_page: Option<Url> => "https://example.org/help";
        /// Whom to contact, for `/.well-known/matrix/support`. `role` is `m.role.admin`, `m.role.security` or
        /// one of your own; each contact has a `matrix_id`, an `email_address` or both.
        support_contacts: Vec<Contact> = [];
        /// The ed25519 public key (unpadded base64) of a policy server that runs under this server's name, for
        /// `/.well-known/matrix/policy_server`.
        policy_server_key: Option<String> => "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s";
    }

    /// Where everything durable is kept.
    ["store"] store: Store {
        /// `embedded:PATH` keeps the data in that directory, with no other software. `postgres://user:password@host/database`
        /// keeps it in PostgreSQL. `memory:` forgets everything at the end, for tests.
        uri: StoreUri = "embedded:./myelin-data";
    }

    /// How the parts of a larger deployment wake each other.
    ["bus"] bus: Bus {
        /// `mem://` is inside the process. `nats://host:port` is recognised and refused: it is not built yet.
        uri: BusUri = "mem://";
    }

    /// Uploaded files, and files of other servers that users here have looked at.
    ["media"] media: Media {
        /// `file:PATH` keeps the files in that directory; `s3://bucket/prefix` in a bucket behind an S3 API
        /// (`media.s3`). Not set: the directory `media` in that of an embedded store, `./myelin-data/media` with
        /// PostgreSQL, and nothing but memory with `memory:`. Backups of the store do not contain it.
        uri: Option<MediaUri> => "file:/var/lib/myelin/media";
        /// The largest upload. A proxy before the server has a limit of its own.
        upload_size_max: ByteSize = "100MiB";
        /// What one user may have stored in all. Not set: no limit.
        user_size_max: Option<ByteSize> => "10GiB";
        /// What one user may upload in one day (UTC). Not set: no limit.
        user_size_per_day_max: Option<ByteSize> => "1GiB";
        /// URIs that one user may have created without uploading their content yet.
        pending_per_user_max: u32 = 10;
        /// How long the content of a created URI may be in coming.
        unused_expires_after: Duration = "24h";
        /// Serve media without an access token at the paths of specifications before 1.11. Links to media then work for
        /// whoever has them.
        unauthenticated: bool = false;
        /// With `unauthenticated`: only media that was stored before this day is served without an access token.
        unauthenticated_until: Option<Date> => "2026-01-01";
        /// Delete what users here uploaded once nobody has asked for it for so long. Not set: keep it. Nothing tells
        /// whether a message still refers to it.
        local_retention: Option<Duration> => "730d";
        /// Delete files of other servers once nobody has asked for them for so long; they are fetched again when
        /// somebody does. Not set: keep them.
        remote_retention: Option<Duration> => "90d";
        /// The largest image that thumbnails are made of, in pixels.
        thumbnail_pixels_max: u32 = 67108864;
        /// Thumbnails that are made at the same time; each takes a processor, and up to 8 bytes per pixel of its image. Not
        /// set: half as many as there are processors.
        thumbnails_at_once: Option<u32> => 2;
    }

    /// The bucket of `media.uri`. What is not set comes from the environment (`AWS_ENDPOINT`, `AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and whatever else such tools read). Give the bucket a lifecycle rule
    /// that aborts incomplete multipart uploads after a day.
    ["media.s3"] media_s3: MediaS3 {
        /// The URL of the API. Not set: Amazon's of the region.
        endpoint: Option<Url> => "https://s3.example.org";
        /// The region of the bucket.
        region: Option<String> => "eu-central-1";
        /// The public half of the access key.
        access_key_id: Option<Secret> => "AKIA…";
        /// Its secret half.
        secret_access_key: Option<Secret> => "a secret";
        /// A file that holds the secret access key, instead of `secret_access_key`.
        secret_access_key_file: Option<PathBuf> => "/etc/myelin/s3-secret";
        /// Speak plain HTTP to the endpoint. Only inside a network that you trust.
        allow_http: bool = false;
        /// Name the bucket in the host name (`bucket.s3.example.org`) instead of in the path.
        virtual_hosted: bool = false;
    }

    /// Files of other servers, which are fetched when somebody here looks at them, and kept while there is room.
    ["media.remote"] media_remote: MediaRemote {
        /// The largest file that is fetched.
        size_max: ByteSize = "100MiB";
        /// All files of other servers together. Beyond that, those go that nobody has asked for the longest; they are
        /// fetched again when somebody does.
        kept_size_max: ByteSize = "10GiB";
        /// How long one file may take.
        timeout: Duration = "10m";
        /// If not empty, only files of these servers. `*` stands for any characters; a name without a port means the
        /// host with any port.
        allow: Vec<String> = [];
        /// Never files of these servers, even if `allow` has them. Written like `allow`.
        deny: Vec<String> = [];
    }

    /// Previews of URLs that are posted in rooms without encryption.
    ["media.previews"] media_previews: MediaPreviews {
        /// Whether this server makes previews. It then fetches whatever URL somebody posts, from its own address, and
        /// shows what it found. Private, loopback and other special addresses are refused whatever leads there, but what
        /// answers to this server's public address and to nobody else's is known to you alone: so it is off until you say
        /// so.
        enabled: bool = false;
        /// If not empty, only these: hosts, or with `://` whole URLs; `*` stands for any characters.
        allow: Vec<String> = [];
        /// Never these, even if `allow` has them; nor images there, nor what redirects there. Written like `allow`.
        deny: Vec<String> = [];
        /// Ranges of addresses that may be connected to although they are not of the public Internet. Whatever answers
        /// there can then be read by every user.
        allow_addresses: Vec<IpNet> = [];
        /// Ranges of addresses that are never connected to, even if `allow_addresses` has them.
        deny_addresses: Vec<IpNet> = [];
        /// `Accept-Language` of the requests: in which languages pages are wanted.
        accept_language: String = "en";
        /// How much of a page is read; what it says about itself stands at its beginning.
        page_size_max: ByteSize = "1MiB";
        /// Larger images are left out of previews.
        image_size_max: ByteSize = "10MiB";
        /// All images of previews together; the oldest go first. They are deleted after eight days in any case.
        images_size_max: ByteSize = "2GiB";
        /// How long a page or an image may take.
        timeout: Duration = "10s";
        /// After this a page is looked at again.
        fresh_for: Duration = "24h";
    }

    /// Who may create an account.
    ["registration"] registration: Registration {
        /// `token`: whoever holds a registration token (the first start prints one; `myelin registration-token create`
        /// makes more). `closed`: nobody, accounts come from `myelin user create` or the shared secret. `open`: anybody;
        /// on a public address this invites spammers.
        mode: RegistrationMode = "token";
        /// Lets provisioning tools create accounts, administrators among them, through `/_synapse/admin/v1/register`.
        /// Not set: that endpoint is off.
        shared_secret: Option<Secret> => "a long random string";
        /// Whether guests may come in (`kind=guest`).
        guests: bool = false;
        /// Documents that new users must agree to. Each has an `id` (like `privacy_policy`), a `version`, a `name`,
        /// a `url` and a `language` (`en` if left out).
        terms: Vec<Terms> = [];
    }

    /// Sessions, tokens and devices.
    ["accounts"] accounts: Accounts {
        /// How long an access token lives when the client asked for refresh tokens.
        access_token_lifetime: Duration = "5m";
        /// How long an unused refresh token can be redeemed.
        refresh_token_lifetime: Duration = "60d";
        /// How long a token of `POST /login/get_token` can be redeemed.
        login_token_lifetime: Duration = "2m";
        /// Accept `?access_token=` in URLs, as clients of specifications before 1.11 send it. URLs end up in logs of
        /// proxies: turn it off if no such client is in use.
        query_access_tokens: bool = true;
    }

    /// Events that the server sends later on behalf of their users (MSC4140). Calls need them: they end the membership of
    /// whoever is gone.
    ["delayed_events"] delayed_events: DelayedEvents {
        /// The longest delay that may be asked for.
        max_delay: Duration = "24h";
        /// Delayed events that one user may have waiting. 0: none.
        max_per_user: u32 = 100;
    }

    /// How long messages are kept. Rooms say it for themselves (`m.room.retention`); here are the limits to that. What has
    /// expired is hidden at once and deleted soon; state is never deleted. A day is `1d`; not set means for ever.
    ["retention"] retention: Retention {
        /// Of messages in rooms that do not say it.
        default_lifetime: Option<Duration> => "365d";
        /// The least that a room can ask for; rooms that ask for less get this.
        shortest_lifetime: Option<Duration> => "1d";
        /// The most that a room can ask for; rooms that ask for more, or for nothing, get this.
        longest_lifetime: Option<Duration> => "1825d";
    }

    /// What the server says to its users, in a room of its own for each (`POST /_synapse/admin/v1/send_server_notice`).
    ["server_notices"] server_notices: ServerNotices {
        /// The localpart of the user by whom the server speaks. The account is made with the first notice.
        localpart: String = "server";
        /// How these rooms are called.
        room_name: String = "Server notices";
        /// Their topic; empty for none.
        room_topic: String = "";
    }

    /// What calls need besides this server.
    ["calls"] calls: Calls {
        /// TURN servers for calls between two (`turn:` and `turns:` URIs). Empty: clients are told that there is none.
        turn_uris: Vec<String> = [];
        /// The secret that the TURN server shares (`static-auth-secret` of coturn): every user gets credentials that
        /// hold for `turn_lifetime`.
        turn_secret: Option<Secret> => "a long random string";
        /// Credentials that all users share, for TURN servers without such a secret.
        turn_username: Option<String> => "myelin";
        /// The password that goes with `turn_username`.
        turn_password: Option<Secret> => "a long random string";
        /// For how long clients may use what they were given.
        turn_lifetime: Duration = "1d";
        /// Services that admit users to LiveKit media servers, for calls of many (MatrixRTC). Announced to clients in the
        /// order of preference.
        livekit_services: Vec<Url> = [];
    }

    /// How often things may be done, by user and by address. Whoever exceeds a limit gets `429 M_LIMIT_EXCEEDED` and is
    /// told when to come back. A class is `{ per_second, burst }`: `burst` requests at once, then `per_second`.
    ["rate_limits"] rate_limits: RateLimits {
        /// Turn off only for tests and benchmarks.
        enabled: bool = true;
        /// Log-ins and refreshes, by address and by account.
        login: RateLimit = { per_second = 0.2, burst = 10 };
        /// Wrong passwords, by account: guessing is slower than signing in.
        failed_login: RateLimit = { per_second = 0.17, burst = 5 };
        /// New accounts, by address.
        registration: RateLimit = { per_second = 0.2, burst = 10 };
        /// Checks of user names and registration tokens, by address.
        registration_check: RateLimit = { per_second = 0.5, burst = 20 };
        /// Messages, state events, reactions and redactions, by user.
        message: RateLimit = { per_second = 10, burst = 100 };
        /// Joins and knocks, by user.
        join: RateLimit = { per_second = 0.5, burst = 30 };
        /// Invites, by user.
        invite: RateLimit = { per_second = 0.5, burst = 30 };
        /// New rooms and room upgrades, by user.
        room_creation: RateLimit = { per_second = 0.1, burst = 20 };
        /// Display name, avatar and profile fields, by user: each change goes to every room of the user.
        profile: RateLimit = { per_second = 0.2, burst = 20 };
        /// Reports of events, rooms and users, by user.
        report: RateLimit = { per_second = 1, burst = 5 };
        /// Receipts, typing, presence, account data, devices and other small changes, by user.
        write: RateLimit = { per_second = 20, burst = 200 };
        /// Whatever only reads, by user.
        read: RateLimit = { per_second = 50, burst = 500 };
        /// Searches of the user directory and the room directory, by user.
        search: RateLimit = { per_second = 1, burst = 100 };
        /// Previews of URLs, by user: each may fetch a page and its image.
        url_preview: RateLimit = { per_second = 1, burst = 50 };
        /// Looking for the keys of servers that are not known yet, by the address of whoever claims to be one or asks
        /// about it. Behind a reverse proxy `server.trusted_proxies` must be set, or all count together.
        key_fetch: RateLimit = { per_second = 10, burst = 500 };
        /// Whatever another server asks for, by server. Transactions have limits of their own.
        server_request: RateLimit = { per_second = 100, burst = 3000 };
        /// Joins, knocks and leaves of another server's users by way of this server, by server.
        server_join: RateLimit = { per_second = 5, burst = 300 };
        /// Invites from another server, by server.
        server_invite: RateLimit = { per_second = 2, burst = 300 };
        /// Invites from one server to one user.
        invite_received: RateLimit = { per_second = 0.05, burst = 30 };
        /// Invites from all other servers together to one user.
        user_invited: RateLimit = { per_second = 0.1, burst = 100 };
    }

    /// Other servers.
    ["federation"] federation: Federation {
        /// Whether to talk to other servers at all, in either direction.
        enabled: bool = true;
        /// If not empty, only these servers, in either direction. `*` stands for any characters; a name without a port
        /// means the host with any port.
        allow: Vec<String> = [];
        /// Never these servers, in either direction, even if `allow` has them. Written like `allow`.
        deny: Vec<String> = [];
        /// Ranges of addresses that may be connected to although they are not of the public Internet. Without it,
        /// private, loopback, link-local and other special ranges are refused, also when DNS, a delegation or a
        /// redirect leads there: nobody outside can make this server talk to machines that only it can reach. Servers
        /// in your own network need their range here.
        allow_addresses: Vec<IpNet> = [];
        /// Ranges of addresses that are never connected to, even if `allow_addresses` has them.
        deny_addresses: Vec<IpNet> = [];
        /// PEM certificates of authorities to trust besides the system's.
        ca_file: Option<PathBuf> => "/etc/myelin/ca.pem";
        /// Check the certificates of other servers. Never turn this off outside a test network.
        verify_certificates: bool = true;
        /// Servers that are asked for the signing keys of servers that cannot be asked themselves. What they say is
        /// believed: without any, events of servers that are gone for good cannot be verified.
        notaries: Vec<OwnedServerName> = [];
        /// Show the presence of other servers' users.
        incoming_presence: bool = true;
        /// Tell other servers the presence of users here.
        outgoing_presence: bool = true;
    }

    /// Mail to users: proof that an e-mail address is theirs, forgotten passwords. Without it this server knows nobody by
    /// an address. There is no gateway for SMS: phone numbers are refused with `M_THREEPID_DENIED`.
    ["mail"] mail: Mail {
        /// The mail server: `smtps://user:password@host` (TLS from the start), `smtp://host?tls=required` (STARTTLS) or
        /// `smtp://host`, each with a port if it is not the usual one. Not set: no mail. The links in mails begin with
        /// `server.public_base_url`, which must be set then.
        smtp_url: Option<Secret> => "smtps://myelin:password@mail.example.org";
        /// Whom mail comes from.
        from: Option<String> => "Myelin <noreply@example.org>";
        /// Whether a new account needs an e-mail address.
        required: bool = false;
        /// Hosts to which clients may have somebody sent on after a link in a mail was followed (`next_link`). Others are
        /// left out: mail of this server leads nowhere else.
        next_link_hosts: Vec<String> = [];
    }

    /// Identity servers, which know whose an e-mail address or phone number is.
    ["identity"] identity: IdentityServers {
        /// The identity servers that users may bind addresses at and invite by. They are told addresses, and what they
        /// sign lets people into rooms. None: requests that need one are refused with `M_SERVER_NOT_TRUSTED`.
        trusted_servers: Vec<OwnedServerName> = [];
    }

    /// Search of messages and of users.
    ["search"] search: Search {
        /// A directory for the search index, in which it makes one of its own. Not set: beside an embedded store; with
        /// PostgreSQL in memory, made anew at every start. Each process needs its own. It can be deleted at any time.
        path: Option<PathBuf> => "/var/lib/myelin/search";
        /// Let the user directory find every local account, not only those who share a room with the searcher or are in
        /// a public one.
        all_local_users: bool = false;
    }

    /// What is logged, to standard error.
    ["log"] log: Log {
        /// A level (`error`, `warn`, `info`, `debug`, `trace`), or directives per module, like
        /// `info,myelin_api=debug`.
        filter: LogFilter = "info";
        /// One JSON object per line instead of text.
        json: bool = false;
    }
}

impl FromNode for std::net::IpAddr {
    const EXPECTS: &'static str = "an IP address";

    fn from_node(node: &Node) -> Result<Self, Problem> {
        let address = super::value::text::<Self>(node)?;
        address
            .parse()
            .map_err(|_| Problem::new(&node.origin, format!("'{address}' is not {}", Self::EXPECTS)))
    }
}

impl super::value::List for std::net::IpAddr {
    const LIST_EXPECTS: &'static str = "a list of IP addresses";
}

impl FromNode for IpNet {
    const EXPECTS: &'static str = "a range of IP addresses, like \"10.0.0.0/8\"";

    /// A bare address is the range that holds it alone.
    fn from_node(node: &Node) -> Result<Self, Problem> {
        let range = super::value::text::<Self>(node)?;
        let parsed = range.parse().or_else(|_| range.parse::<std::net::IpAddr>().map(Self::from));
        parsed.map_err(|_| Problem::new(&node.origin, format!("'{range}' is not {}", Self::EXPECTS)))
    }
}

impl super::value::List for IpNet {
    const LIST_EXPECTS: &'static str = "a list of ranges of IP addresses";
}

impl super::value::List for Url {
    const LIST_EXPECTS: &'static str = "a list of http(s) URLs";
}

impl super::value::List for OwnedServerName {
    const LIST_EXPECTS: &'static str = "a list of server names";
}
