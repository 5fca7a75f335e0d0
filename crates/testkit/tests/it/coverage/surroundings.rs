//! What is around the server of a place: a page to preview, an identity server, a letterbox, and what the server is told
//! of them.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    response::Html,
    routing::{get, post},
};
use futures::{FutureExt, future::BoxFuture};
use http::header;
use myelin_api::{
    config::{SupportContact, Turn, TurnCredentials, UnauthenticatedMedia, WellKnown},
    respond::Json,
};
use myelin_testkit::{network::Network, server::signing_key, settings::Settings};
use myelin_users::mail::{Mail, MailError, MailSetup, Mailer};
use ruma::{ServerName, owned_server_name, server_name};
use serde_json::{Value, json};

use super::place::PNG;

pub const IDENTITY_SERVER: &str = "id.test";
/// Has an image.
pub const PAGE: &str = "https://page.test/";
/// Whose it is, the identity server does not know.
pub const ADDRESS: &str = "alice@mail.test";

pub const OLD_IDENTITY_SERVERS: &str = "homeservers may treat it as optional, the specification says";
const BASE_URL: &str = "https://here.test";
const HTML: &str = r#"<!DOCTYPE html><html><head><title>Cake</title>
    <meta property="og:image" content="https://page.test/pixel.png"></head><body>About cake.</body></html>"#;

/// All mail of a server.
#[derive(Clone, Default)]
pub struct Letterbox(Arc<Mutex<Vec<Mail>>>);

impl Letterbox {
    /// Path and query of the link in the newest mail.
    pub fn newest_link(&self) -> String {
        let mails = self.0.lock().expect("not poisoned");
        let text = &mails.last().expect("a mail").text;
        let link = text.split(BASE_URL).nth(1).and_then(|rest| rest.split_whitespace().next());
        link.expect("a link").to_owned()
    }
}

impl Mailer for Letterbox {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        self.0.lock().expect("not poisoned").push(mail);
        async { Ok(()) }.boxed()
    }
}

/// Everything that a server can be told of is there.
pub fn settings(name: &ServerName, letterbox: &Letterbox) -> Settings {
    let mut settings = Settings::new(name);
    settings.identity_servers = vec![owned_server_name!("id.test")];
    settings.accounts.mail = Some(MailSetup {
        mailer: Arc::new(letterbox.clone()),
        base_url: BASE_URL.to_owned(),
        next_link_hosts: Vec::new(),
        required: false,
    });
    settings.edge.unauthenticated_media = UnauthenticatedMedia::Everything;
    let secret = TurnCredentials::Secret("secret".to_owned());
    let uris = vec!["turn:turn.test?transport=udp".to_owned()];
    settings.edge.turn = Some(Turn { uris, credentials: secret, lifetime_s: 86_400 });
    let contact = SupportContact {
        role: "m.role.admin".to_owned(),
        matrix_id: Some("@admin:here.test".to_owned()),
        email_address: None,
    };
    settings.edge.well_known = WellKnown {
        client_base_url: Some(BASE_URL.to_owned()),
        server: Some("here.test:443".to_owned()),
        support_page: Some("https://here.test/support".to_owned()),
        support_contacts: vec![contact],
        policy_server_key: Some(signing_key(name).public_key_base64()),
    };
    settings
}

pub fn connect(network: &Network) {
    let image = || async { ([(header::CONTENT_TYPE, "image/png")], PNG) };
    let page = Router::new().route("/", get(|| async { Html(HTML) })).route("/pixel.png", get(image));
    network.connect(server_name!("page.test"), page);
    network.connect(server_name!("id.test"), identity_server());
}

/// Binds whatever it is asked to bind, and knows nobody.
fn identity_server() -> Router {
    let answer = |json: Value| move || async move { Json(json) };
    let details = json!({ "algorithms": ["sha256"], "lookup_pepper": "pepper" });
    let key = json!({
        "public_key": signing_key(server_name!("id.test")).public_key_base64(),
        "key_validity_url": "https://id.test/_matrix/identity/v2/pubkey/isvalid",
    });
    let stored = json!({ "token": "token", "public_keys": [key], "display_name": "c...@m..." });
    let bound = json!({ "medium": "email", "address": ADDRESS, "mxid": "@alice:here.test" });
    let path = |rest: &str| format!("/_matrix/identity/v2/{rest}");
    Router::new()
        .route(&path("hash_details"), get(answer(details)))
        .route(&path("lookup"), post(answer(json!({ "mappings": {} }))))
        .route(&path("store-invite"), post(answer(stored)))
        .route(&path("3pid/bind"), post(answer(bound)))
        .route(&path("3pid/unbind"), post(answer(json!({}))))
}
