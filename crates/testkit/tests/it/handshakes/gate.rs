//! What stands before a server: it sees all that is asked of it, and holds up or turns away what a test wants.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, response::IntoResponse};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Net;

#[derive(Clone, Debug)]
pub enum Deed {
    Pass,
    Wait(Duration),
    /// The server does what it was asked; its answer comes so much later.
    Answer(Duration),
    /// The server is not asked.
    Say(StatusCode, Value),
}

impl Deed {
    pub fn refuse() -> Self {
        Self::Say(StatusCode::FORBIDDEN, json!({ "errcode": "M_FORBIDDEN", "error": "Not now." }))
    }
}

/// Paths of what was asked.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    pub fn count(&self, part: &str) -> usize {
        self.0.lock().iter().filter(|path| path.contains(part)).count()
    }
}

impl Net {
    /// From now on; the last gate counts.
    pub fn gate(&self, at: usize, rule: impl Fn(&str) -> Deed + Clone + Send + Sync + 'static) -> Asked {
        let (asked, server, clock) = (Asked::default(), self.servers[at].router(), self.sim.env().clock);
        let noted = asked.clone();
        let answer = move |request: Request<Body>| {
            let (noted, server, clock, rule) = (noted.clone(), server.clone(), clock.clone(), rule.clone());
            async move {
                let path = request.uri().path().to_owned();
                let deed = rule(&path);
                noted.0.lock().push(path);
                let mut late = Duration::ZERO;
                match deed {
                    Deed::Pass => {}
                    Deed::Answer(time) => late = time,
                    Deed::Wait(time) => clock.sleep(time).await,
                    Deed::Say(status, json) => return (status, json.to_string()).into_response(),
                }
                let answer = server.oneshot(request).await.expect("the router cannot fail").into_response();
                if !late.is_zero() {
                    clock.sleep(late).await;
                }
                answer
            }
        };
        self.network.connect(&self.servers[at].view.server_name, Router::new().fallback(answer));
        asked
    }
}
