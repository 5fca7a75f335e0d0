//! Records of notifications and pushers.

use myelin_core::{EventNid, UserNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// An event of the main timeline that the shared rules notify of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyingRecord {
    pub event: EventNid,
    /// The default rule that matched.
    pub rule_id: String,
    pub highlight: bool,
    pub totals: Totals,
}
impl Record for NotifyingRecord {}

/// Events of a room's main timeline that the shared rules notified of, up to and including one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub notified: u64,
    pub highlighted: u64,
}

/// What was written of a room's notifications so far. Where a number has not moved, nothing of its kind was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifiedSoFar {
    pub main: Totals,
    /// Rows of `notifying_in_threads`.
    pub in_threads: u64,
    /// Rows of `withdrawn`.
    pub withdrawn: u64,
    /// Events with rows of `notified_users`.
    pub targeted: u64,
}

/// An event in a thread that the shared rules notify of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadNotifyingRecord {
    pub event: EventNid,
    /// The root of the thread.
    pub thread: String,
    pub rule_id: String,
    pub highlight: bool,
}
impl Record for ThreadNotifyingRecord {}

/// An event that one user is notified of otherwise than the shared rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifiedUserRecord {
    pub event: EventNid,
    /// The root of the thread; `None` in the main timeline.
    pub thread: Option<String>,
    /// What this adds to the shared counts (-1, 0 or 1).
    pub notified: i8,
    pub highlighted: i8,
    /// The actions of the user's rule as JSON; `None` if the user is not notified.
    pub actions: Option<String>,
    pub highlight: bool,
}
impl Record for NotifiedUserRecord {}

/// An event that was redacted: nobody is notified of it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnRecord {
    /// It is in the totals of the main timeline; whether as a highlight.
    pub counted: Option<bool>,
}
impl Record for WithdrawnRecord {}

/// The user has read everything up to the position of this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarkRecord;
impl Record for ReadMarkRecord {}

/// From here on the shared counts of a room are, or are not, those of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietSpanRecord {
    pub quiet: bool,
    /// Before this place.
    pub totals: Totals,
}
impl Record for QuietSpanRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherRecord {
    pub kind: String,
    pub app_display_name: String,
    pub device_display_name: String,
    pub profile_tag: Option<String>,
    pub lang: String,
    /// JSON object.
    pub data: String,
    /// The device that set it; it goes with it.
    pub device_id: String,
    /// When it was set: who takes it over does not get what came before.
    pub since_ms: u64,
}
impl Record for PusherRecord {}

/// Who has a pusher.
pub type PusherOwner = (String, String, UserNid);
