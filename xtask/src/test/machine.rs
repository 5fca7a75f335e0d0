//! What the tests need from the machine, installed with apt or cargo where it is missing.

use std::{path::Path, process::Command};

use anyhow::Context;

use super::{postgres, process};

/// Oldest Node.js that matrix-js-sdk runs on here.
const NODE_MAJOR_MIN: u32 = 18;

/// Checks for everything that the chosen sections need, and installs it.
pub fn prepare(rust: bool, clients: bool, peers: bool) -> anyhow::Result<()> {
    component("rustfmt", "fmt")?;
    component("clippy", "clippy")?;
    if rust {
        ensure("PostgreSQL", &["postgresql"], postgres::version, install_without_cluster)?;
        nextest()?;
    }
    if rust || clients || peers {
        tool("Python with venv", &["python3", "python3-venv"], python)?;
    }
    if clients || peers {
        tool("Node.js with npm", &["nodejs", "npm"], node)?;
    }
    if clients {
        tool("Chromium", &["chromium"], || {
            process::output(Command::new(chromium_program()?).arg("--version"))
        })?;
    }
    Ok(())
}

/// The browser by the names that distributions give it.
pub fn chromium_program() -> anyhow::Result<&'static str> {
    let programs = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = programs.into_iter().find(|program| Path::new(program).exists());
    found.context("there is no Chromium in /usr/bin")
}

/// Whether `cargo nextest` can be used; otherwise `cargo test` runs the same tests, one binary after the other.
pub fn has_nextest() -> bool {
    process::output(process::cargo().args(["nextest", "--version"])).is_ok()
}

fn tool(what: &str, packages: &[&str], version: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    ensure(what, packages, version, install)
}

fn ensure(
    what: &str,
    packages: &[&str],
    version: impl Fn() -> anyhow::Result<String>,
    install: impl FnOnce(&[&str]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Ok(found) = version() {
        println!("{what}: {found}");
        return Ok(());
    }
    println!("{what} is missing: installing {}", packages.join(" "));
    install(packages).with_context(|| by_hand(what, packages))?;
    let found = version().with_context(|| by_hand(what, packages))?;
    println!("{what}: {found}");
    Ok(())
}

fn by_hand(what: &str, packages: &[&str]) -> String {
    format!(
        "the tests need {what} and could not install it; do it by hand: apt-get install {}",
        packages.join(" ")
    )
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    process::run(as_root()?.args(["apt-get", "update", "--quiet"]))?;
    let options = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
    process::run(as_root()?.arg("DEBIAN_FRONTEND=noninteractive").args(options).args(packages))
}

/// Debian's package makes a cluster and starts it, unless this file forbids that; the tests start a server of their own.
fn install_without_cluster(packages: &[&str]) -> anyhow::Result<()> {
    let file = "/etc/postgresql-common/createcluster.d/none-for-tests.conf";
    let forbid = format!("mkdir -p $(dirname {file}) && echo 'create_main_cluster = false' > {file}");
    process::run(as_root()?.args(["sh", "-c", &forbid]))?;
    let installed = install(packages);
    process::run(as_root()?.args(["rm", file]))?;
    installed
}

/// `env`, with the rights to install packages.
fn as_root() -> anyhow::Result<Command> {
    if process::output(Command::new("id").arg("-u"))? == "0" {
        return Ok(Command::new("env"));
    }
    let mut sudo = Command::new("sudo");
    process::output(sudo.args(["-n", "true"]))
        .context("not root, and sudo does not work without a password")?;
    let mut command = Command::new("sudo");
    command.args(["-n", "env"]);
    Ok(command)
}

fn component(name: &str, subcommand: &str) -> anyhow::Result<()> {
    if process::output(process::cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    process::run(Command::new("rustup").args(["component", "add", name]))
        .with_context(|| format!("the tests need the Rust component {name}"))
}

fn nextest() -> anyhow::Result<()> {
    if has_nextest() {
        return Ok(());
    }
    println!("cargo-nextest is missing: building it");
    if let Err(error) = process::run(process::cargo().args(["install", "--locked", "cargo-nextest"])) {
        println!("{error:#}; `cargo test` runs the same tests instead, only slower");
    }
    Ok(())
}

fn python() -> anyhow::Result<String> {
    let program = "import ensurepip, platform, venv; print(platform.python_version())";
    process::output(Command::new("python3").args(["-c", program]))
}

fn node() -> anyhow::Result<String> {
    let version = process::output(Command::new("node").arg("--version"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    anyhow::ensure!(major.is_some_and(|major| major >= NODE_MAJOR_MIN), "Node.js {version} is too old");
    let npm = process::output(Command::new("npm").arg("--version"))?;
    Ok(format!("{version}, npm {npm}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_cannot_be_installed_is_an_error_that_says_what_to_do() {
        let missing = || anyhow::bail!("not there");
        let refuses = |_: &[&str]| anyhow::bail!("no rights");
        for error in
            [ensure("Tool", &["tool"], missing, refuses), ensure("Tool", &["tool"], missing, |_| Ok(()))]
        {
            let error = error.expect_err("still missing").to_string();
            assert!(error.ends_with("do it by hand: apt-get install tool"), "{error}");
        }
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let there = Cell::new(false);
        let version = || if there.get() { Ok("1.0".into()) } else { anyhow::bail!("not there") };
        let installs = |_: &[&str]| {
            there.set(true);
            Ok(())
        };
        assert!(ensure("Tool", &["tool"], version, installs).is_ok());
        assert!(ensure("Tool", &["tool"], version, |_| anyhow::bail!("installed twice")).is_ok());
    }
}
