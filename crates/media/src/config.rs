//! What the media repository needs to be told. Plain structs; the binary fills them.

use std::time::Duration;

use crate::{remote, thumbnails};

#[derive(Clone, Debug)]
pub struct Config {
    /// One upload, bytes (`m.upload.size`).
    pub upload_size_max: u64,
    /// All that a user has stored, bytes.
    pub user_bytes_max: Option<u64>,
    /// What a user uploads on one day (UTC), bytes.
    pub user_bytes_per_day_max: Option<u64>,
    /// URIs of a user without content.
    pub pending_per_user_max: usize,
    /// How long the content of a created URI may be in coming.
    pub unused_expires_after: Duration,
    pub thumbnails: thumbnails::Config,
    pub retention: Retention,
    pub remote: remote::Config,
}

/// How long media is kept that nobody asks for; `None`: for ever.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    pub local: Option<Duration>,
    /// Media of other servers, which can be fetched again.
    pub remote: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upload_size_max: 100 * 1024 * 1024,
            user_bytes_max: None,
            user_bytes_per_day_max: None,
            pending_per_user_max: 10,
            unused_expires_after: Duration::from_secs(24 * 60 * 60),
            thumbnails: thumbnails::Config::default(),
            retention: Retention::default(),
            remote: remote::Config::default(),
        }
    }
}
