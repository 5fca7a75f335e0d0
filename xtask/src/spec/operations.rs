//! The operations of one API.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

pub fn of(schemas: &mut Schemas<'_>, api: &str) -> anyhow::Result<Vec<Value>> {
    let mut operations = Vec::new();
    for file in schemas.pages.files(&format!("api/{api}"))? {
        let page = schemas.pages.read(&file)?;
        let base = page["servers"][0]["variables"]["basePath"]["default"].as_str().unwrap_or_default();
        for (path, item) in page["paths"].as_object().with_context(|| file.display().to_string())? {
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let shared = list(&item["parameters"]);
                let digest = Operation { schemas, file: &file, operation, shared }.digest();
                let mut digest = digest.with_context(|| format!("{method} {path} of {}", file.display()))?;
                digest["method"] = method.to_uppercase().into();
                // Where OpenAPI wants two operations of one method and path apart, the file has a space at the end.
                digest["path"] =
                    format!("{}{}", base.trim_end_matches('/'), path.trim_end_matches(' ')).into();
                operations.push(digest);
            }
        }
    }
    Ok(operations)
}

struct Operation<'a, 's> {
    schemas: &'a mut Schemas<'s>,
    file: &'a Path,
    operation: &'a Value,
    /// Parameters of all operations of the path.
    shared: Vec<Value>,
}

impl Operation<'_, '_> {
    fn digest(mut self) -> anyhow::Result<Value> {
        let responses = self.responses()?;
        let mut digest = json!({
            "id": self.operation["operationId"],
            "authentication": self.authentication(),
            "parameters": self.parameters()?,
            "rate_limited": responses.contains_key("429"),
            "responses": responses,
        });
        if self.operation["deprecated"] == true {
            digest["deprecated"] = true.into();
        }
        if let Some(body) = self.body()? {
            digest["body"] = body;
        }
        Ok(digest)
    }

    /// The scheme; with `?` if the request may come without.
    fn authentication(&self) -> String {
        let schemes = list(&self.operation["security"]);
        let named = schemes.iter().filter_map(|scheme| scheme.as_object()?.keys().next());
        let optional = schemes.iter().any(|scheme| scheme.as_object().is_some_and(Map::is_empty));
        match named.into_iter().next() {
            Some(scheme) => format!("{scheme}{}", if optional { "?" } else { "" }),
            None => "none".to_owned(),
        }
    }

    fn parameters(&mut self) -> anyhow::Result<Vec<Value>> {
        let own = list(&self.operation["parameters"]);
        let all = self.shared.clone().into_iter().chain(own);
        all.map(|parameter| {
            let (parameter, file) = self.schemas.pages.followed(&parameter, self.file)?;
            Ok(json!({
                "name": parameter["name"],
                "in": parameter["in"],
                "required": parameter["required"] == true,
                "schema": self.schemas.digest(&parameter["schema"], &file)?,
            }))
        })
        .collect()
    }

    fn body(&mut self) -> anyhow::Result<Option<Value>> {
        if self.operation["requestBody"].is_null() {
            return Ok(None);
        }
        let (body, file) = self.schemas.pages.followed(&self.operation["requestBody"], self.file)?;
        let content = self.content(&body["content"], &file)?;
        Ok(Some(json!({ "required": body["required"] == true, "content": content })))
    }

    fn responses(&mut self) -> anyhow::Result<Map<String, Value>> {
        let mut digest = Map::new();
        for (status, response) in self.operation["responses"].as_object().context("responses")? {
            let (response, file) = self.schemas.pages.followed(response, self.file)?;
            digest.insert(status.clone(), self.content(&response["content"], &file)?);
        }
        Ok(digest)
    }

    /// Schemas by content type.
    fn content(&mut self, content: &Value, file: &Path) -> anyhow::Result<Value> {
        let mut digest = Map::new();
        for (kind, media) in content.as_object().into_iter().flatten() {
            let schema = match &media["schema"] {
                Value::Null => json!({}),
                schema => self.schemas.digest(schema, file)?,
            };
            digest.insert(kind.clone(), schema);
        }
        Ok(digest.into())
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
