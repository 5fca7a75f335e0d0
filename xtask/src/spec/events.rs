//! What events of each type have in `content` and as `state_key`. Types that come in several forms are named like the
//! specification's files: `m.room.message$m.text`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::schemas::Schemas;

const EVENTS: &str = "event-schemas/schema";

pub fn of(schemas: &mut Schemas<'_>) -> anyhow::Result<Map<String, Value>> {
    let mut events = Map::new();
    for file in schemas.pages.files(EVENTS)? {
        let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let page = schemas.pages.read(&file)?;
        let mut event = Map::new();
        for property in ["content", "state_key"] {
            let mut all = Vec::new();
            collect(schemas, &page, &file, property, &mut all)?;
            match all.len() {
                0 => None,
                1 => event.insert(property.to_owned(), all.remove(0)),
                _ => event.insert(property.to_owned(), json!({ "allOf": all })),
            };
        }
        events.insert(name, event.into());
    }
    Ok(events)
}

/// What a schema and those that it is made of say about one property.
fn collect(
    schemas: &mut Schemas<'_>,
    schema: &Value,
    file: &Path,
    property: &str,
    all: &mut Vec<Value>,
) -> anyhow::Result<()> {
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (part, file) = schemas.pages.followed(part, file)?;
        collect(schemas, &part, &file, property, all)?;
    }
    if let Some(found) = schema["properties"].get(property) {
        let digest = schemas.digest(found, file)?;
        if !all.contains(&digest) {
            all.push(digest);
        }
    }
    Ok(())
}
