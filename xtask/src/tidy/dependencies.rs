//! Every dependency is used: in a crate's manifest by its code, in the workspace's manifest by a crate.

use super::{
    Violation,
    workspace::{Crate, Workspace},
};

/// Dependencies that no line of code names: the crate, the dependency, the reason.
const UNNAMED: &[(&str, &str, &str)] =
    &[("myelin-media", "reqwest", "chooses the TLS of the client that object_store has below")];

pub fn check(workspace: &Workspace) -> Vec<Violation> {
    let mut violations: Vec<Violation> =
        workspace.crates.iter().filter_map(|member| unused(workspace, member)).collect();
    let used = |name: &String| {
        workspace.crates.iter().any(|member| member.dependencies.iter().any(|d| d.name == *name))
    };
    let undemanded = workspace.declared.iter().filter(|name| !used(name));
    violations.extend(undemanded.map(|name| {
        let what = format!("no crate depends on {name}");
        Violation::new("Cargo.toml", what, "remove it from [workspace.dependencies]")
    }));
    violations
}

fn unused(workspace: &Workspace, member: &Crate) -> Option<Violation> {
    let is_named = |name: &str| {
        let in_code = name.replace('-', "_");
        workspace.sources_of(member).any(|source| source.words(&in_code).next().is_some())
    };
    let is_excepted =
        |name: &str| UNNAMED.iter().any(|(user, other, _)| *user == member.name && *other == name);
    let names = member.dependencies.iter().map(|dependency| dependency.name.as_str());
    let unused: Vec<&str> = names.filter(|name| !is_named(name) && !is_excepted(name)).collect();
    if unused.is_empty() {
        return None;
    }
    let place = member.directory.join("Cargo.toml").display().to_string();
    let what = format!("{} does not use {}", member.name, unused.join(", "));
    let remedy = "remove it; if it is needed without being named, say why in UNNAMED in xtask/src/tidy/dependencies.rs";
    Some(Violation::new(place, what, remedy))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{source::Source, workspace::Dependency},
        *,
    };

    fn workspace(code: &str, dependencies: &[&str], declared: &[&str]) -> Workspace {
        let dependency = |name: &&str| Dependency { name: (*name).into(), dev: false };
        let member = Crate {
            name: "a".into(),
            directory: "crates/a".into(),
            dependencies: dependencies.iter().map(dependency).collect(),
            ..Crate::default()
        };
        let source = Source::new("crates/a/src/lib.rs".into(), code.into());
        let elsewhere = Source::new("crates/b/src/lib.rs".into(), "use elsewhere::Thing;".into());
        let declared = declared.iter().map(|name| (*name).into()).collect();
        Workspace { crates: vec![member], sources: vec![source, elsewhere], declared }
    }

    #[test]
    fn a_dependency_is_used_when_the_code_of_its_crate_names_it() {
        assert_eq!(check(&workspace("use tower_http::cors;", &["tower-http"], &["tower-http"])), []);
        for code in ["// tower_http", "use tower_http_more;", "\"tower_http\"", ""] {
            let whats: Vec<String> =
                check(&workspace(code, &["tower-http"], &[])).into_iter().map(|v| v.what).collect();
            assert_eq!(whats, ["a does not use tower-http"], "{code}");
        }
        assert_eq!(check(&workspace("", &["elsewhere"], &[])).len(), 1, "only the crate's own code counts");
    }

    #[test]
    fn a_declared_dependency_is_used_by_a_crate() {
        let whats: Vec<String> = check(&workspace("", &[], &["imbl"])).into_iter().map(|v| v.what).collect();
        assert_eq!(whats, ["no crate depends on imbl"]);
    }
}
