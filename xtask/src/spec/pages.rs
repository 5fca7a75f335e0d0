//! The specification's YAML files, read once each, and references between them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use anyhow::Context;
use serde_json::Value;

pub struct Pages {
    data: PathBuf,
    read: RefCell<BTreeMap<PathBuf, Rc<Value>>>,
}

/// A place in a file: what a `$ref` points to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Relative to `data`.
    pub file: PathBuf,
    /// A JSON pointer; empty for the whole file.
    pub pointer: String,
}

impl Pages {
    pub fn new(data: PathBuf) -> Self {
        Self { data, read: RefCell::default() }
    }

    pub fn read(&self, file: &Path) -> anyhow::Result<Rc<Value>> {
        if let Some(page) = self.read.borrow().get(file) {
            return Ok(page.clone());
        }
        let text = fs::read_to_string(self.data.join(file)).with_context(|| file.display().to_string())?;
        let page: Value = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        let page = Rc::new(page);
        self.read.borrow_mut().insert(file.to_owned(), page.clone());
        Ok(page)
    }

    /// The YAML files directly in a directory, by name.
    pub fn files(&self, directory: &str) -> anyhow::Result<Vec<PathBuf>> {
        let path = self.data.join(directory);
        let mut files = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let name = PathBuf::from(entry?.file_name());
            if name.extension().is_some_and(|extension| extension == "yaml") {
                files.push(Path::new(directory).join(name));
            }
        }
        files.sort();
        Ok(files)
    }

    pub fn at(&self, place: &Place) -> anyhow::Result<Value> {
        let page = self.read(&place.file)?;
        let found = page.pointer(&place.pointer).cloned();
        found.with_context(|| format!("{}#{} is not there", place.file.display(), place.pointer))
    }

    /// Follows references until something is not one; answers the file that it stands in, too.
    pub fn followed(&self, value: &Value, file: &Path) -> anyhow::Result<(Value, PathBuf)> {
        let (mut value, mut file) = (value.clone(), file.to_owned());
        while let Some(reference) = value["$ref"].as_str() {
            let place = Place::of(reference, &file);
            value = self.at(&place)?;
            file = place.file;
        }
        Ok((value, file))
    }
}

impl Place {
    /// What `reference` in `file` points to.
    pub fn of(reference: &str, file: &Path) -> Self {
        let (path, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let file = match path {
            "" => file.to_owned(),
            path => normal(&file.parent().unwrap_or(Path::new("")).join(path)),
        };
        Self { file, pointer: pointer.to_owned() }
    }

    /// As definitions are called in the digest.
    pub fn name(&self) -> String {
        let file = self.file.with_extension("");
        let words = file.iter().filter_map(|word| word.to_str());
        let words = words.filter(|word| !matches!(*word, "api" | "definitions" | "components" | "schema"));
        let pointer = self.pointer.split('/').filter(|word| !matches!(*word, "" | "components" | "schemas"));
        words.chain(pointer).map(|word| word.replace('$', ".")).collect::<Vec<_>>().join(".")
    }
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => (),
            other => normal.push(other),
        }
        normal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_relative_to_their_file() {
        let file = Path::new("api/client-server/sync.yaml");
        let place = Place::of("../../event-schemas/schema/m.tag.yaml", file);
        assert_eq!(
            (place.file.to_str(), place.name().as_str()),
            (Some("event-schemas/schema/m.tag.yaml"), "event-schemas.m.tag")
        );
        let here = Place::of("#/components/schemas/x", file);
        assert_eq!((here.file.as_path(), here.name().as_str()), (file, "client-server.sync.x"));
    }
}
