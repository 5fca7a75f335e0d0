//! Media in a bucket behind an S3 API. The server that speaks it is named in the environment.

use serde_json::Value;

use crate::process::{Server, exchange, run};

const S3: &str = "MYELIN_TEST_S3";
/// Several parts of an S3 upload.
const SIZE: usize = 24 * 1024 * 1024 + 11;

#[test]
fn media_lies_in_a_bucket_and_is_there_after_a_restart() {
    let endpoint = std::env::var(S3).unwrap_or_else(|_| {
        panic!("{S3} is not set: run the tests through the test command (cargo xtask test), which starts a server")
    });
    let bucket = format!("whole-server-{}", std::process::id());
    let address = endpoint.trim_start_matches("http://");
    assert_eq!(exchange(address, "PUT", &format!("/{bucket}"), "", b"").0, 200);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let settings = [
        format!("media.uri=s3://{bucket}/media"),
        format!("media.s3.endpoint={endpoint}"),
        "media.s3.region=us-east-1".to_owned(),
        "media.s3.access_key_id=test".to_owned(),
        "media.s3.secret_access_key=test".to_owned(),
        "media.s3.allow_http=true".to_owned(),
    ];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let made = run(path, &[&["user", "create", "alice", "--password", "secret"], &set[..]].concat());
    assert!(made.success, "{}", made.err);
    let server = Server::start(path, &set);
    let identifier = serde_json::json!({ "type": "m.id.user", "user": "alice" });
    let login =
        serde_json::json!({ "type": "m.login.password", "identifier": identifier, "password": "secret" });
    let (_, login) = server.post("/_matrix/client/v3/login", &login);
    let authorization =
        format!("Authorization: Bearer {}\r\n", login["access_token"].as_str().expect("a token"));

    let content: Vec<u8> = (0..SIZE).map(|n| (n * 7 + n / 1021) as u8).collect();
    let (status, answer) =
        exchange(&server.address, "POST", "/_matrix/media/v3/upload", &authorization, &content);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let uri = answer["content_uri"].as_str().expect("a URI").trim_start_matches("mxc://");
    let target = format!("/_matrix/client/v1/media/download/{uri}");
    server.stop();

    let server = Server::start(path, &set);
    let (status, all) = exchange(&server.address, "GET", &target, &authorization, b"");
    assert!(status == 200 && all == content, "{status}, {} bytes", all.len());
    let range = format!("{authorization}Range: bytes=6000000-12000000\r\n");
    let (status, part) = exchange(&server.address, "GET", &target, &range, b"");
    assert!(status == 206 && part == content[6_000_000..=12_000_000], "{status}, {} bytes", part.len());
    server.stop();
    assert!(!path.join("myelin-data/media").exists(), "nothing lies in the directory");
}
