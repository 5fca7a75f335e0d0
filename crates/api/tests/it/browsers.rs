//! What a client in a browser needs (Client-Server API, "Web Browser Clients").

use http::Method;

use crate::world::{Answer, World};

#[track_caller]
fn assert_cors(answer: &Answer) {
    let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("access-control-allow-origin"), Some("*"));
    assert_eq!(header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(header("access-control-allow-headers"), Some("X-Requested-With, Content-Type, Authorization"));
}

#[test]
fn every_answer_has_the_cross_origin_headers() {
    let world = World::new();
    let requests = [
        (Method::GET, "/_matrix/client/versions", 200),
        (Method::GET, "/_matrix/client/v3/capabilities", 401),
        (Method::GET, "/_matrix/client/v3/nonsense", 404),
        (Method::PATCH, "/_matrix/client/versions", 405),
        (Method::POST, "/_synapse/admin/v1/register", 400),
        (Method::GET, "/.well-known/matrix/client", 404),
        (Method::GET, "/_myelin/health/live", 200),
    ];
    for (method, path, status) in requests {
        let answer = world.request(method, path, None, "");
        assert_eq!(answer.status, status, "{path}");
        assert_cors(&answer);
        assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    }
}

#[test]
fn preflight_does_nothing_else() {
    let world = World::new();
    for path in ["/_matrix/client/v3/logout/all", "/_matrix/client/v3/nonsense"] {
        let answer = world.request(Method::OPTIONS, path, None, "");
        assert_eq!(answer.status, 200);
        assert_cors(&answer);
    }
}
