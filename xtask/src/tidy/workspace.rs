//! What the rules look at: the crates of the workspace with their dependencies, and every Rust file in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::source::Source;
use crate::test::workspace_root;

pub struct Workspace {
    pub crates: Vec<Crate>,
    pub sources: Vec<Source>,
    /// The names in `[workspace.dependencies]`.
    pub declared: Vec<String>,
}

/// A package of this workspace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Crate {
    pub name: String,
    /// Relative to the root of the workspace.
    pub directory: PathBuf,
    /// The root file of each target, relative likewise.
    pub roots: Vec<PathBuf>,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    /// Only for tests, examples and benchmarks.
    pub dev: bool,
}

impl Workspace {
    pub fn load() -> anyhow::Result<Self> {
        let root = workspace_root();
        let metadata = MetadataCommand::new().current_dir(&root).no_deps().exec()?;
        let crates: Vec<Crate> = metadata.packages.iter().map(|package| to_crate(package, &root)).collect();
        let mut files = Vec::new();
        for member in &crates {
            rust_files(&root.join(&member.directory), &mut files)?;
        }
        files.sort();
        let read = |file: PathBuf| {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Source::new(relative(&file, &root), text))
        };
        let sources = files.into_iter().map(read).collect::<anyhow::Result<_>>()?;
        let declared = declared_dependencies(&fs::read_to_string(root.join("Cargo.toml"))?);
        Ok(Self { crates, sources, declared })
    }

    /// The sources of `member`.
    pub fn sources_of<'a>(&'a self, member: &'a Crate) -> impl Iterator<Item = &'a Source> {
        self.sources.iter().filter(|source| source.path.starts_with(&member.directory))
    }
}

fn to_crate(package: &cargo_metadata::Package, root: &Path) -> Crate {
    let directory = package.manifest_path.parent().map(|directory| relative(directory.as_std_path(), root));
    let dependency = |dependency: &cargo_metadata::Dependency| Dependency {
        name: dependency.rename.clone().unwrap_or_else(|| dependency.name.clone()),
        dev: dependency.kind == DependencyKind::Development,
    };
    Crate {
        name: package.name.to_string(),
        directory: directory.unwrap_or_default(),
        roots: package.targets.iter().map(|target| relative(target.src_path.as_std_path(), root)).collect(),
        dependencies: package.dependencies.iter().map(dependency).collect(),
    }
}

fn relative(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The keys of `[workspace.dependencies]`; the manifest declares each on a line of its own.
fn declared_dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let keys = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    keys.map(|(key, _)| key.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_dependencies_are_the_keys_of_their_section() {
        let manifest = "[workspace]\nresolver = \"3\"\n[workspace.dependencies]\n# why = not\na = \"1\"\nb-c = { path = \"x\" }\n\n[profile.dev]\ndebug = 1\n";
        assert_eq!(declared_dependencies(manifest), ["a", "b-c"]);
    }
}
