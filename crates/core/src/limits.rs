//! Every limit has a name. Sizes are bytes unless the name says otherwise.

/// Complete PDU, canonical JSON with signatures (Client-Server API, "Size limits").
pub const PDU_SIZE_MAX: usize = 65_536;
/// `sender`, `room_id`, `state_key`, `type`, `event_id`.
pub const EVENT_FIELD_SIZE_MAX: usize = 255;
/// Prev events of an event made here, newest first; a PDU received may carry as many (room version rules).
pub const PREV_EVENTS_MAX: usize = 20;
/// Auth events of one PDU.
pub const AUTH_EVENTS_MAX: usize = 10;
/// Body of an ordinary client request.
pub const REQUEST_BODY_SIZE_MAX: usize = 1024 * 1024;
/// Nesting of arrays and objects in any JSON that comes in.
pub const JSON_DEPTH_MAX: usize = 100;
/// `|n|` of integers in canonical JSON: 2^53 - 1.
pub const JSON_INTEGER_MAX: i64 = 9_007_199_254_740_991;
/// A stored filter.
pub const FILTER_SIZE_MAX: usize = 32 * 1024;
/// One account data object.
pub const ACCOUNT_DATA_SIZE_MAX: usize = 256 * 1024;
/// A whole profile (specification: 64 KiB), and the length of a field's name.
pub const PROFILE_SIZE_MAX: usize = 64 * 1024;
pub const PROFILE_KEY_SIZE_MAX: usize = 255;
/// `limit` of /messages, /context, /relations, sync timelines.
pub const PAGE_EVENTS_MAX: usize = 1000;
/// Long-poll timeout of /sync and /events, in milliseconds.
pub const SYNC_TIMEOUT_MS_MAX: u64 = 120_000;
/// Typing notifications, in milliseconds.
pub const TYPING_TIMEOUT_MS_MAX: u64 = 120_000;
/// Transaction ids from clients.
pub const TXN_ID_SIZE_MAX: usize = 255;
/// Passwords: longer ones only cost CPU.
pub const PASSWORD_SIZE_MAX: usize = 512;
pub const DEVICE_ID_SIZE_MAX: usize = 255;
pub const DEVICE_DISPLAY_NAME_SIZE_MAX: usize = 255;
/// Devices of one account.
pub const DEVICES_PER_USER_MAX: usize = 1000;
/// Sliding sync connections of one device whose state is kept: the one that was not used for longest goes first.
pub const SLIDING_CONNECTIONS_PER_DEVICE_MAX: usize = 16;
/// States of one such connection: the one that the client has, and those of answers that it may or may not have got.
pub const SLIDING_STATES_PER_CONNECTION_MAX: usize = 4;
/// Value of one entry in the store; the conformance suite checks 1 MiB values.
pub const STORE_VALUE_SIZE_MAX: usize = 16 * 1024 * 1024;
/// Keys are compared byte by byte in index pages: keep them short.
pub const STORE_KEY_SIZE_MAX: usize = 2048;
