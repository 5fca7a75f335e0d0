//! Schemas without prose. What a schema refers to becomes a definition of the digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::pages::{Pages, Place};

/// Keywords that are kept as they are.
const PLAIN: [&str; 13] = [
    "type",
    "required",
    "enum",
    "const",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxLength",
    "minLength",
    "uniqueItems",
];
const ONE_SCHEMA: [&str; 4] = ["items", "additionalProperties", "not", "propertyNames"];
const SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED_SCHEMAS: [&str; 2] = ["properties", "patternProperties"];

pub struct Schemas<'a> {
    pub pages: &'a Pages,
    /// By name, what they stand for; resolved at the end.
    names: BTreeMap<String, Place>,
}

impl<'a> Schemas<'a> {
    pub fn new(pages: &'a Pages) -> Self {
        Self { pages, names: BTreeMap::new() }
    }

    /// A schema of `file` as the digest has it.
    pub fn digest(&mut self, schema: &Value, file: &Path) -> anyhow::Result<Value> {
        let Some(object) = schema.as_object() else {
            ensure!(schema.is_boolean(), "{}: {schema} is no schema", file.display());
            return Ok(schema.clone());
        };
        let mut digest = Map::new();
        for (keyword, value) in object {
            let name = keyword.as_str();
            if name == "$ref" {
                let place = Place::of(value.as_str().context("a reference")?, file);
                digest.insert(keyword.clone(), json!(format!("#/definitions/{}", self.define(place)?)));
            } else if let Some(kept) = self.keyword(name, value, file)? {
                digest.insert(keyword.clone(), kept);
            }
        }
        Ok(Value::Object(digest))
    }

    fn keyword(&mut self, name: &str, value: &Value, file: &Path) -> anyhow::Result<Option<Value>> {
        if PLAIN.contains(&name) {
            return Ok(Some(value.clone()));
        }
        if ONE_SCHEMA.contains(&name) {
            return self.digest(value, file).map(Some);
        }
        if let (true, Some(schemas)) = (SCHEMAS.contains(&name), value.as_array()) {
            let schemas: anyhow::Result<Vec<_>> = schemas.iter().map(|one| self.digest(one, file)).collect();
            return Ok(Some(schemas?.into()));
        }
        if let (true, Some(named)) = (NAMED_SCHEMAS.contains(&name), value.as_object()) {
            let named = named.iter().map(|(name, one)| Ok((name.clone(), self.digest(one, file)?)));
            return Ok(Some(named.collect::<anyhow::Result<Map<_, _>>>()?.into()));
        }
        Ok(None)
    }

    fn define(&mut self, place: Place) -> anyhow::Result<String> {
        let name = place.name();
        let known = self.names.entry(name.clone()).or_insert_with(|| place.clone());
        ensure!(*known == place, "two definitions are called {name}");
        Ok(name)
    }

    /// Everything that was referred to, and what that refers to.
    pub fn into_definitions(mut self) -> anyhow::Result<Map<String, Value>> {
        let (mut definitions, mut done) = (Map::new(), BTreeSet::new());
        while let Some((name, place)) = self.names.iter().find(|(name, _)| !done.contains(*name)) {
            let (name, place) = (name.clone(), place.clone());
            let schema = self.pages.at(&place)?;
            definitions.insert(name.clone(), self.digest(&schema, &place.file)?);
            done.insert(name);
        }
        Ok(definitions)
    }
}
