//! The configuration: one TOML file, the environment over it, the command line over both; everything is checked before
//! anything starts, and all that is wrong is reported at once, each with its place.
//!
//! Must not know: what the settings do.

mod declare;
pub mod keys;
mod problem;
mod reference;
pub mod size;
mod tree;
pub mod types;
mod value;
mod warnings;

use std::path::{Path, PathBuf};

pub use self::{
    keys::*,
    problem::{Problem, Problems},
    reference::{default_toml, markdown},
    value::parse_duration,
};
use self::{
    problem::{Origin, closest},
    tree::{Content, Node},
};

/// Read when it is there and no `--config` says otherwise.
const DEFAULT_FILE: &str = "myelin.toml";

/// Where a configuration comes from.
#[derive(Default)]
pub struct Sources {
    /// The `--config` file.
    pub file: Option<PathBuf>,
    /// `MYELIN__*` variables.
    pub env: Vec<(String, String)>,
    /// `serve --dev`.
    pub dev: bool,
    /// `--set` arguments, `section.key=value`.
    pub set: Vec<String>,
}

/// A checked configuration, and where each value was written.
pub struct Loaded {
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    tree: Node,
}

impl Sources {
    /// All `MYELIN__*` variables of this process.
    pub fn process_env() -> Vec<(String, String)> {
        let readable = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("MYELIN__"))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        let mut found: Vec<_> = readable.collect();
        found.sort();
        found
    }

    pub fn load(self) -> Result<Loaded, Problems> {
        let mut problems = Vec::new();
        let mut tree = defaults();
        let file =
            self.file.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()));
        for layer in self.layers(file.as_deref()) {
            match layer {
                Ok(node) => tree.merge(node),
                Err(problem) => problems.push(problem),
            }
        }
        unknown_keys(&tree, "", &mut problems);
        let config = Config::read(&tree, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded { config, file, tree }),
            _ => Err(Problems(problems)),
        }
    }

    /// From the lowest to the highest.
    fn layers(self, file: Option<&Path>) -> Vec<Result<Node, Problem>> {
        let dev = [("registration.mode", "open")].into_iter().filter(|_| self.dev);
        let mut layers: Vec<_> = file.map(read_file).into_iter().collect();
        layers.extend(self.env.iter().map(|(name, value)| from_env(name, value)));
        layers.extend(dev.map(|(key, value)| over(Origin::Dev, key, value)));
        layers.extend(self.set.iter().map(|argument| from_set(argument)));
        layers
    }
}

impl Loaded {
    /// Every key with its effective value and where that was written, as TOML.
    pub fn show(&self) -> String {
        reference::show(&self.tree)
    }
}

fn defaults() -> Node {
    let mut tree = Node::table(Origin::Default);
    for section in SECTIONS {
        tree.merge(Node::table(Origin::Default).under(section.path));
        for key in section.keys {
            if let Some(text) = key.default {
                // Invariant: declared defaults are TOML; a test reads every one of them.
                let value = Node::parse_override(Origin::Default, text);
                value.into_iter().for_each(|node| {
                    tree.merge(Node { raw: None, ..node }.under(&format!("{}.{}", section.path, key.name)));
                });
            }
        }
    }
    tree
}

fn read_file(path: &Path) -> Result<Node, Problem> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::File { path: name.as_str().into(), line: 0 };
        Problem::new(&origin, format!("the file cannot be read: {error}"))
    })?;
    Node::parse_file(&name, &text)
}

fn from_env(name: &str, value: &str) -> Result<Node, Problem> {
    let path = name.trim_start_matches("MYELIN__").replace("__", ".").to_ascii_lowercase();
    over(Origin::Env(name.to_owned()), &path, value)
}

fn from_set(argument: &str) -> Result<Node, Problem> {
    let Some((path, value)) = argument.split_once('=') else {
        let origin = Origin::Set(argument.to_owned());
        return Err(Problem::new(&origin, "this says nothing; write --set section.key=value"));
    };
    over(Origin::Set(path.trim().to_owned()), path.trim(), value.trim())
}

fn over(origin: Origin, path: &str, value: &str) -> Result<Node, Problem> {
    if path.split('.').any(str::is_empty) {
        return Err(Problem::new(&origin, format!("'{path}' is not a key; write section.key")));
    }
    Ok(Node::parse_override(origin, value)?.under(path))
}

fn key_paths() -> impl Iterator<Item = String> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(|key| format!("{}.{}", section.path, key.name)))
}

/// Reports what is written but not declared; what is inside a key's own value is for its type to judge.
fn unknown_keys(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    let Content::Table(table) = &node.content else {
        problems.push(Problem::new(&node.origin, format!("{path} is a section, found {}", node.kind())));
        return;
    };
    for (name, child) in table {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let opens = |section: &str| {
            section == path || section.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))
        };
        if SECTIONS.iter().any(|section| opens(section.path)) {
            unknown_keys(child, &path, problems);
        } else if !key_paths().any(|key| key == path) {
            problems.push(unknown(child, &path));
        }
    }
}

fn unknown(node: &Node, path: &str) -> Problem {
    let keys: Vec<_> = key_paths().collect();
    let sections = SECTIONS.iter().map(|section| section.path);
    let is_section = matches!(node.content, Content::Table(_));
    let suggestion = match is_section {
        true => closest(path, sections.chain(keys.iter().map(String::as_str))),
        false => closest(path, keys.iter().map(String::as_str)),
    };
    Problem::new(&node.origin, format!("unknown key '{path}'")).suggest(suggestion)
}

#[cfg(test)]
mod tests;
