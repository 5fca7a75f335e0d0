//! Files of users elsewhere, and previews of URLs: through the simulated network, with what goes wrong in it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    routing::{any, get},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use myelin_core::UserNid;
use myelin_media::{Error, Media, Mxc, Upload, Wants};
use myelin_testkit::world::World;
use ruma::server_name;
use serde_json::json;
use tower::ServiceExt;

const A: &str = "a.test";
const B: &str = "b.test";

struct File {
    content_type: String,
    file_name: Option<String>,
    bytes: Vec<u8>,
}

fn media(world: &World, name: &str) -> Arc<Media> {
    world.server(name).expect("it is on").media.clone()
}

fn upload(world: &World, name: &str, bytes: Vec<u8>) -> Mxc {
    let upload = Upload {
        content_type: Some("image/png".to_owned()),
        file_name: Some("Übung \"1\".png".to_owned()),
        size: None,
        body: stream::iter([Ok(Bytes::from(bytes))]).boxed(),
    };
    world.run(media(world, name).upload(UserNid(1), upload)).expect("an upload")
}

fn open(world: &World, name: &str, mxc: &Mxc) -> Result<File, Error> {
    let media = media(world, name);
    world.run(async move {
        let found = media.open(mxc, &Wants::default()).await?;
        let (content_type, file_name) = (found.content_type.clone(), found.file_name.clone());
        let pieces: Result<Vec<Bytes>, _> = found.read(None).await?.try_collect().await;
        let bytes = pieces.map_err(|error| Error::BrokenOff(error.to_string()))?.concat();
        Ok(File { content_type, file_name, bytes })
    })
}

fn bytes(size: usize) -> Vec<u8> {
    // Line breaks and hyphens, of which boundaries are made.
    (0..size).map(|at| b"\r\n--abc"[at * at % 7]).collect()
}

/// What a server answers to a request as it is.
fn ask(world: &World, name: &str, request: Request<Body>) -> (StatusCode, Bytes) {
    let router = world.server(name).expect("it is on").router();
    world.run(async move {
        let answer = router.oneshot(request).await.unwrap_or_else(|never| match never {});
        let status = answer.status();
        (status, answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default())
    })
}

#[test]
fn a_file_comes_from_where_it_is_and_stays() {
    let world = World::new(1).servers([A, B]);
    for size in [0, 5, 100_000, 3_000_000] {
        let mxc = upload(&world, A, bytes(size));
        let file = open(&world, B, &mxc).unwrap();
        assert!(file.bytes == bytes(size), "{size}");
        assert_eq!((&*file.content_type, file.file_name.as_deref()), ("image/png", Some("Übung \"1\".png")));
        world.pass(Duration::from_secs(1));
        world.cut(&[A], &[B]);
        assert!(open(&world, B, &mxc).unwrap().bytes == bytes(size), "it is kept");
        world.heal();
    }
}

