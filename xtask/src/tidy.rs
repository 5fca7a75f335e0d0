//! `cargo xtask tidy`: rules of the code base that no compiler checks. Each violation says where, what and what to do.
//!
//! A rule is a pure function of the sources or of the manifests, so that its own tests can show it violations.

mod dead;
mod dependencies;
mod edges;
mod names;
mod size;
mod source;
mod workspace;

use std::fmt;

use self::workspace::Workspace;

/// Arguments of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<()> {
    check()
}

/// Prints every violation; an error if there is one.
pub fn check() -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let violations: Vec<Violation> = RULES.iter().flat_map(|rule| rule(&workspace)).collect();
    for violation in &violations {
        println!("{violation}\n");
    }
    anyhow::ensure!(violations.is_empty(), "{} violations of the rules", violations.len());
    println!("{} files of {} crates: no violations", workspace.sources.len(), workspace.crates.len());
    Ok(())
}

type Rule = fn(&Workspace) -> Vec<Violation>;

const RULES: &[Rule] = &[
    |workspace| edges::check(&workspace.crates),
    |workspace| dependencies::check(workspace),
    |workspace| dead::check(workspace),
    |workspace| size::check(&workspace.sources, size::EXCEPTIONS),
    |workspace| names::check(&workspace.sources),
];

/// Something that a rule forbids.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    /// A file, with a line where that helps, or a manifest.
    place: String,
    what: String,
    remedy: String,
}

impl Violation {
    fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.what, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_look_at_the_whole_workspace() {
        let workspace = Workspace::load().expect("cargo metadata works here");
        let own =
            workspace.crates.iter().find(|member| member.name == "xtask").expect("this crate is a member");
        assert!(workspace.sources_of(own).any(|source| source.path.ends_with("xtask/src/tidy.rs")));
        assert!(own.dependencies.iter().any(|dependency| dependency.name == "clap" && !dependency.dev));
        assert!(own.roots.iter().any(|root| root.ends_with("xtask/src/main.rs")));
        assert!(workspace.crates.len() > 10 && workspace.declared.iter().any(|name| name == "ruma"));
    }
}
