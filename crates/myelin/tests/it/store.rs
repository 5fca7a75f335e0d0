//! `store verify|backup|compact`, beside the server and without one; restoring.

use std::fs;

use crate::process::{Server, run};

#[test]
fn a_backup_made_while_the_server_runs_is_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    assert!(run(path, &["user", "create", "alice", "--password", "secret"]).success);
    let server = Server::start(path, &[]);
    let backup = run(path, &["store", "backup", "copy"]);
    assert!(backup.success, "{}", backup.err);
    assert!(backup.out.contains("and the signing key"), "{}", backup.out);
    let verify = run(path, &["store", "verify"]);
    assert!(verify.success && verify.out.contains("the store is sound"), "{}{}", verify.out, verify.err);
    let again = run(path, &["store", "backup", "copy"]);
    assert!(!again.success && again.err.contains("is not empty"), "{}", again.err);
    server.stop();

    let restored = ["--set", "store.uri=embedded:copy"];
    let key = |data: &str| fs::read_to_string(path.join(data).join("signing.key")).expect("a key");
    assert_eq!(key("copy"), key("myelin-data"));
    let list = run(path, &[&["user", "list"][..], &restored].concat());
    assert_eq!(list.out, "@alice:localhost\n", "{}", list.err);
    Server::start(path, &restored).stop();
}

#[test]
fn without_a_server_the_commands_open_the_store_themselves() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for command in [&["store", "verify"][..], &["store", "compact"], &["store", "backup", "copy"]] {
        let said = run(path, command);
        assert!(
            !said.success && said.err.contains("there is no store in ./myelin-data"),
            "{command:?} {}",
            said.err
        );
    }
    assert!(run(path, &["user", "create", "alice", "--password", "secret"]).success);
    for command in [&["store", "verify"][..], &["store", "compact"], &["store", "backup", "copy"]] {
        let said = run(path, command);
        assert!(said.success, "{command:?} {}{}", said.out, said.err);
    }
    assert_eq!(run(path, &["user", "list"]).out, "@alice:localhost\n");
}
