//! The network between simulated servers: a request goes straight to the router of the server that it names.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::BodyExt;
use myelin_federation::{Budget, Transport, TransportError};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tower::ServiceExt;

/// Cheap to clone; clones are the same network.
#[derive(Clone, Default)]
pub struct Network {
    servers: Arc<Mutex<HashMap<OwnedServerName, Router>>>,
}

impl Network {
    pub fn connect(&self, name: &ServerName, router: Router) {
        self.servers.lock().insert(name.to_owned(), router);
    }

    /// Nobody reaches the server any more.
    pub fn disconnect(&self, name: &ServerName) {
        self.servers.lock().remove(name);
    }

    /// What one server sees of the network.
    pub fn port_of(&self, name: &ServerName) -> Arc<dyn Transport> {
        Arc::new(Port { network: self.clone(), name: name.to_owned() })
    }

    async fn carry(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, TransportError> {
        let router = self.servers.lock().get(to).cloned();
        let router = router.ok_or_else(|| TransportError::Unreachable(format!("nobody is '{to}'")))?;
        let answer = router.oneshot(request.map(Body::from)).await;
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let lost = |_| TransportError::Unreachable("the answer broke off".to_owned());
        let body = body.collect().await.map_err(lost)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

struct Port {
    network: Network,
    name: OwnedServerName,
}

impl Transport for Port {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        async move {
            let known = self.network.servers.lock().contains_key(&self.name);
            if !known {
                return Err(TransportError::Unreachable(format!("'{}' is cut off", self.name)));
            }
            let answer = self.network.carry(server, request).await?;
            match answer.body().len() {
                size if size > budget.body_size_max => Err(TransportError::TooLarge(budget.body_size_max)),
                _ => Ok(answer),
            }
        }
        .boxed()
    }

    fn permits(&self, _: &ServerName) -> bool {
        true
    }
}
