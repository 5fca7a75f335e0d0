//! Every table: its key, its value, and what it is for.
//!
//! Rows refer to each other by numeric id. "Blind" in a comment means: written without reading first, so that
//! commits of one room can be pipelined.

mod dehydrated;
mod delayed;
mod devices;
mod federation;
mod inbound;
mod keys;
mod media;
mod notices;
mod previews;
mod push;
mod retention;
mod rooms;
mod sliding;
mod threepids;
mod users;

use std::marker::PhantomData;

use myelin_core::{EventNid, Position, RoomNid, StateKeyNid, TimelineOrder, UserNid};
use serde::{Deserialize, Serialize};

pub use dehydrated::*;
pub use delayed::*;
pub use devices::*;
pub use federation::*;
pub use inbound::*;
pub use keys::*;
pub use media::*;
pub use notices::*;
pub use previews::*;
pub use push::*;
pub use retention::*;
pub use rooms::*;
pub use sliding::*;
pub use threepids::*;
pub use users::*;

use crate::{
    codec::{AtPosition, Record},
    log::LogEntry,
};

/// The format of the whole store, in [`META`] under [`META_FORMAT`]. Raised with a migration.
pub const FORMAT: u32 = 1;
pub const META_FORMAT: &str = "format";
pub const META_SERVER_NAME: &str = "server_name";
pub const META_SIGNING_KEY: &str = "signing_key";

/// Number of a table in every backend. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);

/// A table with keys `K` and values `V`.
pub struct Table<K, V> {
    pub id: TableId,
    pub name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

/// A table without its types, for backends and maintenance.
#[derive(Clone, Copy, Debug)]
pub struct TableInfo {
    pub id: TableId,
    pub name: &'static str,
    /// Checks that a row decodes.
    pub check: fn(&[u8], &[u8]) -> Result<(), String>,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident = $id:literal $name:literal: $key:ty => $value:ty;)*) => {
        $($(#[$doc])* pub const $constant: Table<$key, $value> =
            Table { id: TableId($id), name: $name, types: PhantomData };)*

        /// Every table, in the order of ids.
        pub const ALL: &[TableInfo] = &[$(TableInfo {
            id: TableId($id),
            name: $name,
            check: check_row::<$key, $value>,
        }),*];
    };
}