#[test]
fn whatever_goes_wrong_nobody_gets_half_a_file() {
    for seed in 0..5 {
        let world = World::new(seed).servers([A, B]);
        let mut faults = world.network().faults();
        (faults.cut_off, faults.lost_answers, faults.hung_up) = (500, 200, 100);
        world.network().set_faults(faults);
        let mxc = upload(&world, A, bytes(50_000));
        let mut attempts = 0;
        let file = loop {
            attempts += 1;
            match open(&world, B, &mxc) {
                Ok(file) => break file,
                Err(_) if attempts < 50 => world.pass(Duration::from_secs(130)),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        };
        assert!(file.bytes == bytes(50_000), "seed {seed}, attempt {attempts}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::new(2).servers([A, B]);
    for id in ["nothing", "-", "_"] {
        let mxc = Mxc::new(server_name!("a.test"), id).unwrap();
        assert!(matches!(open(&world, B, &mxc), Err(Error::NotFound)));
    }
    let nobody = Mxc::new(server_name!("nobody.test"), "x").unwrap();
    assert!(matches!(open(&world, B, &nobody), Err(Error::Unreachable(_))));
}

#[test]
fn only_servers_that_sign_get_files_and_only_those_of_this_server() {
    let world = World::new(3).servers([A, B]);
    let mxc = upload(&world, A, bytes(5));
    let path = format!("/_matrix/federation/v1/media/download/{}", mxc.id());
    let unsigned = Request::get(&path).body(Body::empty()).unwrap();
    assert_eq!(ask(&world, A, unsigned).0, StatusCode::UNAUTHORIZED);
    open(&world, B, &mxc).unwrap();
    world.pass(Duration::from_secs(1));
    // B has a copy now, which is not its own.
    let here = world.server(A).unwrap().federation.client.clone();
    let budget = myelin_federation::Budget::ORDINARY;
    let refused = world.run(here.request(server_name!("b.test"), Method::GET, &path, None, budget));
    assert!(refused.unwrap_err().to_string().contains("404"));
}

#[test]
fn a_file_that_an_administrator_took_away_is_neither_served_nor_fetched() {
    let world = World::new(4).servers([A, B]);
    let mxc = upload(&world, A, bytes(5));
    assert!(world.run(media(&world, A).quarantine(&mxc, "@admin:a.test")).unwrap());
    assert!(matches!(open(&world, B, &mxc), Err(Error::NotFound)));
    let mxc = upload(&world, A, bytes(6));
    assert!(world.run(media(&world, B).quarantine(&mxc, "@admin:b.test")).unwrap());
    assert!(matches!(open(&world, B, &mxc), Err(Error::NotFound)));
    assert!(open(&world, A, &mxc).is_ok(), "it is taken away at one server only");
}

/// One grey pixel.
const PNG: &[u8] =
    b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:\
    ~\x9bU\x00\x00\x00\x0aIDATx\x9cch\x00\x00\x00\x82\x00\x81w\xcdr\xb6\x00\x00\x00\x00IEND\xaeB`\x82";

#[test]
fn thumbnails_are_made_for_other_servers_and_of_their_files() {
    let world = World::new(9).servers([A, B]);
    let mxc = upload(&world, A, PNG.to_vec());
    let alice = world.user("@alice:b.test");
    let path = format!("/_matrix/client/v1/media/thumbnail/a.test/{}?width=32&height=32", mxc.id());
    assert!(world.run(alice.requests(Method::GET, &path, None)).unwrap().is_ok());
    let there = world.server(B).unwrap().federation.client.clone();
    let budget = myelin_federation::Budget::ORDINARY;
    let ask = |id: &str, query: &str| {
        let path = format!("/_matrix/federation/v1/media/thumbnail/{id}?{query}");
        world.run(there.request(server_name!("a.test"), Method::GET, &path, None, budget))
    };
    let parts = ask(mxc.id(), "width=32&height=32&method=crop").unwrap();
    let text = String::from_utf8_lossy(&parts);
    assert!(
        text.contains("Content-Type: application/json\r\n\r\n{}\r\n")
            && text.contains("Content-Type: image/"),
        "{text}"
    );
    let file = upload(&world, A, bytes(100));
    for (id, query, refusal) in [
        (file.id(), "width=32&height=32", "400 Bad Request M_UNKNOWN"),
        ("nothing", "width=32&height=32", "404 Not Found M_NOT_FOUND"),
        (mxc.id(), "width=32", "400 Bad Request M_MISSING_PARAM"),
        (mxc.id(), "width=-1&height=32", "400 Bad Request M_INVALID_PARAM"),
    ] {
        let error = ask(id, query).unwrap_err().to_string();
        assert!(error.contains(refusal), "{query}: {error}");
    }
}

/// A server of a test: answers with its keys never, with files as `answer` says.
fn foreign(world: &World, router: Router) {
    world.network().connect(server_name!("old.test"), router);
}

fn file_answer(content_type: &str, body: &'static str) -> Response<Body> {
    let answer = Response::builder().header("content-type", content_type);
    answer.header("content-disposition", "inline; filename=x.txt").body(Body::from(body)).unwrap()
}

#[test]
fn older_servers_are_asked_the_old_way() {
    let world = World::new(5).servers([B]);
    let unknown = || async { (StatusCode::NOT_FOUND, r#"{"errcode": "M_UNRECOGNIZED", "error": ""}"#) };
    let old = get(|request: Request<Body>| async move {
        assert!(request.uri().query().is_some_and(|query| query.contains("allow_remote=false")));
        assert!(!request.headers().contains_key("authorization"));
        file_answer("text/plain", "old")
    });
    let router = Router::new()
        .route("/_matrix/federation/v1/media/download/{id}", any(unknown))
        .route("/_matrix/media/v3/download/{server}/{id}", old);
    foreign(&world, router);
    let file = open(&world, B, &Mxc::new(server_name!("old.test"), "x").unwrap()).unwrap();
    assert_eq!((&*file.bytes, &*file.content_type), (b"old".as_slice(), "text/plain"));
    assert_eq!(file.file_name.as_deref(), Some("x.txt"));
}

#[test]
fn a_file_may_lie_elsewhere() {
    let world = World::new(6).servers([B]);
    let parts = |location: &str| {
        let body = format!(
            "--x\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--x\r\nLocation: {location}\r\n\r\n\r\n--x--\r\n"
        );
        Response::builder()
            .header("content-type", "multipart/mixed; boundary=x")
            .body(Body::from(body))
            .unwrap()
    };
    let download = move |request: Request<Body>| async move {
        match request.uri().path().rsplit('/').next() {
            Some("far") => parts("https://old.test/cdn/file"),
            Some("plain") => parts("http://old.test/cdn/file"),
            _ => parts("nonsense"),
        }
    };
    let router = Router::new()
        .route("/_matrix/federation/v1/media/download/{id}", get(download))
        .route("/cdn/file", get(|| async { file_answer("image/gif", "far away") }));
    foreign(&world, router);
    let file = open(&world, B, &Mxc::new(server_name!("old.test"), "far").unwrap()).unwrap();
    assert_eq!((&*file.bytes, &*file.content_type), (b"far away".as_slice(), "image/gif"));
    for id in ["plain", "nonsense"] {
        let mxc = Mxc::new(server_name!("old.test"), id).unwrap();
        assert!(matches!(open(&world, B, &mxc), Err(Error::Unreachable(_))), "{id}");
    }
}

#[test]
fn answers_that_cannot_be_read_are_no_files() {
    let world = World::new(7).servers([B]);
    let download = |request: Request<Body>| async move {
        let (content_type, body) = match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "html" => ("text/html", "<html>"),
            "cut" => ("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x\r\n\r\nhalf"),
            "one" => ("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x--"),
            "other" => ("multipart/mixed; boundary=y", "--x\r\n\r\n{}\r\n--x\r\n\r\nhalf\r\n--x--"),
            _ => ("multipart/mixed", ""),
        };
        file_answer(content_type, body)
    };
    foreign(&world, Router::new().route("/_matrix/federation/v1/media/download/{id}", get(download)));
    for id in ["html", "cut", "one", "other", "none"] {
        let mxc = Mxc::new(server_name!("old.test"), id).unwrap();
        let outcome = open(&world, B, &mxc).map(|file| file.bytes);
        assert!(matches!(outcome, Err(Error::Unreachable(_) | Error::BrokenOff(_))), "{id}: {outcome:?}");
    }
}

#[test]
fn a_url_is_previewed_for_whoever_is_signed_in() {
    let world = World::new(8).servers([A]);
    let page = "<title>A page</title><meta property=og:image content=/none>";
    let router = Router::new().route("/page", get(move || async move { file_answer("text/html", page) }));
    world.network().connect(server_name!("web.test"), router);
    let path = "/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fweb.test%2Fpage&ts=1";
    let refused = ask(&world, A, Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(refused.0, StatusCode::UNAUTHORIZED);
    let alice = world.user("@alice:a.test");
    let answer = world.run(alice.requests(Method::GET, path, None)).unwrap();
    assert_eq!(answer.ok(), json!({"og:title": "A page"}));
    for (url, status) in [
        ("nonsense", 400),
        ("ftp%3A%2F%2Fweb.test%2F", 400),
        ("https%3A%2F%2Fweb.test%2Fmissing", 502),
        ("https%3A%2F%2Fnobody.test%2F", 502),
    ] {
        let path = format!("/_matrix/client/v1/media/preview_url?url={url}");
        let answer = world.run(alice.requests(Method::GET, &path, None)).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{url}");
    }
    let missing =
        world.run(alice.requests(Method::GET, "/_matrix/client/v1/media/preview_url", None)).unwrap();
    assert_eq!(missing.json["errcode"], "M_MISSING_PARAM");
}
