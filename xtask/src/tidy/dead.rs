//! No dead files: every Rust file is reached through `mod` from the root of a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    Violation,
    source::{Source, after_closing, identifier},
    workspace::Workspace,
};

pub fn check(workspace: &Workspace) -> Vec<Violation> {
    let files: BTreeMap<&Path, &Source> =
        workspace.sources.iter().map(|source| (source.path.as_path(), source)).collect();
    let roots = workspace.crates.iter().flat_map(|member| member.roots.iter().cloned());
    let reached = reach(&files, roots.collect());
    let dead = files.keys().filter(|path| !reached.contains(**path));
    let remedy = "declare it with `mod` in its parent, or delete it";
    dead.map(|path| Violation::new(path.display().to_string(), "no module declares this file", remedy))
        .collect()
}

fn reach(files: &BTreeMap<&Path, &Source>, roots: Vec<PathBuf>) -> BTreeSet<PathBuf> {
    let mut reached: BTreeSet<PathBuf> = roots.iter().cloned().collect();
    // A root is the parent of what lies beside it, whatever its name.
    let beside = |root: &PathBuf| (root.clone(), root.parent().map(PathBuf::from).unwrap_or_default());
    let mut open: Vec<(PathBuf, PathBuf)> = roots.iter().map(beside).collect();
    while let Some((file, directory)) = open.pop() {
        let Some(source) = files.get(file.as_path()) else { continue };
        for module in declared_modules(&source.code) {
            let (flat, nested) =
                (directory.join(&module).with_extension("rs"), directory.join(&module).join("mod.rs"));
            for child in [flat, nested].into_iter().filter(|child| files.contains_key(child.as_path())) {
                if reached.insert(child.clone()) {
                    open.push((child, directory.join(&module)));
                }
            }
        }
    }
    reached
}

/// The modules that `code` declares to be in files, with the names of the modules around them: `outer/inner`.
fn declared_modules(code: &str) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    let mut rest = 0;
    while let Some(at) = code[rest..].find("mod ").map(|at| rest + at) {
        rest = at + "mod ".len();
        let Some(name) = identifier(&code[rest..]).filter(|_| starts_word(code, at)) else { continue };
        let after = code[rest + name.len()..].trim_start();
        let open = code.len() - after.len();
        if after.starts_with(';') {
            modules.push(PathBuf::from(name));
        } else if after.starts_with('{')
            && let Some(end) = after_closing(code, open)
        {
            modules.extend(
                declared_modules(&code[open + 1..end]).iter().map(|inner| Path::new(name).join(inner)),
            );
            rest = end;
        }
    }
    modules
}

fn starts_word(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|character: char| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::{super::workspace::Crate, *};

    fn dead(files: &[(&str, &str)], roots: &[&str]) -> Vec<String> {
        let sources = files.iter().map(|(path, text)| Source::new(path.into(), (*text).into())).collect();
        let member = Crate { roots: roots.iter().map(PathBuf::from).collect(), ..Crate::default() };
        let workspace = Workspace { crates: vec![member], sources, declared: vec![] };
        check(&workspace).into_iter().map(|violation| violation.place).collect()
    }

    #[test]
    fn a_file_is_alive_when_a_module_declares_it() {
        let files = [
            ("a/src/lib.rs", "pub mod one;\n#[cfg(test)]\nmod tests;\nmod inline { mod deep; }"),
            ("a/src/one.rs", "mod two;"),
            ("a/src/one/two.rs", ""),
            ("a/src/tests.rs", ""),
            ("a/src/inline/deep.rs", ""),
            ("a/tests/it/main.rs", "mod case;"),
            ("a/tests/it/case.rs", ""),
        ];
        assert_eq!(dead(&files, &["a/src/lib.rs", "a/tests/it/main.rs"]), [""; 0]);
    }

    #[test]
    fn a_file_is_dead_when_no_module_declares_it() {
        let lib = "// mod comment;\nlet s = \"mod string;\"; fn unmod () {} mod inline { fn f() {} }";
        let files = [
            ("a/src/lib.rs", lib),
            ("a/src/comment.rs", "mod two;"),
            ("a/src/string.rs", ""),
            ("a/src/two.rs", ""),
            ("a/src/inline.rs", ""),
        ];
        let wanted = ["a/src/comment.rs", "a/src/inline.rs", "a/src/string.rs", "a/src/two.rs"];
        assert_eq!(dead(&files, &["a/src/lib.rs"]), wanted);
    }

    #[test]
    fn a_directory_with_mod_rs_is_a_module() {
        let files =
            [("a/src/lib.rs", "mod one;"), ("a/src/one/mod.rs", "mod two;"), ("a/src/one/two.rs", "")];
        assert_eq!(dead(&files, &["a/src/lib.rs"]), [""; 0]);
    }
}
