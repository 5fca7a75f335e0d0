//! Records of dehydrated devices (MSC3814).

use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// The device itself is in `devices` and its keys where those of all devices are; this says that it sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DehydratedDeviceRecord {
    pub device_id: String,
    /// JSON: what brings it to life again, encrypted by its owner.
    pub device_data: String,
}
impl Record for DehydratedDeviceRecord {}
