//! Accounts and registration tokens from the command line.

use crate::process::{Server, run, run_with_input};

#[test]
fn accounts_are_made_listed_changed_and_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let made = run_with_input(path, &["user", "create", "alice", "--admin"], "secret\n");
    assert!(made.success, "{}", made.err);
    assert_eq!(made.out, "@alice:localhost was created as an administrator\n");
    let made = run(path, &["user", "create", "@bob:localhost", "--password", "secret"]);
    assert!(made.success, "{}", made.err);

    for (arguments, words) in [
        (&["user", "create", "alice", "--password", "x"][..], "taken"),
        (&["user", "create", "carol"], "no password"),
        (&["user", "create", "@carol:elsewhere.org", "--password", "x"], "not a user of this server"),
        (&["user", "create", "not a name", "--password", "x"], "a username can only have"),
        (&["user", "set-password", "carol", "--password", "x"], "there is no account @carol:localhost"),
    ] {
        let said = run(path, arguments);
        assert!(!said.success && said.err.contains(words), "{arguments:?}: {}", said.err);
    }

    assert!(run_with_input(path, &["user", "set-password", "bob"], "new\n").success);
    assert!(run(path, &["user", "deactivate", "bob"]).success);
    let again = run(path, &["user", "deactivate", "bob"]);
    assert!(!again.success && again.err.contains("deactivated already"), "{}", again.err);
    let list = run(path, &["user", "list"]);
    assert_eq!(list.out, "@alice:localhost  (administrator)\n@bob:localhost  (deactivated)\n");
}

#[test]
fn beside_a_running_server_the_command_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]);
    let said = run(directory.path(), &["user", "create", "alice", "--password", "secret"]);
    assert!(!said.success);
    assert!(said.err.contains("stop the server, run this command, and start it again"), "{}", said.err);
    server.stop();
}

#[test]
fn registration_tokens_are_made_and_listed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let create = ["registration-token", "create", "--token", "welcome", "--uses", "3", "--expires-in", "7d"];
    let made = run(path, &create);
    assert!(made.success, "{}", made.err);
    assert_eq!(made.out, "welcome\n");
    let made_up = run(path, &["registration-token", "create"]);
    assert!(made_up.out.trim().len() >= 16, "{}", made_up.out);
    let list = run(path, &["registration-token", "list"]).out;
    assert!(list.contains("welcome  used 0 of 3 times, expires in 7d 0h\n"), "{list}");
    assert!(list.contains(&format!("{}  used 0 times, unlimited\n", made_up.out.trim())), "{list}");
    let again = run(path, &create);
    assert!(!again.success && again.err.contains("exists already"), "{}", again.err);
    let bad = run(path, &["registration-token", "create", "--expires-in", "soon"]);
    assert!(!bad.success && bad.err.contains("is not a duration"), "{}", bad.err);
}
