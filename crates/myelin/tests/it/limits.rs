//! What the running server refuses: too much at once, and too often.

use serde_json::{Value, json};

use crate::process::{Server, exchange};

const LOGIN: &str = "/_matrix/client/v3/login";

#[test]
fn bodies_and_heads_that_are_too_large_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]);
    for size in [1024 * 1024 + 1, 8 * 1024 * 1024] {
        let (status, answer) = exchange(&server.address, "POST", LOGIN, "", &vec![b' '; size]);
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!((status, &answer["errcode"]), (413, &json!("M_TOO_LARGE")), "{size}");
    }
    let many: String = (0..150).map(|number| format!("X-{number}: x\r\n")).collect();
    assert_eq!(exchange(&server.address, "GET", "/_matrix/client/versions", &many, b"").0, 431);
    assert_eq!(server.get("/_matrix/client/versions").0, 200, "it goes on");
    server.stop();
}

#[test]
fn the_configured_rate_limits_count() {
    let directory = tempfile::tempdir().expect("a directory");
    let limit = "rate_limits.login={ per_second = 0.0001, burst = 2 }";
    let attempt = |server: &Server| {
        let identifier = json!({ "type": "m.id.user", "user": "nobody" });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "x" });
        server.post(LOGIN, &body)
    };
    let server = Server::start(directory.path(), &["--set", limit]);
    let statuses = [(); 3].map(|()| attempt(&server).0);
    assert_eq!(statuses, [403, 403, 429]);
    assert_eq!(attempt(&server).1["errcode"], "M_LIMIT_EXCEEDED");
    server.stop();
    let server = Server::start(directory.path(), &["--set", limit, "--set", "rate_limits.enabled=false"]);
    let statuses = [(); 5].map(|()| attempt(&server).0);
    assert_eq!(statuses, [403; 5]);
    server.stop();
}
