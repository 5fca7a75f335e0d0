//! `doctor`: each failure is found, says what to do, and shows in the exit code.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use crate::process::{ANY_PORT, Said, Server, run};

fn examine(directory: &Path, settings: &[&str]) -> Said {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    run(directory, &["doctor"].into_iter().chain(set).collect::<Vec<_>>())
}

#[test]
fn a_fresh_installation_is_well_and_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = examine(directory.path(), &[ANY_PORT]);
    assert!(said.success, "{}", said.out);
    assert!(said.out.contains("the first start makes it"), "{}", said.out);
    assert!(!directory.path().join("myelin-data").exists(), "doctor made something");
}

#[test]
fn a_running_server_is_recognised() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]);
    let here = format!("server.listen=[{{ address = \"{}\" }}]", server.address);
    let public = format!("server.public_base_url=http://{}", server.address);
    let said = examine(directory.path(), &[&here, &public]);
    for words in ["is answered by myelin", "is in use by the running server", "clients reach http://"] {
        assert!(said.out.contains(words), "{words} is not in {}", said.out);
    }
    // The server itself does not know its public URL: it serves no well-known document.
    assert!(!said.success && said.out.contains("FAIL  well-known"), "{}", said.out);
    server.stop();
}

#[test]
fn what_is_wrong_is_found_with_a_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    assert!(run(path, &["registration-token", "create"]).success, "a store");
    fs::write(path.join("plain"), "").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("server.listen=[{{ address = \"{}\" }}]", taken.local_addr().expect("bound"));
    let nowhere = "server.listen=[{ address = \"192.0.2.1:8008\" }]";
    let tls =
        "server.listen=[{ address = \"127.0.0.1:0\", tls = { cert = \"none.pem\", key = \"none.pem\" } }]";
    for (settings, found, remedy) in [
        (&[taken.as_str()][..], "is in use by another program", "change server.listen"),
        (&[nowhere], "does not have the address 192.0.2.1", "ip addr"),
        (&[tls], "FAIL  TLS: cannot read none.pem", "check server.listen"),
        (
            &[ANY_PORT, "server.name=other.org"],
            "belongs to the server 'localhost'",
            "set server.name = \"localhost\"",
        ),
        (
            &[ANY_PORT, "server.public_base_url=http://127.0.0.1:1"],
            "connecting to 127.0.0.1:1: ",
            "start the server",
        ),
        (&[ANY_PORT, "store.uri=embedded:plain/data"], "plain is not a directory", "change store.uri"),
    ] {
        let said = examine(path, settings);
        assert!(!said.success, "{settings:?}: {}", said.out);
        assert!(said.out.contains(found) && said.out.contains(remedy), "{settings:?}: {}", said.out);
    }

    let key = path.join("myelin-data/signing.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    let said = examine(path, &[ANY_PORT]);
    assert!(!said.success && said.out.contains("-> chmod 600 ./myelin-data/signing.key"), "{}", said.out);
    fs::write(&key, "nonsense").expect("written");
    let said = examine(path, &[ANY_PORT]);
    assert!(!said.success && said.out.contains("restore signing.key from a backup"), "{}", said.out);
    fs::remove_file(&key).expect("removed");
    let said = examine(path, &[ANY_PORT]);
    assert!(!said.success && said.out.contains("FAIL  signing key: it is gone"), "{}", said.out);
}

#[test]
fn a_tls_listener_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(directory.path().join("cert.pem"), made.cert.pem()).expect("written");
    fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let listen = |address: &str| {
        format!(
            "server.listen=[{{ address = \"{address}\", tls = {{ cert = \"cert.pem\", key = \"key.pem\" }} }}]"
        )
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let named = format!("server.name={free}");
    let server = Server::start(directory.path(), &["--set", &listen(&free.to_string()), "--set", &named]);
    assert!(server.summary.contains("https://127.0.0.1:"), "{}", server.summary);
    let trusted = "federation.ca_file=cert.pem";
    let public = format!("server.public_base_url=https://{}", server.address);
    let said = examine(directory.path(), &[&listen(&server.address), &public, trusted, &named]);
    assert!(said.out.contains(&format!("ok    federation: other servers find {free}")), "{}", said.out);
    assert!(said.out.contains(&format!("clients reach https://{}", server.address)), "{}", said.out);
    assert!(said.out.contains("is answered by myelin"), "{}", said.out);
    let said = examine(directory.path(), &[&listen(&server.address), &public, &named]);
    assert!(said.out.contains("FAIL  federation: other servers do not find"), "{}", said.out);
    assert!(said.out.contains("signed by an authority that is not trusted"), "{}", said.out);
    server.stop();
}
