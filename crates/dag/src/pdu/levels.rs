//! Power levels of old rooms, as the authorisation rules read them (room versions 1 to 9, "Deprecated event content
//! schemas"). Clients and hashes see what was sent.

use ruma::{events::TimelineEventType, room_version_rules::RoomVersionRules};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// Levels are compared, not counted: whatever is beyond this is as good as this.
const LEVEL_MAX: i64 = myelin_core::limits::JSON_INTEGER_MAX;

/// The content with fractions cut off and levels brought into range; `None` if it is the same.
pub fn readable(
    event_type: &TimelineEventType,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Option<Box<RawValue>> {
    if *event_type != TimelineEventType::RoomPowerLevels || rules.authorization.integer_power_levels {
        return None;
    }
    let mut content: Value = serde_json::from_str(content.get()).ok()?;
    let mut changed = false;
    for value in content.as_object_mut()?.values_mut() {
        match value.as_object_mut() {
            Some(levels) => levels.values_mut().for_each(|level| changed |= repair(level)),
            None => changed |= repair(value),
        }
    }
    changed.then(|| to_raw_value(&content).ok()).flatten()
}

fn repair(level: &mut Value) -> bool {
    let whole = match level {
        Value::Number(number) if number.is_i64() => number.as_i64().map(i128::from),
        // Casts of floats saturate.
        Value::Number(number) => number.as_f64().map(|float| float as i128),
        Value::String(text) => text.trim().parse::<i128>().ok(),
        _ => None,
    };
    let in_range = |whole: i128| whole.clamp((-LEVEL_MAX).into(), LEVEL_MAX.into());
    let Some(whole) = whole.map(in_range).and_then(|whole| i64::try_from(whole).ok()) else { return false };
    let repaired = Value::from(whole);
    let changed = level.is_number() && *level != repaired;
    let changed = changed || level.is_string() && whole.abs() == LEVEL_MAX;
    if changed {
        *level = repaired;
    }
    changed
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules as Rules;

    use super::*;

    fn read(content: &str, rules: &Rules) -> Option<String> {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        readable(&TimelineEventType::RoomPowerLevels, &content, rules).map(|content| content.get().to_owned())
    }

    #[test]
    fn levels_are_brought_into_the_form_that_the_rules_read() {
        for (content, expected) in [
            (r#"{"ban":50.57}"#, r#"{"ban":50}"#),
            (r#"{"ban":-0.5}"#, r#"{"ban":0}"#),
            (r#"{"users":{"@a:b":5.114698E4}}"#, r#"{"users":{"@a:b":51146}}"#),
            (r#"{"ban":9223372036854775807}"#, r#"{"ban":9007199254740991}"#),
            (r#"{"ban":-123456789012345678901234567890}"#, r#"{"ban":-9007199254740991}"#),
            (r#"{"ban":1e300}"#, r#"{"ban":9007199254740991}"#),
            (r#"{"ban":" +9223372036854775807 "}"#, r#"{"ban":9007199254740991}"#),
        ] {
            assert_eq!(read(content, &Rules::V1).as_deref(), Some(expected), "{content}");
        }
        for content in [
            r#"{"ban":50,"users":{"@a:b":-1}}"#,
            r#"{"ban":" +0050 "}"#,
            r#"{"ban":"fifty"}"#,
            r#"{"ban":null,"users":[1.5]}"#,
            "{}",
            "[1.5]",
        ] {
            assert_eq!(read(content, &Rules::V1), None, "{content}");
        }
        assert_eq!(read(r#"{"ban":50.57}"#, &Rules::V10), None, "from version 10 on they are integers");
        let other = RawValue::from_string(r#"{"ban":1.5}"#.to_owned()).unwrap();
        assert!(readable(&TimelineEventType::RoomMessage, &other, &Rules::V1).is_none());
    }
}
