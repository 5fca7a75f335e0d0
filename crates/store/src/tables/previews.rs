//! Records of previews of URLs.

use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// A page as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlPreviewRecord {
    pub url: String,
    /// OpenGraph properties, an object.
    pub json: String,
}
impl Record for UrlPreviewRecord {}

/// An image that was stored for a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewImageRecord {
    pub size: u64,
}
impl Record for PreviewImageRecord {}
