//! The room versions that are understood, and their rules (specification: "Room versions").

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// Room versions that rooms may be created and joined in.
pub static SUPPORTED: &[RoomVersionId] = &[
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The version of new rooms when the client does not choose.
pub const DEFAULT: RoomVersionId = RoomVersionId::V12;

/// `None` if the version is not supported here.
pub fn rules(version: &RoomVersionId) -> Option<RoomVersionRules> {
    if SUPPORTED.contains(version) { version.rules() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_versions_have_rules() {
        for version in SUPPORTED {
            assert!(rules(version).is_some(), "{version}");
        }
        for version in ["0", "13", "org.example.42"] {
            assert!(rules(&version.try_into().unwrap()).is_none(), "{version}");
        }
        assert!(SUPPORTED.contains(&DEFAULT));
    }
}
