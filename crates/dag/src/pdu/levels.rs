//! Power levels of old rooms, as the authorisation rules read them (room versions 1 to 9, "Deprecated event content
//! schemas"). Clients and hashes see what was sent.

use ruma::{events::TimelineEventType, room_version_rules::RoomVersionRules};
use serde_json::{
    Map, Value,
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
    let mut content: Map<String, Value> = serde_json::from_str(content.get()).ok()?;
    let mut changed = false;
    each_level(&mut content, |level| {
        if let Some(whole) = whole(level).filter(|_| !is_readable(level)) {
            *level = whole.into();
            changed = true;
        }
    });
    changed.then(|| to_raw_value(&content).ok()).flatten()
}

/// The content with all levels as integers, as version 10 and up want them; what is no level stays as it is.
pub fn integers(content: &RawValue) -> Option<Map<String, Value>> {
    let mut content = serde_json::from_str(content.get()).ok()?;
    each_level(&mut content, |level| {
        if let Some(whole) = whole(level) {
            *level = whole.into();
        }
    });
    Some(content)
}

fn each_level(content: &mut Map<String, Value>, mut act: impl FnMut(&mut Value)) {
    for value in content.values_mut() {
        match value.as_object_mut() {
            Some(levels) => levels.values_mut().for_each(&mut act),
            None => act(value),
        }
    }
}

/// The level that is meant; `None` if none is.
fn whole(level: &Value) -> Option<i64> {
    let whole = match level {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            // Casts of floats saturate.
            None => number.as_f64()? as i128,
        },
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    i64::try_from(whole.clamp((-LEVEL_MAX).into(), LEVEL_MAX.into())).ok()
}

/// Whether the rules can read it as it is: an integer in range, as number or string.
fn is_readable(level: &Value) -> bool {
    let in_range = |whole: i64| (-LEVEL_MAX..=LEVEL_MAX).contains(&whole);
    match level {
        Value::String(text) => text.trim().parse().is_ok_and(in_range),
        _ => level.as_i64().is_some_and(in_range),
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules as Rules;
    use serde_json::json;

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

    #[test]
    fn upgraded_rooms_have_integers() {
        let old = r#"{"ban":"50","events":{"x":" +1 "},"kick":1.5,"odd":"text","users":{"@a:b":-7}}"#;
        let new = integers(&RawValue::from_string(old.to_owned()).unwrap()).unwrap();
        let expected =
            json!({ "ban": 50, "events": { "x": 1 }, "kick": 1, "odd": "text", "users": { "@a:b": -7 } });
        assert_eq!(Value::Object(new), expected);
    }
}
