//! Media over HTTP: uploads, downloads and their headers, thumbnails, the deprecated paths, administration.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use myelin_api::config::UnauthenticatedMedia;
use serde_json::json;

use crate::world::{Answer, World};

const UPLOAD: &str = "/_matrix/media/v3/upload";
const TEXT: &[u8] = b"hello, world";

/// The whole of a PNG: one red pixel.
const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDATx\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82";

fn upload(world: &World, token: &str, query: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(format!("{UPLOAD}{query}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", content_type);
    world.send(request.body(body.into()).unwrap())
}

/// `server/media id` of something new.
fn uploaded(world: &World, token: &str, content_type: &str, body: &'static [u8]) -> String {
    let answer = upload(world, token, "?filename=a%20b.txt", content_type, body).ok();
    answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
}

fn get(world: &World, path: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path).header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).unwrap())
}

fn download(world: &World, media: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
    get(world, &format!("/_matrix/client/v1/media/download/{media}"), token, headers)
}

#[test]
fn what_is_uploaded_is_had_with_careful_headers() {
    let world = World::new();
    let token = world.user("alice");
    let media = uploaded(&world, &token, "text/plain", TEXT);
    assert!(media.starts_with("localhost/"));
    let answer = download(&world, &media, &token, &[]);
    assert_eq!((answer.status.as_u16(), &*answer.bytes), (200, TEXT));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "12"),
        ("content-disposition", "inline; filename=\"a b.txt\""),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("access-control-allow-origin", "*"),
        ("cache-control", "private, max-age=31536000, immutable"),
    ] {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    assert!(
        answer.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("sandbox; default-src 'none'")
    );
    let named = download(&world, &format!("{media}/other.txt"), &token, &[]);
    assert_eq!(named.headers["content-disposition"], "inline; filename=other.txt");
    let page = uploaded(&world, &token, "text/html", b"<script>alert(1)</script>");
    let answer = download(&world, &page, &token, &[]);
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"a b.txt\"");
    let nonsense = uploaded(&world, &token, "nonsense", b"x");
    assert_eq!(download(&world, &nonsense, &token, &[]).headers["content-type"], "application/octet-stream");
}

#[test]
fn parts_and_what_is_held_already() {
    let world = World::new();
    let token = world.user("alice");
    let media = uploaded(&world, &token, "text/plain", TEXT);
    let part = download(&world, &media, &token, &[("range", "bytes=7-")]);
    assert_eq!((part.status.as_u16(), &*part.bytes), (206, &b"world"[..]));
    assert_eq!(part.headers["content-range"], "bytes 7-11/12");
    assert_eq!(part.headers["content-length"], "5");
    let beyond = download(&world, &media, &token, &[("range", "bytes=12-")]);
    assert_eq!((beyond.status.as_u16(), beyond.bytes.len()), (416, 0));
    assert_eq!(beyond.headers["content-range"], "bytes */12");
    let several = download(&world, &media, &token, &[("range", "bytes=0-1,3-4")]);
    assert_eq!((several.status.as_u16(), &*several.bytes), (200, TEXT));
    let etag = part.headers["etag"].to_str().unwrap();
    let held = download(&world, &media, &token, &[("if-none-match", etag)]);
    assert_eq!((held.status.as_u16(), held.bytes.len()), (304, 0));
    let stale = download(&world, &media, &token, &[("range", "bytes=7-"), ("if-range", "\"other\"")]);
    assert_eq!((stale.status.as_u16(), &*stale.bytes), (200, TEXT));
    let head = world.request(
        Method::HEAD,
        &format!("/_matrix/client/v1/media/download/{media}"),
        Some(&token),
        Body::empty(),
    );
    assert_eq!(
        (head.status.as_u16(), head.bytes.len(), head.headers["content-length"].to_str().unwrap()),
        (200, 0, "12")
    );
}

#[test]
fn empty_files_are_files() {
    let world = World::new();
    let token = world.user("alice");
    let media = uploaded(&world, &token, "text/plain", b"");
    let answer = download(&world, &media, &token, &[]);
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (200, 0));
    assert_eq!(download(&world, &media, &token, &[("range", "bytes=0-")]).status, 416);
    let thumbnail =
        get(&world, &format!("/_matrix/client/v1/media/thumbnail/{media}?width=9&height=9"), &token, &[]);
    assert_eq!(thumbnail.error(), (400, "M_UNKNOWN"));
}

