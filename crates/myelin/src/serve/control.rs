//! The control socket: how commands reach the server that holds an embedded store (`myelin store backup` while it
//! runs). Whoever may write to the data directory may use it; the file's mode is the only authentication.
//!
//! One line of JSON in, lines of JSON out: `{"progress": …}` any number of times, then `{"done": …}` or
//! `{"error": …}`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::compose::Server;

const REQUEST_SIZE_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Which version runs.
    Version,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Progress { rows: u64 },
    Done { message: String },
    Error { message: String },
}

/// Where the server over the store in `directory` listens.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Whether a server answers over the store in `directory`.
pub fn is_answered(directory: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path(directory)).is_ok()
}

/// Removes the socket when dropped.
pub struct Control(Option<PathBuf>);

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            fs::remove_file(path).ok();
        }
    }
}

/// Listens if the store is embedded.
pub fn start(
    server: &Server,
    directory: Option<&Path>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Control> {
    let Some(directory) = directory else { return Ok(Control(None)) };
    let path = path(directory);
    // The store's lock is held: a socket that is there was left behind by a server that was killed.
    fs::remove_file(&path).ok();
    let socket = match UnixListener::bind(&path) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no control socket at {}: `store backup` needs a stopped server", path.display());
            return Ok(Control(None));
        }
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .context("the control socket cannot be made private")?;
    server.env.spawner.spawn("control socket", Box::pin(listen(socket, stop)));
    Ok(Control(Some(path)))
}

async fn listen(socket: UnixListener, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            accepted = socket.accept() => match accepted {
                // One at a time: these are big pieces of work.
                Ok((stream, _)) => answer(stream).await,
                Err(error) => {
                    tracing::warn!(%error, "the control socket failed");
                    return;
                }
            },
        }
    }
}

async fn answer(stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let reply = match BufReader::new(read.take(REQUEST_SIZE_MAX)).read_line(&mut line).await {
        Ok(_) => match serde_json::from_str(&line) {
            Ok(Request::Version) => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Err(error) => Err(anyhow::anyhow!("the request is not understood: {error}")),
        },
        Err(error) => Err(error.into()),
    };
    let reply = match reply {
        Ok(message) => Reply::Done { message },
        Err(error) => Reply::Error { message: format!("{error:#}") },
    };
    let mut text = serde_json::to_string(&reply).unwrap_or_default();
    text.push('\n');
    write.write_all(text.as_bytes()).await.ok();
}

/// Asks the server that runs over the store in `directory`; `None` if none does.
pub async fn ask(directory: &Path, request: &Request) -> anyhow::Result<Option<String>> {
    let Ok(mut stream) = UnixStream::connect(path(directory)).await else { return Ok(None) };
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Reply::Progress { .. } => {}
            Reply::Done { message } => return Ok(Some(message)),
            Reply::Error { message } => anyhow::bail!(message),
        }
    }
    anyhow::bail!("the server went away before it was done")
}