tables! {
    // The store itself.
    /// Format version, server name, and other facts about the store as a whole. UTF-8 or raw bytes.
    META = 1 "meta": String => Vec<u8>;
    /// Next free number per [`crate::NidKind`].
    NID_COUNTERS = 2 "nid_counters": u8 => Counter;
    /// The commit log. Written by the store for every batch, read by everything that follows changes.
    LOG = 3 "log": Position => LogEntry;
    /// Durable cursors of background log readers, by name.
    LOG_CURSORS = 4 "log_cursors": String => Cursor;

    // Interned strings.
    USER_NIDS = 10 "user_nids": String => UserNid;
    USER_IDS = 11 "user_ids": UserNid => Name;
    ROOM_NIDS = 12 "room_nids": String => RoomNid;
    /// What never changes about a room.
    ROOMS = 13 "rooms": RoomNid => RoomRecord;
    EVENT_NIDS = 14 "event_nids": String => EventNid;
    /// (type, state_key) -> nid.
    STATE_KEY_NIDS = 15 "state_key_nids": (String, String) => StateKeyNid;
    STATE_KEYS = 16 "state_keys": StateKeyNid => StateKeyRecord;

    // Events and state.
    /// Every PDU held, with what this server decided about it. The position is that of the commit that appended it to
    /// the timeline; a later rewrite (redaction) keeps it.
    EVENTS = 20 "events": EventNid => AtPosition<EventRecord>;
    /// Accepted events in the order in which clients see them.
    TIMELINE = 21 "timeline": (RoomNid, TimelineOrder) => EventNid;
    /// The compare-and-swap point of a room.
    ROOM_HEADS = 22 "room_heads": RoomNid => RoomHead;
    /// Nodes of persistent state trees by content hash (`myelin_dag::state_tree` owns the bytes).
    STATE_NODES = 23 "state_nodes": [u8; 16] => Vec<u8>;
    /// Auth chain of a state event, as a roaring treemap of event nids (`myelin_dag::auth_chain` owns the bytes).
    AUTH_CHAINS = 24 "auth_chains": EventNid => Vec<u8>;
    /// Events that relate to an event: (room, target event id, order of the relating event). Blind.
    RELATIONS = 25 "relations": (RoomNid, String, TimelineOrder) => RelationRecord;
    /// Thread roots, with the position of the newest event in the thread. Blind.
    THREAD_ROOTS = 26 "thread_roots": (RoomNid, String) => AtPosition<ThreadRootRecord>;
    /// Results of sends: (user, device id, scope, transaction id); scope is the endpoint and what its path names. Blind.
    TRANSACTIONS = 27 "transactions": (UserNid, String, String, String) => TransactionRecord;

    /// Root of the room's current state from this order on; a row for every change of the current state. The state
    /// that clients had at an earlier position is the row at or before it. Blind.
    CURRENT_STATES = 28 "current_states": (RoomNid, TimelineOrder) => CurrentStateRecord;

    // Membership.
    /// Current membership of everybody a room has heard of.
    MEMBERS = 30 "members": (RoomNid, UserNid) => AtPosition<MemberRecord>;
    /// The same seen from the user: local users only.
    USER_ROOMS = 31 "user_rooms": (UserNid, RoomNid) => AtPosition<UserRoomRecord>;
    /// What is targeted at one local user, in commit order: own memberships and own account data. A row of account data
    /// is deleted when the same data is written again, so the table is bounded by what exists.
    USER_STREAM = 32 "user_stream": (UserNid, Position) => UserChange;
    /// The rooms that another server takes part in, or did: (server name, room), with the position of the last change.
    SERVER_ROOMS = 33 "server_rooms": (String, RoomNid) => AtPosition<ServerRoomRecord>;

    // Directory.
    ALIASES = 35 "aliases": String => AliasRecord;
    ROOM_ALIASES = 36 "room_aliases": (RoomNid, String) => ();
    /// Rooms published in the room directory.
    PUBLIC_ROOMS = 37 "public_rooms": RoomNid => ();

    // Receipts.
    /// (room, user, receipt type, thread id or "" for none).
    RECEIPTS = 40 "receipts": (RoomNid, UserNid, String, String) => AtPosition<ReceiptRecord>;
    /// The same by position, for deltas. The row of a replaced receipt is deleted.
    RECEIPTS_BY_POSITION = 41 "receipts_by_position": (RoomNid, Position) => ReceiptRef;

    // Rooms that this server does not, or not fully, take part in.
    /// State by which a local user recognises a room that only an invite or a knock is known of. Gone when the room is
    /// joined.
    STRIPPED_STATES = 42 "stripped_states": (RoomNid, UserNid) => StrippedStateRecord;
    /// Rooms that were joined without all of their state, which is still to come.
    PARTIAL_ROOMS = 43 "partial_rooms": RoomNid => PartialRoomRecord;
    /// The live events that do not join on to what stands before them in the timeline, because this server was away.
    GAPS = 44 "gaps": (RoomNid, TimelineOrder) => EventNid;
    /// What a partially joined room lacks for want of keys, as it was given: (event id, room).
    LEFT_OUT = 45 "left_out": (String, RoomNid) => LeftOutRecord;

    // What is received from other servers.
    /// Redactions that came before what they redact, by its room and event id.
    EARLY_REDACTIONS = 46 "early_redactions": (RoomNid, String) => EarlyRedactionsRecord;
    /// State resets: changes of the current state that no accepted event asked for, in the order of their finding.
    STATE_RESETS = 47 "state_resets": (u64, String) => StateResetRecord;

    // Accounts.
    ACCOUNTS = 50 "accounts": UserNid => AccountRecord;
    DEVICES = 51 "devices": (UserNid, String) => DeviceRecord;
    /// SHA-256 of an access token. Tokens themselves are never stored.
    ACCESS_TOKENS = 52 "access_tokens": [u8; 32] => AccessTokenRecord;
    /// SHA-256 of a refresh token.
    REFRESH_TOKENS = 53 "refresh_tokens": [u8; 32] => RefreshTokenRecord;
    /// Token hashes by device, to revoke them: (user, device id, hash).
    DEVICE_TOKENS = 54 "device_tokens": (UserNid, String, [u8; 32]) => DeviceTokenKind;
    /// A login token (`m.login.token`): its expiry in milliseconds (8 bytes) and the first 24 bytes of its SHA-256, so
    /// that what expired first comes first.
    LOGIN_TOKENS = 55 "login_tokens": [u8; 32] => LoginTokenRecord;
    /// An OpenID token, keyed like a login token.
    OPENID_TOKENS = 56 "openid_tokens": [u8; 32] => OpenIdTokenRecord;
    REGISTRATION_TOKENS = 57 "registration_tokens": String => RegistrationTokenRecord;
    /// User-interactive authentication sessions; ids begin with their expiry, so that what expired first comes first.
    UIA_SESSIONS = 58 "uia_sessions": String => UiaSessionRecord;
    /// (user, field) -> JSON value.
    PROFILES = 59 "profiles": (UserNid, String) => ProfileFieldRecord;
    /// (user, room or GLOBAL, type).
    ACCOUNT_DATA = 60 "account_data": (UserNid, RoomNid, String) => AtPosition<AccountDataRecord>;
    FILTERS = 61 "filters": (UserNid, u64) => FilterRecord;
    /// Reports of events, rooms and users, by number.
    REPORTS = 62 "reports": u64 => ReportRecord;
    /// Deactivated users who still have rooms to leave.
    DEPARTURES = 63 "departures": UserNid => ();
    /// Users who were deactivated with `erase: true`.
    ERASED_USERS = 64 "erased_users": UserNid => ();
    /// Backups of room keys: (user, version).
    KEY_BACKUPS = 65 "key_backups": (UserNid, u64) => KeyBackupRecord;
    /// (user, version, room id, session id).
    BACKED_UP_KEYS = 66 "backed_up_keys": (UserNid, u64, String, String) => BackedUpKeyRecord;
    /// The dehydrated device of a user.
    DEHYDRATED_DEVICES = 68 "dehydrated_devices": UserNid => DehydratedDeviceRecord;

    // End-to-end encryption.
    /// Identity keys by user and device id: of local devices, and of remote ones as far as `device_lists` knows their user.
    DEVICE_KEYS = 70 "device_keys": (UserNid, String) => DeviceKeysRecord;
    /// Unclaimed one-time keys of local devices: (user, device id, algorithm, upload, `<algorithm>:<key id>`).
    ONE_TIME_KEYS = 71 "one_time_keys": (UserNid, String, String, Position, String) => OneTimeKeyRecord;
    /// The stock of one-time and fallback keys of a local device.
    KEY_STOCKS = 72 "key_stocks": (UserNid, String) => KeyStockRecord;
    /// (user, [`CrossSigningUsage`]).
    CROSS_SIGNING_KEYS = 73 "cross_signing_keys": (UserNid, u8) => CrossSigningKeyRecord;
    /// Signatures that a local user made on the master key of somebody else, shown to nobody but them: (signer, owner,
    /// public key that is signed, `ed25519:<public key that signs>`).
    KEY_SIGNATURES = 74 "key_signatures": (UserNid, UserNid, String, String) => KeySignatureRecord;
    /// Inboxes of local devices, in order of arrival.
    TO_DEVICE = 75 "to_device": (UserNid, String, Position) => ToDeviceRecord;
    /// The device list of a user, with the position of its last change.
    DEVICE_LISTS = 76 "device_lists": UserNid => AtPosition<DeviceListRecord>;
    /// The same by position, for deltas: one row per user.
    DEVICE_LISTS_BY_POSITION = 77 "device_lists_by_position": Position => ChangedDeviceList;
    /// Remote users whose device lists are to be fetched.
    STALE_DEVICE_LISTS = 78 "stale_device_lists": UserNid => StaleDeviceListRecord;
    /// To-device EDUs that came: (week since 1970, origin, message id).
    RECEIVED_TO_DEVICE = 79 "received_to_device": (u64, String, String) => ();
    // Other servers.
    /// EDUs that have to arrive (to-device messages, device lists), by the server that they are for, in order. Written
    /// through [`crate::outbox::put`], deleted when the server has answered.
    OUTBOX = 80 "outbox": (String, Position) => OutboxRecord;
    /// Servers that have not got everything; a server that is up to date has no row.
    DESTINATIONS = 81 "destinations": String => DestinationRecord;

    // Keys of servers.
    /// What other servers said of their signing keys, by server name.
    SERVER_KEYS = 85 "server_keys": String => ServerKeysRecord;
    /// The signing keys that this server used before, by key id. Never the secret half.
    OLD_SIGNING_KEYS = 86 "old_signing_keys": String => OldSigningKeyRecord;

    // What is received from other servers and waits.
    /// PDUs that were acknowledged and wait for their room: (room, event id, the server that brought it). Deleted once they
    /// are dealt with.
    INBOUND_PDUS = 90 "inbound_pdus": (RoomNid, String, String) => InboundPduRecord;
    /// The newest transaction of a server and the answer it got.
    INBOUND_TRANSACTIONS = 91 "inbound_transactions": String => InboundTransactionRecord;
    /// PDUs of rooms that are being joined, acknowledged before that is done: (room id, number in the order of arrival).
    ARRIVING_PDUS = 92 "arriving_pdus": (String, u64) => ArrivingPduRecord;

    // Push.
    /// What the shared push rules notify of, by room; nothing is written per recipient. Written with the event.
    NOTIFYING = 100 "notifying": (RoomNid, TimelineOrder) => NotifyingRecord;
    /// The same in threads.
    NOTIFYING_IN_THREADS = 101 "notifying_in_threads": (RoomNid, TimelineOrder) => ThreadNotifyingRecord;
    /// Where one user's rules decide otherwise: mentions, own rules, invites.
    NOTIFIED_USERS = 102 "notified_users": (RoomNid, UserNid, TimelineOrder) => NotifiedUserRecord;
    /// Redacted events.
    WITHDRAWN = 103 "withdrawn": (RoomNid, TimelineOrder) => WithdrawnRecord;
    /// What a user has read without a receipt: (room, user, thread). The thread is "" where the user joined, "main" or
    /// the root where they spoke last. Blind.
    READ_MARKS = 104 "read_marks": (RoomNid, UserNid, String) => AtPosition<ReadMarkRecord>;
    /// Where a user muted a room, or stopped to.
    QUIET_SPANS = 105 "quiet_spans": (RoomNid, UserNid, TimelineOrder) => QuietSpanRecord;
    /// Users who have push rules of their own or ignore somebody, or did. Blind.
    PUSH_RULE_OWNERS = 106 "push_rule_owners": UserNid => ();
    /// (user, app id, pushkey).
    PUSHERS = 107 "pushers": (UserNid, String, String) => PusherRecord;
    /// The same by app id and pushkey.
    PUSHER_OWNERS = 108 "pusher_owners": PusherOwner => ();

    // Media: (server name, media id) is an `mxc://` URI.
    MEDIA = 110 "media": (String, String) => MediaRecord;
    /// By the SHA-256 of the bytes.
    MEDIA_BLOBS = 111 "media_blobs": [u8; 32] => BlobRecord;
    /// Media of a local user: (uploader, created at in milliseconds, media id).
    USER_MEDIA = 112 "user_media": (UserNid, u64, String) => ();
    MEDIA_USAGE = 113 "media_usage": UserNid => MediaUsageRecord;
    /// URIs whose content is still to come: (creator, expiry in milliseconds, media id).
    PENDING_MEDIA = 114 "pending_media": (UserNid, u64, String) => ();
    /// (blob, width, height, method and kind).
    THUMBNAILS = 115 "thumbnails": ([u8; 32], u64, u64, u8) => ThumbnailRecord;
    /// Day of the last access, written at most once a day.
    MEDIA_ACCESS = 116 "media_access": (String, String) => MediaAccessRecord;
    /// The same by day, so that what nobody asked for the longest comes first: (day, server name, media id).
    MEDIA_BY_ACCESS = 117 "media_by_access": (u64, String, String) => ();
    /// Objects that are deleted unless somebody claims them: an upload that is under way, or what nothing refers to
    /// any more. By object name.
    UNCLAIMED_OBJECTS = 118 "unclaimed_objects": String => UnclaimedObjectRecord;
    QUARANTINED_MEDIA = 119 "quarantined_media": (String, String) => QuarantineRecord;

    // Previews of URLs.
    /// Versions of a page: (SHA-256 of the URL, made at in milliseconds).
    URL_PREVIEWS = 120 "url_previews": ([u8; 32], u64) => UrlPreviewRecord;
    /// The same, oldest first.
    URL_PREVIEWS_BY_AGE = 121 "url_previews_by_age": (u64, [u8; 32]) => ();
    /// Images of previews: (to be deleted at in milliseconds, media id), durable before the media is there.
    PREVIEW_IMAGES = 122 "preview_images": (u64, String) => PreviewImageRecord;

    // Third-party identifiers: addresses in their canonical form.
    /// (user, medium, address).
    THREEPIDS = 130 "threepids": (UserNid, String, String) => ThreepidRecord;
    /// Whose an address is: (medium, address). One user at a time.
    THREEPID_OWNERS = 131 "threepid_owners": (String, String) => UserNid;
    /// Session ids begin with their expiry, so that what expired first comes first.
    VALIDATION_SESSIONS = 132 "validation_sessions": String => ValidationSessionRecord;
    /// (medium, address, client secret).
    VALIDATION_CLIENTS = 133 "validation_clients": (String, String, String) => SessionRef;
    /// Identity servers that a user's address was bound at through this server: (user, medium, address, identity server).
    THREEPID_BINDS = 134 "threepid_binds": (UserNid, String, String, String) => ();

    // Events that are sent later, or hold for a while.
    /// Delayed events by delay id.
    DELAYED_EVENTS = 140 "delayed_events": String => DelayedEventRecord;
    /// The same by user.
    USER_DELAYED_EVENTS = 141 "user_delayed_events": (UserNid, String) => DelayedEventRef;
    /// The same by when something is to be done: to be sent, or, once that is decided, to be forgotten.
    DUE_DELAYED_EVENTS = 142 "due_delayed_events": (u64, String) => ();
    /// Sticky events by when they end (milliseconds since 1970), with the position at which they came.
    STICKY_EVENTS = 143 "sticky_events": (u64, EventNid) => AtPosition<StickyEventRecord>;
    /// The room in which the server speaks to a user.
    NOTICE_ROOMS = 144 "notice_rooms": UserNid => NoticeRoomRecord;
    /// Rooms from which messages were purged because their time was over.
    PURGED = 145 "purged": RoomNid => PurgedRecord;


    // Sliding sync.
    /// What the connections of a device have been told: (user, device id, connection id, number of the state).
    SLIDING_CONNECTIONS = 160 "sliding_connections": (UserNid, String, String, u64) => SlidingConnectionRecord;
    /// Threads that a local user subscribed to, or no longer is: (user, room, event id of the root).
    THREAD_SUBSCRIPTIONS = 161 "thread_subscriptions": (UserNid, RoomNid, String) => AtPosition<ThreadSubscriptionRecord>;
    /// The same by position, for deltas: one row per thread.
    THREAD_SUBSCRIPTIONS_BY_POSITION = 162 "thread_subscriptions_by_position": (UserNid, Position) => ThreadRef;
}

/// The name of a table, for messages.
pub fn name_of(id: TableId) -> &'static str {
    ALL.iter().find(|t| t.id == id).map_or("unknown", |t| t.name)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub next: u64,
}
impl Record for Counter {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to here has taken effect.
    pub position: Position,
}
impl Record for Cursor {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(pub String);
impl Record for Name {}

fn check_row<K: crate::codec::KeyPart, V: crate::codec::Value>(
    key: &[u8],
    value: &[u8],
) -> Result<(), String> {
    let mut rest = key;
    K::decode(&mut rest).map_err(|e| format!("key: {e}"))?;
    if !rest.is_empty() {
        return Err(format!("key: {} bytes too many", rest.len()));
    }
    V::decode(value).map_err(|e| format!("value: {e}")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_ids_and_names_are_unique_and_ordered() {
        assert!(ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|t| t.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
