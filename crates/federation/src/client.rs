//! Signed requests to other servers.
//!
//! Must not know: what the requests are for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode, header};
use myelin_dag::SigningKey;
use ruma::{OwnedServerName, ServerName, canonical_json::to_canonical_value};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    peers::Peers,
    transport::{Budget, Pieces, Transport, TransportError},
    x_matrix::SignedParts,
};

/// Bytes of an error's body that are read where the body is read as it comes.
const ERROR_BODY_SIZE_MAX: usize = 16 * 1024;
/// Bytes of a peer's error message that are kept.
const MESSAGE_SIZE_MAX: usize = 512;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server answered, with an error.
    #[error("the server answers {status} {errcode}: {message}")]
    Status { status: StatusCode, errcode: String, message: String, body: Value },
    /// A success that is not what the specification says.
    #[error("the server's answer cannot be read: {0}")]
    Answer(String),
    /// What was to be sent is not canonical JSON.
    #[error("the request cannot be signed")]
    Content,
}

impl RequestError {
    /// Whether the server took the request and said no: asking it again is in vain.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS)
    }
}

/// One process's signed requests. Every outcome is told to [`Peers`].
pub struct Client {
    server_name: OwnedServerName,
    key: Arc<SigningKey>,
    transport: Arc<dyn Transport>,
    peers: Arc<Peers>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    errcode: String,
    error: String,
}

impl Client {
    pub fn new(
        server_name: OwnedServerName,
        key: Arc<SigningKey>,
        transport: Arc<dyn Transport>,
        peers: Arc<Peers>,
    ) -> Self {
        Self { server_name, key, transport, peers }
    }

    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    pub fn permits(&self, server: &ServerName) -> bool {
        self.transport.permits(server)
    }

