//! A place is kept until the answer has left, piece by piece.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{FromRef, Request},
    middleware::{self, Next},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header;
use parking_lot::Mutex;
use ruma::ServerName;

use super::{Origins, Place, Work};
use crate::{ApiError, AppState};

/// An answer is handed to the connection in pieces of this size: what it takes is what has left, nearly.
const PIECE_SIZE: usize = 32 * 1024;

/// Goes with a request to where it is known whose it is.
#[derive(Clone)]
pub struct Ticket {
    work: Work,
    place: Arc<Mutex<Option<Place>>>,
}

/// Whoever asks `routes` for something takes a place of its server.
pub fn limited(work: Work, routes: Router<AppState>) -> Router<AppState> {
    routes.route_layer(middleware::from_fn(move |request, next| answer(work, request, next)))
}

async fn answer(work: Work, mut request: Request, next: Next) -> Response {
    let ticket = Ticket { work, place: Arc::default() };
    request.extensions_mut().insert(ticket.clone());
    let response = next.run(request).await;
    match ticket.place.lock().take() {
        Some(place) => holding(place, response),
        None => response,
    }
}

impl Ticket {
    /// `origin` has signed the request.
    pub async fn redeem(&self, origin: &ServerName, state: &AppState) -> Result<(), ApiError> {
        state.limiter().check_name(self.work.class(), origin.as_str())?;
        let place = Arc::<Origins>::from_ref(state).enter(self.work, origin).await?;
        *self.place.lock() = Some(place);
        Ok(())
    }
}

fn holding(place: Place, response: Response) -> Response {
    let size = response.body().size_hint().exact();
    let mut response = response.map(|body| {
        let pieces = body.into_data_stream().flat_map(|chunk| stream::iter(pieces(chunk)));
        Body::from_stream(pieces.inspect(move |_| {
            let _held = &place;
        }))
    });
    if let Some(size) = size {
        response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    }
    response
}

fn pieces(chunk: Result<Bytes, axum::Error>) -> Vec<Result<Bytes, axum::Error>> {
    let Ok(mut rest) = chunk else { return vec![chunk] };
    let mut pieces = Vec::with_capacity(rest.len().div_ceil(PIECE_SIZE));
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(PIECE_SIZE.min(rest.len()))));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use myelin_testenv::Sim;
    use ruma::server_name;

    use super::*;

    #[test]
    fn the_place_is_free_when_the_answer_has_been_read_or_dropped() {
        let sim = Sim::new(1);
        let origins = Origins::new(sim.env());
        let a = server_name!("a.test");
        let text = vec![7; 5 * PIECE_SIZE + 1];
        let enter = || origins.enter(Work::State, a).now_or_never().and_then(Result::ok);
        let _others = [0; 3].map(|_| enter());
        let response = holding(enter().expect("a place"), Response::new(Body::from(text.clone())));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], text.len().to_string());
        sim.block_on(async {
            let mut body = response.into_body();
            let first = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
            assert_eq!(first.map(|first| first.len()), Some(PIECE_SIZE));
            assert!(enter().is_none(), "it is still being read");
            let rest = body.collect().await.expect("the rest").to_bytes();
            assert_eq!(rest.len(), text.len() - PIECE_SIZE);
        });
        let response = holding(enter().expect("a place"), Response::new(Body::from(text)));
        assert!(enter().is_none());
        drop(response);
        assert!(enter().is_some());
    }
}
