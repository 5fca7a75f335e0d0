//! Names and attributes: no file called after nothing in particular, and no lint silenced without a reason.

use super::{
    Violation,
    source::{Source, after_closing},
};

/// Names that say nothing about what is inside, and so attract everything.
const BANNED: &[&str] = &["util", "utils", "common", "manager", "helper", "helpers", "misc"];

pub fn check(sources: &[Source]) -> Vec<Violation> {
    sources.iter().flat_map(|source| banned(source).into_iter().chain(silenced(source))).collect()
}

fn banned(source: &Source) -> Option<Violation> {
    let names = source.path.iter().filter_map(|part| part.to_str()).map(|part| part.trim_end_matches(".rs"));
    let name = names.flat_map(|name| name.split(['_', '-'])).find(|word| BANNED.contains(word))?;
    let remedy = "name it after what it holds, and split it if that is more than one thing";
    Some(Violation::new(
        source.path.display().to_string(),
        format!("'{name}' says nothing about what is inside"),
        remedy,
    ))
}

fn silenced(source: &Source) -> Vec<Violation> {
    let attributes = source.code.match_indices("#[").chain(source.code.match_indices("#!["));
    attributes.filter_map(|(at, opening)| silencing(source, at, at + opening.len() - 1)).collect()
}

fn silencing(source: &Source, at: usize, open: usize) -> Option<Violation> {
    let attribute = &source.code[open..after_closing(&source.code, open)?];
    let remedy =
        r#"write #[expect(lint, reason = "...")]: it says why, and complains when it is no longer needed"#;
    let has = |word: &str| {
        attribute.match_indices(word).any(|(at, _)| attribute[..at].ends_with(['[', '(', ',', ' ']))
    };
    let what = match () {
        () if has("allow(") => "a lint is allowed",
        () if has("expect(") && !attribute.contains("reason") => "a lint is expected without a reason",
        () => return None,
    };
    Some(Violation::new(source.place(at), what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&[Source::new(path.into(), text.into())]).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn names_that_say_nothing_are_found_in_files_and_directories() {
        for path in [
            "a/src/utils.rs",
            "a/src/common/x.rs",
            "crates/event-manager/src/lib.rs",
            "a/src/test_helpers.rs",
        ] {
            assert_eq!(whats(path, "").len(), 1, "{path}");
        }
        for path in ["a/src/utilisation.rs", "a/src/commons.rs", "a/src/room.rs"] {
            assert_eq!(whats(path, ""), [""; 0], "{path}");
        }
    }

    #[test]
    fn silenced_lints_need_a_reason() {
        for text in ["#[allow(dead_code)]", "#![allow(x)]", "#[cfg_attr(test, allow(x))]", "#[expect(x)]"] {
            assert_eq!(whats("a/src/x.rs", text).len(), 1, "{text}");
        }
        for text in
            ["#[expect(x, reason = \"why\")]", "fn allow(x: u8) {}", "policy.allow(x); option.expect(\"x\")"]
        {
            assert_eq!(whats("a/src/x.rs", text), [""; 0], "{text}");
        }
    }
}
