//! The same over PostgreSQL, where commands work beside the server. The server for tests is named in the environment.

use std::process::Command;

use crate::process::{Server, run};

const SERVER: &str = "MYELIN_TEST_POSTGRES";

fn server() -> String {
    std::env::var(SERVER).unwrap_or_else(|_| {
        panic!("{SERVER} is not set: run the tests through the test command (cargo xtask test), which starts a server")
    })
}

/// Runs SQL on the server's own database, with the client that comes with PostgreSQL.
fn sql(statement: &str) {
    let arguments = ["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--command", statement];
    let said = Command::new("psql").arg(server()).args(arguments).output().expect("psql is installed");
    assert!(said.status.success(), "{statement}: {}", String::from_utf8_lossy(&said.stderr));
}

/// A database of its own, dropped at the end.
struct Database {
    name: String,
    uri: String,
}

impl Database {
    fn create(purpose: &str) -> Self {
        let name = format!("myelin_bin_{purpose}_{}", std::process::id());
        sql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        sql(&format!("CREATE DATABASE {name}"));
        let server = server();
        let (address, query) =
            server.split_once('?').map_or((server.as_str(), ""), |(address, query)| (address, query));
        let host_end = address[11..].find('/').map_or(address.len(), |at| 11 + at);
        Self { uri: format!("{}/{name}?{query}", &address[..host_end]), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        sql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

#[test]
fn commands_work_beside_the_server_and_the_key_is_in_the_database() {
    let (directory, database) = (tempfile::tempdir().expect("a directory"), Database::create("beside"));
    let path = directory.path();
    let store = format!("store.uri={}", database.uri);
    let set = ["--set", store.as_str()];
    let server = Server::start(path, &set);
    let command = |arguments: &[&str]| run(path, &[arguments, &set].concat());
    let made = command(&["user", "create", "alice", "--password", "secret"]);
    assert!(made.success, "{}", made.err);
    let identifier = serde_json::json!({ "type": "m.id.user", "user": "alice" });
    let body =
        serde_json::json!({ "type": "m.login.password", "identifier": identifier, "password": "secret" });
    let (status, answer) = server.post("/_matrix/client/v3/login", &body);
    assert_eq!(status, 200, "{answer}");
    let doctor = command(&["doctor", "--set", "server.listen=[{ address = \"127.0.0.1:0\" }]"]);
    assert!(
        doctor.success && doctor.out.contains("opens and belongs to localhost"),
        "{}{}",
        doctor.out,
        doctor.err
    );
    let destinations = command(&["federation", "destinations"]);
    assert!(destinations.success && destinations.out.contains("0 servers"), "{}", destinations.out);
    let retry = command(&["federation", "retry"]);
    assert!(
        retry.out.contains("nothing waits because of an earlier failure"),
        "the server itself: {}",
        retry.out
    );
    let verify = command(&["store", "verify"]);
    assert!(verify.success, "{}{}", verify.out, verify.err);
    server.stop();
    Server::start(path, &set).stop();
    let names = |directory: &std::path::Path| -> Vec<_> {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    assert_eq!(names(path), ["myelin-data"]);
    assert_eq!(names(&path.join("myelin-data")), ["media"], "only files of media lie beside the database");
}

#[test]
fn a_backup_moves_a_server_from_one_engine_to_another_and_back() {
    let (directory, database) = (tempfile::tempdir().expect("a directory"), Database::create("moves"));
    let path = directory.path();
    assert!(run(path, &["user", "create", "alice", "--password", "secret"]).success);
    let there = run(path, &["store", "backup", &database.uri]);
    assert!(there.success, "{}", there.err);
    let store = format!("store.uri={}", database.uri);
    assert_eq!(run(path, &["user", "list", "--set", &store]).out, "@alice:localhost\n");
    let back = run(path, &["store", "backup", "back", "--set", &store]);
    assert!(back.success, "{}", back.err);
    let key = |data: &str| std::fs::read_to_string(path.join(data).join("signing.key")).expect("a key");
    assert_eq!(key("back"), key("myelin-data"));
}
