//! `config check|show|default` and how configuration reaches the binary.

use std::fs;

use crate::process::{myelin, run};

#[test]
fn a_bad_configuration_is_refused_with_its_line_by_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("my.toml"), "[server]\nnam = \"x\"\n").expect("written");
    for command in [&["config", "check"][..], &["config", "show"], &["serve"], &["doctor"], &["user", "list"]]
    {
        let said = run(directory.path(), &[command, &["--config", "my.toml"]].concat());
        assert!(!said.success, "{command:?}");
        assert!(
            said.err.contains("my.toml:2: unknown key 'server.nam'; did you mean 'server.name'?"),
            "{}",
            said.err
        );
    }
    assert!(!directory.path().join("myelin-data").exists(), "nothing was started");
}

#[test]
fn what_is_shown_comes_from_file_environment_and_command_line_in_that_order() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("myelin.toml"), "server.name = \"file.org\"\nlog.filter = \"debug\"\n")
        .expect("written");
    let show = ["config", "show", "--set", "log.json=true"];
    let output =
        myelin(directory.path(), &show).env("MYELIN__SERVER__NAME", "env.org").output().expect("it runs");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "name = \"env.org\" # environment variable MYELIN__SERVER__NAME",
        "filter = \"debug\" # myelin.toml:2",
        "json = true # --set log.json",
        "uri = \"mem://\" # default",
    ] {
        assert!(out.lines().any(|shown| shown == line), "{line} is not in {out}");
    }
}

#[test]
fn the_printed_default_is_accepted() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = run(directory.path(), &["config", "default"]);
    fs::write(directory.path().join("myelin.toml"), said.out).expect("written");
    let said = run(directory.path(), &["config", "check"]);
    assert!(said.success, "{}", said.err);
    assert_eq!(said.out, "myelin.toml: the configuration is valid\n");
}
