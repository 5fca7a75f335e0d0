//! Records of media: what is known of each, where its bytes lie, and what is to be deleted.
//!
//! Bytes are named by their SHA-256 (a *blob*); media with the same bytes share one. A blob lies in one *object* of the
//! object store, whose name is never used twice, so that deleting one object cannot take away another.

use myelin_core::UserNid;
use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// One `mxc://` URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRecord {
    /// Who uploaded it; `None` for media of other servers and what this server stored for itself.
    pub uploader: Option<UserNid>,
    pub created_ms: u64,
    /// `None`: created, and the content is still to come.
    pub content: Option<MediaContent>,
    /// Until when the content has to come.
    pub expires_ms: Option<u64>,
    pub quarantined: bool,
}
impl Record for MediaRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaContent {
    /// SHA-256 of the bytes, a key of `media_blobs`.
    pub blob: [u8; 32],
    pub size: u64,
    /// As it was given, made safe for a header.
    pub content_type: String,
    pub file_name: Option<String>,
    /// When the content came, or came again from its server.
    pub stored_ms: u64,
}

/// Bytes that one or more media have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// The name of the object in the object store.
    pub object: String,
    pub size: u64,
    /// Rows of `media` that have it; never 0.
    pub references: u64,
    /// Nobody gets these bytes, under whatever name they come.
    pub quarantined: bool,
}
impl Record for BlobRecord {}

/// What a local user has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaUsageRecord {
    pub bytes: u64,
    pub files: u64,
    /// Days since 1970 (UTC), and the bytes of that day.
    pub day: u64,
    pub day_bytes: u64,
    /// URIs created without content so far: makes concurrent creations conflict.
    pub created: u64,
}
impl Record for MediaUsageRecord {}

/// A thumbnail that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailRecord {
    /// `None`: the original is no larger than what is asked for, and serves as it is.
    pub object: Option<String>,
    /// Of the bytes of the thumbnail.
    pub sha256: [u8; 32],
    pub size: u64,
    pub content_type: String,
    pub width: u32,
    pub height: u32,
}
impl Record for ThumbnailRecord {}

/// When media was last asked for: the day since 1970 (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaAccessRecord {
    pub day: u64,
}
impl Record for MediaAccessRecord {}

/// An object that no blob and no thumbnail has (yet, or any more).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnclaimedObjectRecord {
    pub since_ms: u64,
    /// It is being deleted and can no longer be claimed.
    pub doomed: bool,
}
impl Record for UnclaimedObjectRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The administrator's user id, or what did it instead.
    pub by: String,
    pub at_ms: u64,
}
impl Record for QuarantineRecord {}
