//! A file server that does nothing else: `PUT` writes a file and syncs it, `GET` reads it. In threads of its own, as a
//! server under test has them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const THREADS: usize = 2;
const CHUNK_SIZE: usize = 256 * 1024;

/// Ends with its value.
pub struct PlainServer {
    pub address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
    directory: PathBuf,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl PlainServer {
    /// Files lie beside those of the server under test: on the same disk.
    pub fn start(beside: &Path) -> Result<Self> {
        let directory = beside.join("plain-files");
        std::fs::create_dir_all(&directory)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let files: Arc<Path> = directory.as_path().into();
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let files = files.clone();
                stream.set_nodelay(true).ok();
                let answer = service_fn(move |request| {
                    let files = files.clone();
                    async move { Ok::<_, Infallible>(answer(&files, request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { address, runtime: Some(runtime), directory })
    }
}

impl Drop for PlainServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

async fn answer(files: &Path, request: Request<Incoming>) -> Response<Body> {
    let path = files.join(request.uri().path().trim_start_matches('/'));
    let outcome = match *request.method() {
        Method::PUT => store(&path, request.into_body()).await,
        _ => read(&path).await,
    };
    outcome.unwrap_or_else(|error| {
        let mut response = Response::new(text(error.to_string()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

async fn store(path: &Path, mut body: Incoming) -> Result<Response<Body>> {
    let mut file = File::create(path).await?;
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            file.write_all(&bytes).await?;
        }
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(Response::new(text(String::new())))
}

async fn read(path: &Path) -> Result<Response<Body>> {
    let file = File::open(path).await.context("no such file")?;
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK_SIZE);
        match file.read_buf(&mut chunk).await? {
            0 => Ok::<_, std::io::Error>(None),
            _ => Ok(Some((chunk.freeze(), file))),
        }
    });
    Ok(Response::new(StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()))
}

fn text(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}
