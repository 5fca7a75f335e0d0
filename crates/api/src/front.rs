//! What surrounds every request: cross-origin headers (Client-Server API, "Web Browser Clients"), preflight, the `r0`
//! alias, what is left of bodies, and the net under panics. One layer, one allocation; it sees every answer, errors included.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN},
};
use tower::Service;

use myelin_core::Env;

use crate::{ApiError, leftover::Leftover, respond::Empty};

const ALLOWED_HEADERS: &str = "X-Requested-With, Content-Type, Authorization";

#[derive(Clone)]
pub struct Front<S> {
    routes: S,
    env: Env,
}

impl<S> Front<S> {
    pub fn new(routes: S, env: Env) -> Self {
        Self { routes, env }
    }
}

impl<S> Service<Request> for Front<S>
where
    S: Service<Request, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if request.method() == Method::OPTIONS {
            return std::future::ready(Ok(with_cors(preflight(request.uri())))).boxed();
        }
        if let Some(uri) = without_r0(request.uri()) {
            *request.uri_mut() = uri;
        }
        let leftover = Leftover::of(&mut request).map(|leftover| (leftover, self.env.clone()));
        let answer = AssertUnwindSafe(self.routes.call(request)).catch_unwind();
        async move {
            let response = match answer.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => ApiError::internal(panic_message(&*panic)).into_response(),
            };
            if let Some((leftover, env)) = leftover {
                leftover.drain(&env).await;
            }
            Ok(with_cors(response))
        }
        .boxed()
    }
}

fn with_cors(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"));
    headers.entry(ACCESS_CONTROL_ALLOW_HEADERS).or_insert(HeaderValue::from_static(ALLOWED_HEADERS));
    response
}

/// Rendezvous sessions need more headers than the rest (MSC4108).
fn preflight(uri: &Uri) -> Response {
    let mut response = Empty.into_response();
    if uri.path().contains("/org.matrix.msc4108/rendezvous") {
        let allowed = format!("{ALLOWED_HEADERS}, If-Match, If-None-Match");
        if let Ok(allowed) = HeaderValue::try_from(allowed) {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
    }
    response
}

/// Specification versions up to r0.6 had `r0` where `v3` is now.
fn without_r0(uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix("/_matrix/client/r0/")?;
    format!("/_matrix/client/v3/{rest}").parse().ok()
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", text.unwrap_or_default())
}

/// The answer to a path that nothing serves.
pub async fn unknown_path() -> ApiError {
    ApiError::unrecognized("This server does not know this endpoint.")
}

/// The answer to a method that an existing path does not have.
pub async fn unknown_method() -> ApiError {
    ApiError::unknown_method("This endpoint does not have this method.")
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn hostile() -> ApiError {
        panic!("on purpose");
    }

    fn answer(request: Request) -> Response {
        let routes = Router::new().route("/_matrix/client/v3/hostile", get(hostile));
        let answer = Front::new(routes, myelin_testenv::Sim::new(1).env()).oneshot(request);
        futures::executor::block_on(answer).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_panic_is_an_error_of_the_server() {
        let response = answer(Request::get("/_matrix/client/r0/hostile").body(Body::empty()).unwrap());
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let body = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["errcode"], "M_UNKNOWN");
        assert!(!json["error"].as_str().unwrap().contains("purpose"), "details stay in the log");
    }
}