#[test]
fn who_may_upload_and_how_much() {
    let world = World::new();
    let token = world.user("alice");
    let limits = world.get("/_matrix/client/v1/media/config", Some(&token)).ok();
    assert_eq!(limits, json!({ "m.upload.size": 1024 * 1024 }));
    assert_eq!(world.get("/_matrix/media/v3/config", Some(&token)).ok(), limits);
    assert_eq!(world.get("/_matrix/client/v1/media/config", None).error(), (401, "M_MISSING_TOKEN"));
    let large = vec![0; 1024 * 1024 + 1];
    assert_eq!(upload(&world, &token, "", "text/plain", large.clone()).error(), (413, "M_TOO_LARGE"));
    // Without a length, it turns out while it comes.
    let chunks = large.chunks(70_000).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)));
    let body = Body::from_stream(futures::stream::iter(chunks.collect::<Vec<_>>()));
    assert_eq!(upload(&world, &token, "", "text/plain", body).error(), (413, "M_TOO_LARGE"));
    assert_eq!(world.request(Method::POST, UPLOAD, None, "x").error(), (401, "M_MISSING_TOKEN"));
    assert_eq!(upload(&world, &token, "", "text/plain", large[1..].to_vec()).status, 200);
}

#[test]
fn a_uri_first_and_its_content_later() {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.user(name));
    let created = world.request(Method::POST, "/_matrix/media/v1/create", Some(&alice), "").ok();
    let media = created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    assert!(created["unused_expires_at"].as_u64().unwrap() > world.sim.env().now_ms());
    let waiting = download(&world, &format!("{media}?timeout_ms=5000"), &alice, &[]);
    assert_eq!(waiting.error(), (504, "M_NOT_YET_UPLOADED"));
    let put = |token: &str, media: &str| {
        world.request(Method::PUT, &format!("{UPLOAD}/{media}"), Some(token), "late")
    };
    assert_eq!(put(&bob, &media).error(), (403, "M_FORBIDDEN"));
    assert_eq!(put(&alice, "localhost/unknown").error(), (404, "M_NOT_FOUND"));
    assert_eq!(put(&alice, "localhost/..").error(), (404, "M_NOT_FOUND"));
    assert_eq!(put(&alice, &media).ok(), json!({}));
    assert_eq!(put(&alice, &media).error(), (409, "M_CANNOT_OVERWRITE_MEDIA"));
    assert_eq!(&*download(&world, &media, &bob, &[]).bytes, b"late");
    let create = || world.request(Method::POST, "/_matrix/media/v1/create", Some(&alice), "");
    (0..3).for_each(|_| drop(create().ok()));
    let refused = create();
    assert_eq!(refused.error(), (429, "M_LIMIT_EXCEEDED"));
    assert!(refused.json["retry_after_ms"].as_u64().unwrap() > 0);
}

#[test]
fn thumbnails_are_images_and_only_of_images() {
    let world = World::new();
    let token = world.user("alice");
    let media = uploaded(&world, &token, "application/octet-stream", PIXEL);
    let thumbnail = |media: &str, query: &str| {
        get(&world, &format!("/_matrix/client/v1/media/thumbnail/{media}?{query}"), &token, &[])
    };
    let small = thumbnail(&media, "width=32&height=32&method=crop");
    assert_eq!((small.status.as_u16(), &*small.bytes), (200, PIXEL));
    assert_eq!(small.headers["content-type"], "image/png");
    assert_eq!(small.headers["content-disposition"], "inline; filename=thumbnail.png");
    for (query, error) in [
        ("width=32", (400, "M_MISSING_PARAM")),
        ("width=0&height=5", (400, "M_INVALID_PARAM")),
        ("width=-5&height=5", (400, "M_INVALID_PARAM")),
        ("width=5.5&height=5", (400, "M_INVALID_PARAM")),
        ("width=5&height=5&method=stretch", (400, "M_INVALID_PARAM")),
    ] {
        assert_eq!(thumbnail(&media, query).error(), error, "{query}");
    }
    let text = uploaded(&world, &token, "image/png", TEXT);
    assert_eq!(thumbnail(&text, "width=5&height=5").error(), (400, "M_UNKNOWN"));
    assert_eq!(thumbnail("localhost/unknown", "width=5&height=5").error(), (404, "M_NOT_FOUND"));
    assert_eq!(
        thumbnail("elsewhere.test/x", "width=5&height=5&allow_remote=false").error(),
        (404, "M_NOT_FOUND")
    );
}

