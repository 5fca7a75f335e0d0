//! Who may know whom (ARCHITECTURE, "Crates"): imports point to a lower layer only, never sideways in the domain.
//!
//! This list is the rule. A new edge is a decision about the architecture: it is made here and explained there.

use super::{Violation, workspace::Crate};

/// For each crate, the crates of this workspace that its code may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("myelin-core", &[]),
    ("myelin-dag", &["myelin-core"]),
    ("myelin-push", &["myelin-core"]),
    ("myelin-store", &["myelin-core"]),
    ("myelin-store-fjall", &["myelin-core", "myelin-store"]),
    ("myelin-store-postgres", &["myelin-core", "myelin-store"]),
    ("myelin-view", &["myelin-core", "myelin-dag", "myelin-push", "myelin-store"]),
    ("myelin-rooms", BELOW_DOMAIN),
    ("myelin-users", BELOW_DOMAIN),
    ("myelin-sync", BELOW_DOMAIN),
    ("myelin-media", BELOW_DOMAIN),
    ("myelin-search", BELOW_SEARCH),
    ("myelin-outbound", &["myelin-core"]),
    ("myelin-federation", BELOW_FEDERATION),
    ("myelin-api", BELOW_API),
    ("myelin", BELOW_BINARY),
    ("myelin-testenv", &["myelin-core"]),
    ("myelin-testkit", BELOW_TESTKIT),
    ("xtask", &[]),
];

const BELOW_DOMAIN: &[&str] = &["myelin-core", "myelin-dag", "myelin-push", "myelin-store", "myelin-view"];
const BELOW_SEARCH: &[&str] =
    &["myelin-core", "myelin-dag", "myelin-push", "myelin-store", "myelin-view", "myelin-sync"];
const BELOW_FEDERATION: &[&str] = &[
    "myelin-push",
    "myelin-media",
    "myelin-core",
    "myelin-dag",
    "myelin-store",
    "myelin-view",
    "myelin-rooms",
    "myelin-users",
    "myelin-sync",
];
const BELOW_API: &[&str] = &[
    "myelin-push",
    "myelin-media",
    "myelin-search",
    "myelin-core",
    "myelin-dag",
    "myelin-store",
    "myelin-view",
    "myelin-rooms",
    "myelin-users",
    "myelin-sync",
    "myelin-federation",
];
const BELOW_BINARY: &[&str] = &[
    "myelin-push",
    "myelin-media",
    "myelin-search",
    "myelin-core",
    "myelin-dag",
    "myelin-store",
    "myelin-store-fjall",
    "myelin-store-postgres",
    "myelin-view",
    "myelin-rooms",
    "myelin-users",
    "myelin-sync",
    "myelin-outbound",
    "myelin-federation",
    "myelin-api",
];
const BELOW_TESTKIT: &[&str] = &[
    "myelin-push",
    "myelin-media",
    "myelin-search",
    "myelin-core",
    "myelin-dag",
    "myelin-store",
    "myelin-view",
    "myelin-rooms",
    "myelin-users",
    "myelin-sync",
    "myelin-federation",
    "myelin-api",
    "myelin-testenv",
];

/// What tests may use besides: the test crates, and the backends that they run on.
const ALLOWED_IN_TESTS: &[&str] =
    &["myelin-testenv", "myelin-testkit", "myelin-store-fjall", "myelin-store-postgres"];

/// Libraries that only these crates may use.
const CONFINED: &[(&str, &[&str], &str)] = &[
    (
        "axum",
        &["myelin-api", "myelin", "myelin-testkit"],
        "HTTP is a matter of the API; return a value that it maps",
    ),
    (
        "hickory-resolver",
        &["myelin-outbound"],
        "connections to elsewhere go through myelin-outbound, which guards them",
    ),
    (
        "fjall",
        &["myelin-store-fjall"],
        "the engine is known to its backend only; use the port in myelin-store",
    ),
    (
        "tokio-postgres",
        &["myelin-store-postgres"],
        "the database is known to its backend only; use the port in myelin-store",
    ),
    (
        "deadpool-postgres",
        &["myelin-store-postgres"],
        "the database is known to its backend only; use the port in myelin-store",
    ),
];

