//! The control socket: how commands reach the running server: `myelin store …` the one that holds an embedded store, so
//! that backups are made while it runs, `myelin federation …` any. The mode of the file is the only authentication:
//! whoever may open it owns the data anyway.
//!
//! One line of JSON in (a [`Task`]), lines of JSON out: progress any number of times, then the outcome or an error.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use myelin_api::Notices;
use myelin_core::Env;
use myelin_federation::Sender;
use myelin_store::{Store, maintenance::Progress};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};

use crate::{
    compose::Server,
    config::Config,
    destinations,
    maintenance::{self, Outcome, Task},
    notices, storage,
};

const REQUEST_SIZE_MAX: u64 = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Progress that nobody has read yet; more is dropped.
const PROGRESS_WAITING_MAX: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Progress(Step),
    Done(Outcome),
    Failed(String),
}

/// How far a task is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// From 1.
    pub number: u64,
    pub steps: u64,
    pub rows: u64,
}

impl From<Progress> for Step {
    fn from(progress: Progress) -> Self {
        Self {
            name: progress.step.to_owned(),
            number: progress.step_number as u64,
            steps: progress.steps as u64,
            rows: progress.rows,
        }
    }
}

/// Whether a server answers there.
pub fn is_answered(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
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

/// Listens, if there is a place for that. Where it cannot, the server runs without.
pub fn start(
    server: &Server,
    notices: Notices,
    config: &Config,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Control> {
    let Some(path) = storage::control_socket(config) else { return Ok(Control(None)) };
    let socket = match bind(&path) {
        Ok(socket) => socket,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%error, "no control socket at {path}: commands do not reach this server");
            return Ok(Control(None));
        }
    };
    let control = Control(Some(path.clone()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .context("the control socket cannot be made private")?;
    let work = Work {
        env: server.env.clone(),
        store: server.store.clone(),
        sender: server.federation.sender.clone(),
        notices,
        directory: storage::directory(&config.store.uri).map(Path::to_owned),
    };
    server.env.spawner.spawn("control socket", Box::pin(listen(socket, work, stop)));
    Ok(control)
}

fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if is_answered(path) {
        anyhow::bail!("another server listens there; give each its own (server.control_socket)");
    }
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        storage::make_private(directory)?;
    }
    // Left behind by a server that was killed.
    fs::remove_file(path).ok();
    Ok(UnixListener::bind(path)?)
}

/// One task at a time: these are big pieces of work.
async fn listen(socket: UnixListener, work: Work, mut stop: watch::Receiver<bool>) {
    loop {
        let served = async {
            match socket.accept().await {
                Ok((stream, _)) => {
                    work.answer(stream).await.map_err(|error| tracing::debug!(%error, "control socket")).ok()
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket failed");
                    work.env.clock.sleep(REQUEST_TIMEOUT).await;
                    None
                }
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            _ = served => {}
        }
    }
}

#[derive(Clone)]
struct Work {
    env: Env,
    store: Store,
    sender: Arc<Sender>,
    notices: Notices,
    directory: Option<PathBuf>,
}

impl Work {
    async fn answer(&self, stream: UnixStream) -> anyhow::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut input = BufReader::new(read.take(REQUEST_SIZE_MAX));
        let request = self.env.timeout(REQUEST_TIMEOUT, input.read_line(&mut line)).await;
        if request.context("no request")?? == 0 {
            // Somebody only looked whether a server is here.
            return Ok(());
        }
        let (report, mut reports) = mpsc::channel(PROGRESS_WAITING_MAX);
        let task = serde_json::from_str(&line).context("the request is not understood")?;
        let work = self.clone();
        // Walks whole tables without a pause: not on a thread that serves requests.
        let mut result = tokio::task::spawn_blocking(move || work.perform(task, &report));
        let reply = loop {
            tokio::select! {
                Some(step) = reports.recv() => send(&mut write, &Reply::Progress(step)).await?,
                result = &mut result => break match result? {
                    Ok(outcome) => Reply::Done(outcome),
                    Err(error) => Reply::Failed(format!("{error:#}")),
                },
            }
        };
        send(&mut write, &reply).await
    }

    fn perform(&self, task: Task, report: &mpsc::Sender<Step>) -> anyhow::Result<Outcome> {
        tracing::info!(?task, "asked through the control socket");
        let runtime = tokio::runtime::Handle::current();
        if let Task::Federation(task) = &task {
            return runtime.block_on(destinations::in_server(task, &self.sender, self.env.now_ms()));
        }
        if let Task::Notice(notice) = task {
            return runtime.block_on(notices::say(&self.notices, notice));
        }
        let mut on_progress = |progress| drop(report.try_send(Step::from(progress)));
        let task = maintenance::run(task, &self.store, self.directory.as_deref(), &mut on_progress);
        runtime.block_on(task)
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(reply)?;
    text.push('\n');
    Ok(write.write_all(text.as_bytes()).await?)
}

/// Asks the server that listens there; `None` if none does.
pub async fn ask(
    socket: &Path,
    task: &Task,
    mut on_step: impl FnMut(Step),
) -> anyhow::Result<Option<Outcome>> {
    let Ok(mut stream) = UnixStream::connect(socket).await else { return Ok(None) };
    let mut text = serde_json::to_string(task)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Reply::Progress(step) => on_step(step),
            Reply::Done(outcome) => return Ok(Some(outcome)),
            Reply::Failed(message) => anyhow::bail!(message),
        }
    }
    anyhow::bail!("the server went away before it was done")
}
