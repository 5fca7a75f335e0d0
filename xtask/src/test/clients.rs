//! The real clients: unmodified libraries from the registries, each in a scenario of its own against the built server.
//!
//! Their packages are installed into the target directory, pinned by the lock files in `tests/clients`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{process, rust};

/// matrix-nio (Python) in a virtual environment.
pub fn nio(server: &Path, scratch: &Path) -> anyhow::Result<()> {
    let sources = sources("nio");
    let python = python_with("nio", &sources.join("requirements.txt"))?;
    let mut scenario = Command::new(python);
    scenario.arg("-B").arg(sources.join("scenario.py"));
    process::run(within(scratch, "nio", &mut scenario)?.env("MYELIN_BIN", server))
}

/// matrix-js-sdk (Node.js); Node.js finds packages beside the script, so the script is copied to them.
pub fn js(server: &Path, scratch: &Path) -> anyhow::Result<()> {
    let mut scenario = Command::new("node");
    scenario.arg(js_environment()?.join("scenario.mjs"));
    process::run(within(scratch, "js", &mut scenario)?.env("MYELIN_BIN", server))
}

/// The scripts of matrix-js-sdk beside its packages.
pub fn js_environment() -> anyhow::Result<PathBuf> {
    let sources = sources("js");
    let environment = npm_environment("js", &sources, &[])?;
    copy(&sources, &environment)?;
    Ok(environment)
}

fn npm_environment(client: &str, sources: &Path, options: &[&str]) -> anyhow::Result<PathBuf> {
    installed(client, &sources.join("package-lock.json"), |directory| {
        fs::create_dir_all(directory)?;
        copy(sources, directory)?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).args(options);
        process::run(npm.current_dir(directory))
    })
}

/// matrix-sdk (Rust) in a workspace of its own, which is built below the target directory.
pub fn rust_sdk(server: &Path, scratch: &Path) -> anyhow::Result<()> {
    let built = rust::target_directory()?.join("clients/rust");
    let manifest = sources("rust").join("Cargo.toml");
    let mut build = process::cargo();
    build.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    process::run(build.arg("--target-dir").arg(&built))?;
    let mut scenario = Command::new(built.join("debug/myelin-test-client-rust"));
    let outcome = process::run(within(scratch, "matrix-sdk", &mut scenario)?.env("MYELIN_BIN", server));
    if process::in_ci() {
        // Gigabytes that nothing after it needs.
        fs::remove_dir_all(&built)?;
    }
    outcome
}

/// Element's user interface in a headless Chromium, which [`super::machine`] has installed. Screenshots are kept.
pub fn element(server: &Path, scratch: &Path) -> anyhow::Result<()> {
    let sources = sources("web");
    let environment = npm_environment("web", &sources, &["--legacy-peer-deps"])?;
    copy(&sources, &environment)?;
    for shared in ["server.mjs", "wait.mjs"] {
        fs::copy(self::sources("js").join(shared), environment.join(shared))?;
    }
    let application = environment.join("application");
    process::run(Command::new("node").arg(environment.join("build.mjs")).arg(&application))?;
    let artefacts = rust::target_directory()?.join("test-artefacts/element");
    let mut scenario = Command::new("node");
    scenario.arg(environment.join("scenario.mjs"));
    scenario.env("ELEMENT", application).env("CHROMIUM", super::machine::chromium_program()?);
    scenario.env("ARTEFACTS", &artefacts).env("MYELIN_BIN", server);
    let outcome = process::run(within(scratch, "web", &mut scenario)?);
    println!("screenshots: {}", artefacts.display());
    outcome
}

/// The interpreter of a virtual environment that has exactly what `requirements` pins.
pub fn python_with(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let environment = installed(name, requirements, |directory| {
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory))?;
        let mut pip = Command::new(directory.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        process::run(pip.arg("--requirement").arg(requirements))
    })?;
    Ok(environment.join("bin/python"))
}

fn sources(client: &str) -> PathBuf {
    process::workspace_root().join("tests/clients").join(client)
}

/// The directory with the client's packages, installed anew whenever the file that pins them has changed.
fn installed(
    client: &str,
    pins: &Path,
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let directory = rust::target_directory()?.join("clients").join(client);
    let stamp = directory.join("installed-from");
    let wanted = fs::read_to_string(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    if fs::read_to_string(&stamp).ok().as_deref() != Some(wanted.as_str()) {
        install(&directory)?;
        fs::write(&stamp, wanted)?;
    }
    Ok(directory)
}

/// Copies the files of one directory; the sources of a client have no directories of their own in git.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for file in entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()? {
        if file.is_file() {
            fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Everything that `command` and its server leave behind goes into a directory of its own in `scratch`.
pub fn within<'a>(scratch: &Path, client: &str, command: &'a mut Command) -> anyhow::Result<&'a mut Command> {
    let temporary = scratch.join(client);
    fs::create_dir(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    Ok(command.env("TMPDIR", &temporary).current_dir(temporary))
}