pub fn check(crates: &[Crate]) -> Vec<Violation> {
    let members: Vec<&str> = crates.iter().map(|member| member.name.as_str()).collect();
    let mut violations: Vec<Violation> =
        crates.iter().flat_map(|member| inner_edges(member, &members)).collect();
    violations.extend(crates.iter().flat_map(confined));
    violations
}

fn inner_edges(member: &Crate, members: &[&str]) -> Vec<Violation> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == member.name) else {
        let remedy = "add it to ALLOWED in xtask/src/tidy/edges.rs and to ARCHITECTURE.md, in its layer";
        return vec![Violation::new(place(member), "a crate without a layer", remedy)];
    };
    let inner = member.dependencies.iter().filter(|dependency| members.contains(&dependency.name.as_str()));
    let forbidden = inner.filter(|dependency| {
        let name = dependency.name.as_str();
        let in_tests = dependency.dev && ALLOWED_IN_TESTS.contains(&name);
        !allowed.contains(&name) && !in_tests
    });
    forbidden.map(|dependency| edge_violation(member, &dependency.name)).collect()
}

fn edge_violation(member: &Crate, dependency: &str) -> Violation {
    let what = format!("{} must not know {dependency}", member.name);
    let remedy =
        "move the code to the layer that may, or let the caller define a port that the other implements";
    Violation::new(place(member), what, remedy)
}

fn confined(member: &Crate) -> Vec<Violation> {
    let uses = |library: &str| member.dependencies.iter().any(|dependency| dependency.name == library);
    let forbidden =
        CONFINED.iter().filter(|(library, users, _)| uses(library) && !users.contains(&member.name.as_str()));
    forbidden
        .map(|(library, users, remedy)| {
            let what = format!("{} uses {library}, which only {} may", member.name, users.join(", "));
            Violation::new(place(member), what, *remedy)
        })
        .collect()
}

fn place(member: &Crate) -> String {
    member.directory.join("Cargo.toml").display().to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::workspace::Dependency, *};

    fn member(name: &str, dependencies: &[(&str, bool)]) -> Crate {
        let dependency = |(name, dev): &(&str, bool)| Dependency { name: (*name).into(), dev: *dev };
        Crate {
            name: name.into(),
            dependencies: dependencies.iter().map(dependency).collect(),
            ..Crate::default()
        }
    }

    fn violations(name: &str, dependencies: &[(&str, bool)]) -> Vec<String> {
        let others = ALLOWED.iter().filter(|(other, _)| *other != name).map(|(other, _)| member(other, &[]));
        let crates: Vec<Crate> = others.chain([member(name, dependencies)]).collect();
        check(&crates).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn edges_down_are_allowed_and_others_are_not() {
        assert_eq!(violations("myelin-rooms", &[("myelin-dag", false), ("serde", false)]), [""; 0]);
        for (from, to) in [
            ("myelin-core", "myelin-dag"),
            ("myelin-dag", "myelin-store"),
            ("myelin-rooms", "myelin-users"),
            ("myelin-sync", "myelin-rooms"),
            ("myelin-api", "myelin-store-fjall"),
            ("myelin", "myelin-testkit"),
            ("xtask", "myelin-core"),
        ] {
            assert_eq!(violations(from, &[(to, false)]), [format!("{from} must not know {to}")]);
        }
    }

    #[test]
    fn tests_may_use_the_test_crates_and_the_backends() {
        for dependency in ALLOWED_IN_TESTS {
            assert_eq!(violations("myelin-rooms", &[(dependency, true)]), [""; 0]);
        }
        assert_eq!(violations("myelin-rooms", &[("myelin-api", true)]).len(), 1);
    }

    #[test]
    fn confined_libraries_stay_where_they_are() {
        assert_eq!(violations("myelin-api", &[("axum", false)]), [""; 0]);
        for library in ["axum", "fjall", "tokio-postgres", "deadpool-postgres"] {
            assert_eq!(violations("myelin-users", &[(library, true)]).len(), 1, "{library}");
        }
    }

    #[test]
    fn a_new_crate_needs_a_layer() {
        assert_eq!(violations("myelin-new", &[]), ["a crate without a layer"]);
    }
}