#[test]
fn the_old_paths_serve_what_they_are_told_to() {
    let all = |world: &World, media: &str| {
        ["v3", "r0", "v1"].map(|version| {
            let path = format!("/_matrix/media/{version}/download/{media}");
            world.get(&path, None).status.as_u16()
        })
    };
    let world = World::new();
    let media = uploaded(&world, &world.user("alice"), "text/plain", TEXT);
    assert_eq!(all(&world, &media), [404; 3]);
    let preview = "/_matrix/media/v3/preview_url?url=https%3A%2F%2Fpage.test%2F";
    assert_eq!(world.get(preview, Some(&world.user("bob"))).error(), (404, "M_NOT_FOUND"));
    let world = World::with(|config| config.unauthenticated_media = UnauthenticatedMedia::Everything);
    let media = uploaded(&world, &world.user("alice"), "image/png", PIXEL);
    assert_eq!(all(&world, &media), [200; 3]);
    let refused = world.get(preview, Some(&world.user("bob")));
    assert_eq!(refused.error(), (404, "M_UNRECOGNIZED"), "there are no previews at all");
    let thumbnail = world.get(&format!("/_matrix/media/v3/thumbnail/{media}?width=5&height=5"), None);
    assert_eq!((thumbnail.status.as_u16(), &*thumbnail.bytes), (200, PIXEL));
    let named = world.get(&format!("/_matrix/media/v3/download/{media}/x.png"), None);
    assert_eq!(named.headers["content-disposition"], "inline; filename=x.png");
    assert!(named.headers["cache-control"].to_str().unwrap().starts_with("public"));
}

#[test]
fn a_freeze_holds_back_what_came_after_it() {
    let freeze_ms = myelin_testenv::Sim::new(1).env().now_ms() + 60_000;
    let world = World::with(|config| {
        config.unauthenticated_media = UnauthenticatedMedia::StoredBefore(freeze_ms);
    });
    let token = world.user("alice");
    let old = uploaded(&world, &token, "image/png", PIXEL);
    world.sim.clock().advance(std::time::Duration::from_secs(120));
    let new = uploaded(&world, &token, "image/png", PIXEL);
    for (media, status) in [(&old, 200), (&new, 404)] {
        assert_eq!(world.get(&format!("/_matrix/media/v3/download/{media}"), None).status, status);
        let thumbnail = format!("/_matrix/media/v3/thumbnail/{media}?width=5&height=5");
        assert_eq!(world.get(&thumbnail, None).status, status);
        assert_eq!(download(&world, media, &token, &[]).status, 200);
    }
}

#[test]
fn administrators_look_quarantine_and_delete() {
    let world = World::new();
    let (alice, root) = (world.user("alice"), world.admin("root"));
    let media = uploaded(&world, &alice, "text/plain", TEXT);
    let item = format!("/_myelin/admin/v1/media/item/{media}");
    assert_eq!(world.get(&item, Some(&alice)).error(), (403, "M_FORBIDDEN"));
    let shown = world.get(&item, Some(&root)).ok();
    assert_eq!((&shown["size"], &shown["uploader"]), (&json!(12), &json!("@alice:localhost")));
    let quarantine = format!("{item}/quarantine");
    world.put(&quarantine, Some(&root), &json!({})).ok();
    assert_eq!(download(&world, &media, &alice, &[]).error(), (404, "M_NOT_FOUND"));
    let listed = world.get("/_myelin/admin/v1/media/quarantined", Some(&root)).ok();
    assert_eq!(listed["quarantined"][0]["by"], "@root:localhost");
    world.request(Method::DELETE, &quarantine, Some(&root), "").ok();
    assert_eq!(download(&world, &media, &alice, &[]).status, 200);

    let (room_id, _) = world.room_with_message(&alice);
    let content = json!({ "msgtype": "m.file", "body": "a", "url": format!("mxc://{media}") });
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/2");
    world.put(&path, Some(&alice), &content).ok();
    let room = format!("/_myelin/admin/v1/media/room/{room_id}/quarantine");
    assert_eq!(world.put(&room, Some(&root), &json!({})).ok(), json!({ "quarantined": 1 }));
    assert_eq!(download(&world, &media, &alice, &[]).error(), (404, "M_NOT_FOUND"));

    let of_user = "/_myelin/admin/v1/media/user/@alice:localhost";
    let listed = world.get(of_user, Some(&root)).ok();
    assert_eq!((listed["media"].as_array().unwrap().len(), &listed["bytes"]), (1, &json!(12)));
    assert_eq!(world.get("/_myelin/admin/v1/media/usage", Some(&root)).ok()["total_bytes"], 12);
    world.put(&format!("{of_user}/quarantine"), Some(&root), &json!({})).ok();
    let deleted = world.request(Method::DELETE, of_user, Some(&root), "").ok();
    assert_eq!(deleted, json!({ "deleted": 1, "bytes": 12 }));
    assert_eq!(world.get(&item, Some(&root)).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.request(Method::DELETE, &item, Some(&root), "").error(), (404, "M_NOT_FOUND"));
    let purge = world.post("/_myelin/admin/v1/media/purge_remote", Some(&root), &json!({ "unused_days": 1 }));
    assert_eq!(purge.ok(), json!({ "deleted": 0, "bytes": 0 }));
}
