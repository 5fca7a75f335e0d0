//! What the declaration says, for people: the commented TOML of `config default`, the Markdown of
//! `docs/configuration.md`, and the effective values of `config show`.

use std::fmt::Write;

use super::{
    declare::{Key, Section},
    keys::SECTIONS,
    problem::Origin,
    tree::Node,
    types::without_password,
};

const WIDTH: usize = 100;

/// Every key with its documentation and default, as a file to start from.
pub fn default_toml() -> String {
    let mut out = String::from(
        "# Myelin's configuration. Every key is shown with its default; keys without one are commented out.\n",
    );
    for section in SECTIONS {
        let _ = writeln!(out, "\n{}\n[{}]", comment(section.doc), section.path);
        for key in section.keys {
            let _ = writeln!(out, "{}\n{}\n", comment(key.doc), default_line(key));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

/// The reference page.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for section in SECTIONS {
        let _ = write!(out, "\n## `[{}]`\n\n{}\n", section.path, paragraph(section.doc));
        for key in section.keys {
            out.push_str(&markdown_key(section, key));
        }
    }
    out
}

const INTRODUCTION: &str = "\
# Configuration

This page is generated from the declaration in `crates/myelin/src/config/keys.rs`
(`cargo run -- config default --markdown > docs/configuration.md`); a test fails when it is stale.

Myelin runs without any configuration. What there is to set is read in this order, later ones winning:

1. the defaults below,
2. the TOML file given by `--config FILE`, or `myelin.toml` in the working directory if there is one,
3. environment variables `MYELIN__SECTION__KEY`, such as `MYELIN__SERVER__NAME=example.org`,
4. `--set section.key=value` on the command line.

The value of a variable or of `--set` is TOML (`true`, `5`, `[\"a\", \"b\"]`, `{ burst = 5 }`); a bare word is a string.
A key inside a table value can be set alone: `--set rate_limits.login.burst=20`.

Unknown keys and bad values are refused, with their place and a suggestion. `myelin config check` checks,
`myelin config show` prints every effective value and where it was written, `myelin config default` prints all keys with
their documentation as a file to start from.
";

fn markdown_key(section: &Section, key: &Key) -> String {
    let mut out = format!("\n### `{}.{}`\n\n{}\n\n", section.path, key.name, paragraph(key.doc));
    let _ = writeln!(out, "- Value: {}", key.expects);
    let _ = match (key.default, key.example) {
        (Some(default), _) => writeln!(out, "- Default: `{}`", tidy(default)),
        (None, Some(example)) => writeln!(out, "- Default: not set. Example: `{}`", tidy(example)),
        (None, None) => writeln!(out, "- Default: not set"),
    };
    out
}

/// Every key of `tree` as TOML, each with its origin.
pub fn show(tree: &Node) -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let _ = writeln!(out, "[{}]", section.path);
        for key in section.keys {
            out.push_str(&show_key(tree.get(&format!("{}.{}", section.path, key.name)), key));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn show_key(node: Option<&Node>, key: &Key) -> String {
    match node {
        None => format!("# {} is not set\n", key.name),
        Some(_) if key.secret => format!("{} = \"…\" # hidden\n", key.name),
        Some(node) => {
            let written = innermost_origin(node);
            format!("{} = {} # {written}\n", key.name, without_password(&node.to_toml()))
        }
    }
}

/// A merged table is as its highest part was written.
fn innermost_origin(node: &Node) -> &Origin {
    match &node.content {
        super::tree::Content::Table(table) => {
            let written =
                table.values().map(|child| &child.origin).find(|origin| **origin != Origin::Default);
            written.unwrap_or(&node.origin)
        }
        _ => &node.origin,
    }
}

fn default_line(key: &Key) -> String {
    match (key.default, key.example) {
        (Some(default), _) => format!("{} = {}", key.name, tidy(default)),
        (None, Some(example)) => format!("#{} = {}", key.name, tidy(example)),
        (None, None) => format!("#{} =", key.name),
    }
}

/// Declared tokens as one spells them in TOML.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

fn comment(doc: &[&str]) -> String {
    let mut lines = vec![String::from("#")];
    for word in doc.iter().flat_map(|line| line.split_whitespace()) {
        let Some(line) = lines.last_mut() else { continue };
        if line.len() + word.len() < WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("# {word}"));
        }
    }
    lines.join("\n")
}
