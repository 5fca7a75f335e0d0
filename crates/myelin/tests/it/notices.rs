//! `myelin notice`, beside the server and without one.

use crate::process::{Server, run};

#[test]
fn a_notice_is_said_by_the_server_that_runs_or_by_the_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    assert!(run(path, &["user", "create", "alice", "--password", "secret"]).success);
    let server = Server::start(path, &[]);
    let said = run(path, &["notice", "alice", "It rests at noon."]);
    assert!(said.out.starts_with("@alice:localhost was told, in !"), "{}{}", said.out, said.err);
    let nobody = run(path, &["notice", "bob", "It rests at noon."]);
    assert!(!nobody.success && nobody.err.contains("There is no such user"), "{}", nobody.err);
    let nothing = run(path, &["notice", "alice", " "]);
    assert!(!nothing.success && nothing.err.contains("nothing to say"), "{}", nothing.err);
    server.stop();
    let again = run(path, &["notice", "@alice:localhost", "It is back."]);
    assert_eq!(again.out, said.out, "one room for all of them: {}", again.err);
}
