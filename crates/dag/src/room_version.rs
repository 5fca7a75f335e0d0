//! The room versions that are understood, and their rules (specification: "Room versions").

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};
use serde::Deserialize;
use serde_json::value::RawValue;

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

/// The version that a create event gives its room; `None` if it is not one that is supported here.
pub fn of_create(content: &RawValue) -> Option<RoomVersionId> {
    #[derive(Deserialize)]
    struct Content {
        /// Rooms from before there were versions do not say.
        #[serde(default = "first")]
        room_version: RoomVersionId,
    }
    fn first() -> RoomVersionId {
        RoomVersionId::V1
    }
    let content: Content = serde_json::from_str(content.get()).ok()?;
    SUPPORTED.contains(&content.room_version).then_some(content.room_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_events_give_the_version() {
        for (content, version) in [
            (r#"{"room_version":"11"}"#, Some(RoomVersionId::V11)),
            ("{}", Some(RoomVersionId::V1)),
            (r#"{"room_version":"13"}"#, None),
            (r#"{"room_version":11}"#, None),
            (r#"{"room_version":null}"#, None),
            ("1", None),
        ] {
            let content = RawValue::from_string(content.to_owned()).unwrap();
            assert_eq!(of_create(&content), version, "{content}");
        }
    }

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
