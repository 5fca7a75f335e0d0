//! Running other programs: each returns an error that says which command failed and how.

use std::{ffi::OsStr, path::PathBuf, process::Command};

use anyhow::Context;

/// Runs `command` with the terminal as its output; an error unless it exits with 0.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start '{}'", program(command)))?;
    anyhow::ensure!(status.success(), "'{}' ended with {status}", shown(command));
    Ok(())
}

/// Runs `command` and returns what it printed; an error, with what it complained, unless it exits with 0.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start '{}'", program(command)))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "'{}' ended with {}: {}",
        shown(command),
        output.status,
        complaint.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    if in_ci() {
        // What is built once is not built upon: the intermediate results would only fill the disk.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// The root of the checkout that this task was built from.
pub fn workspace_root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map_or(xtask.clone(), PathBuf::from)
}

/// In continuous integration, Cargo.lock is not to be changed on the way.
pub fn locked() -> Option<&'static str> {
    in_ci().then_some("--locked")
}

/// Whether this is continuous integration, where a machine runs the command once.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit 3");
        assert!(error.to_string().contains("sh -c exit 3"), "{error}");
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).expect_err("exit 1");
        assert!(error.to_string().ends_with("why"), "{error}");
        assert!(run(&mut Command::new("/nonexistent/program")).is_err());
    }

    #[test]
    fn output_is_what_the_command_printed() {
        assert_eq!(output(Command::new("echo").arg("hello")).ok().as_deref(), Some("hello"));
    }

    #[test]
    fn the_workspace_root_holds_the_lock_file() {
        assert!(workspace_root().join("Cargo.lock").exists());
    }
}