    /// `uri` is path and query, percent-encoded.
    pub async fn get<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        uri: &str,
        budget: Budget,
    ) -> Result<T, RequestError> {
        parse(&self.request(server, Method::GET, uri, None, budget).await?)
    }

    pub async fn put<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        uri: &str,
        content: &impl Serialize,
        budget: Budget,
    ) -> Result<T, RequestError> {
        parse(&self.request(server, Method::PUT, uri, Some(canonical(content)?), budget).await?)
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        uri: &str,
        content: &impl Serialize,
        budget: Budget,
    ) -> Result<T, RequestError> {
        parse(&self.request(server, Method::POST, uri, Some(canonical(content)?), budget).await?)
    }

    /// The body of a success. `content` is canonical JSON; it is signed and sent as it is.
    pub async fn request(
        &self,
        server: &ServerName,
        method: Method,
        uri: &str,
        content: Option<String>,
        budget: Budget,
    ) -> Result<Bytes, RequestError> {
        let header = self.sign(server, &method, uri, content.as_deref());
        self.send(server, method, uri, Some(header), content.unwrap_or_default().into(), budget).await
    }

    /// As [`Client::request`], with content that many servers get: the bytes are shared.
    pub async fn request_shared(
        &self,
        server: &ServerName,
        method: Method,
        uri: &str,
        content: Bytes,
        budget: Budget,
    ) -> Result<Bytes, RequestError> {
        let text = std::str::from_utf8(&content).map_err(|_| RequestError::Content)?;
        let header = self.sign(server, &method, uri, Some(text));
        let outcome = self.carry(server, method, uri, Some(header), content, budget).await;
        // That it takes no transactions says nothing about questions.
        if let Ok(response) = &outcome
            && !response.status().is_server_error()
        {
            self.peers.heard_from(server);
        }
        success(outcome?)
    }

    /// Servers in the order in which to ask them: those that failed just now come last.
    pub fn by_health(&self, mut servers: Vec<OwnedServerName>) -> Vec<OwnedServerName> {
        servers.sort_by_key(|server| self.peers.rests(server));
        servers
    }

    fn sign(&self, server: &ServerName, method: &Method, uri: &str, content: Option<&str>) -> String {
        let (method, origin) = (method.as_str(), &*self.server_name);
        SignedParts { method, uri, origin, destination: server, content }.sign(&self.key).to_string()
    }

    /// A request that is not signed (keys).
    pub async fn get_unsigned<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        uri: &str,
        budget: Budget,
    ) -> Result<T, RequestError> {
        parse(&self.send(server, Method::GET, uri, None, Bytes::new(), budget).await?)
    }

    /// The head of a success, and its body as it comes.
    pub async fn open(
        &self,
        server: &ServerName,
        uri: &str,
        budget: Budget,
    ) -> Result<Response<Pieces>, RequestError> {
        let header = self.sign(server, &Method::GET, uri, None);
        self.open_with(server, uri, Some(header), budget).await
    }

    /// The same without a signature.
    pub async fn open_unsigned(
        &self,
        server: &ServerName,
        uri: &str,
        budget: Budget,
    ) -> Result<Response<Pieces>, RequestError> {
        self.open_with(server, uri, None, budget).await
    }

    /// What a URL leads to that another server has named.
    pub async fn open_url(&self, url: &str, budget: Budget) -> Result<Response<Pieces>, RequestError> {
        opened(self.transport.open_url(url, budget).await?).await
    }

    /// JSON from a URL that somebody has named.
    pub async fn get_url<T: DeserializeOwned>(&self, url: &str, budget: Budget) -> Result<T, RequestError> {
        let mut body = self.open_url(url, budget).await?.into_body();
        let mut read = BytesMut::new();
        while let Some(piece) = body.try_next().await? {
            if read.len() + piece.len() > budget.body_size_max {
                return Err(TransportError::TooLarge(budget.body_size_max).into());
            }
            read.extend_from_slice(&piece);
        }
        parse(&read.freeze())
    }

    async fn open_with(
        &self,
        server: &ServerName,
        uri: &str,
        authorization: Option<String>,
        budget: Budget,
    ) -> Result<Response<Pieces>, RequestError> {
        let request = request(Method::GET, uri, authorization, Bytes::new())?;
        let outcome = self.transport.open(server, request, budget).await;
        match &outcome {
            Ok(response) => self.peers.answered(server, response.status()),
            Err(error) => self.peers.failed(server, error),
        }
        opened(outcome?).await
    }

    async fn send(
        &self,
        server: &ServerName,
        method: Method,
        uri: &str,
        authorization: Option<String>,
        body: Bytes,
        budget: Budget,
    ) -> Result<Bytes, RequestError> {
        let outcome = self.carry(server, method, uri, authorization, body, budget).await;
        match &outcome {
            Ok(response) => self.peers.answered(server, response.status()),
            Err(RequestError::Transport(error)) => self.peers.failed(server, error),
            Err(_) => {}
        }
        success(outcome?)
    }

    async fn carry(
        &self,
        server: &ServerName,
        method: Method,
        uri: &str,
        authorization: Option<String>,
        body: Bytes,
        budget: Budget,
    ) -> Result<Response<Bytes>, RequestError> {
        let request = request(method, uri, authorization, body)?;
        Ok(self.transport.send(server, request, budget).await?)
    }
}

fn request(
    method: Method,
    uri: &str,
    authorization: Option<String>,
    body: Bytes,
) -> Result<Request<Bytes>, RequestError> {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(body).map_err(|_| RequestError::Content)
}

/// A success as it is; of an error, what it says.
async fn opened(response: Response<Pieces>) -> Result<Response<Pieces>, RequestError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (head, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    while let Ok(Some(piece)) = body.try_next().await
        && read.len() + piece.len() <= ERROR_BODY_SIZE_MAX
    {
        read.extend_from_slice(&piece);
    }
    Err(refusal(head.status, &read))
}

fn success(response: Response<Bytes>) -> Result<Bytes, RequestError> {
    match response.status() {
        status if status.is_success() => Ok(response.into_body()),
        status => Err(refusal(status, response.body())),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> RequestError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ErrorBody::deserialize(&body).unwrap_or_default();
    let message = said.error.chars().take(MESSAGE_SIZE_MAX).collect();
    RequestError::Status { status, errcode: said.errcode, message, body }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, RequestError> {
    serde_json::from_slice(body).map_err(|error| RequestError::Answer(error.to_string()))
}

fn canonical(content: &impl Serialize) -> Result<String, RequestError> {
    let value = to_canonical_value(content).map_err(|_| RequestError::Content)?;
    serde_json::to_string(&value).map_err(|_| RequestError::Content)
}
