//! A homeserver as a child process: started on a free loopback port in a directory of its own, watched,
//! restarted, and gone with its data when the run ends.

mod myelin;
mod synapse;

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::Connection;
use super::procfs;

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
/// Small, since it is the resolution of the restart time.
const POLL: Duration = Duration::from_millis(2);
const SETTLE_POLL: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(20);
const LOG_EXCERPT_LINES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Myelin,
    Synapse,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Myelin => "myelin",
            Self::Synapse => "synapse",
        }
    }

    /// Synapse answers a transaction before it has looked at the events in it. When a hundred of one room wait, it drops
    /// all but the last and asks for the others, ten at a time.
    pub fn answers_early(self) -> bool {
        self == Self::Synapse
    }
}

pub struct Options {
    pub binary: Option<PathBuf>,
    pub set: Vec<String>,
    pub cache: Option<PathBuf>,
    pub keep: bool,
}

/// How to start a server; the same for every start of a run.
struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// What counts as its data on the disk.
    data: PathBuf,
}

pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    launch: Launch,
    home: TempDir,
    child: Option<Child>,
}

impl Server {
    pub async fn start(kind: Kind, options: &Options) -> Result<Self> {
        let mut home = home(kind)?;
        home.disable_cleanup(options.keep);
        let address = free_address()?;
        let launch = match kind {
            Kind::Myelin => myelin::prepare(home.path(), address, options)?,
            Kind::Synapse => synapse::prepare(home.path(), address, options)?,
        };
        if options.keep {
            eprintln!("{}: in {}", kind.name(), home.path().display());
        }
        let mut server = Self { kind, address, launch, home, child: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts the stopped server on the same data. Returns how long it took until it answered.
    pub async fn start_again(&mut self) -> Result<Duration> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let begun = Instant::now();
        let child = Command::new(&self.launch.program)
            .args(&self.launch.arguments)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.launch.program.display()))?;
        self.child = Some(child);
        while !self.answers().await {
            if let Some(status) = self.exited()? {
                bail!("the server ended ({status}) before it was ready:\n{}", self.log_excerpt());
            }
            if begun.elapsed() > START_MAX {
                bail!("not ready within {} s:\n{}", START_MAX.as_secs(), self.log_excerpt());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(begun.elapsed())
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let begun = Instant::now();
        while self.exited()?.is_none() {
            if begun.elapsed() > STOP_MAX {
                bail!("not gone {} s after SIGTERM:\n{}", STOP_MAX.as_secs(), self.log_excerpt());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Returns once the server does nothing: what was sent has been read, what has to wait waits.
    pub async fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        let mut before = procfs::cpu_time(self.pid())?;
        let mut quiet = 0;
        while quiet < 2 && begun.elapsed() < SETTLE_MAX {
            tokio::time::sleep(SETTLE_POLL).await;
            let now = procfs::cpu_time(self.pid())?;
            quiet = if now - before < SETTLE_POLL / 20 { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// The process id, or 0 of a stopped server, which no process has.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Everything that it writes is below.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    pub fn disk_bytes(&self) -> Result<u64> {
        procfs::disk_bytes(&self.launch.data)
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.address).await else { return false };
        connection.call(Method::GET, "/_matrix/client/versions", None, Bytes::new()).await.is_ok()
    }

    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    fn log_excerpt(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_EXCERPT_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Below the build's directory rather than in `/tmp`, which may be memory: fsync has to mean something.
fn home(kind: Kind) -> Result<TempDir> {
    let parent = target_directory()?.join("bench");
    std::fs::create_dir_all(&parent)?;
    Ok(tempfile::Builder::new().prefix(kind.name()).tempdir_in(parent)?)
}

/// Builds the release profile of a package of this workspace. Returns the program of the same name.
pub fn build(package: &str) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    complete(cargo.args(["build", "--quiet", "--release", "--package", package]), "the build")?;
    Ok(target_directory()?.join("release").join(package))
}

fn target_directory() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Runs a step of the preparation to its end.
fn complete(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{what} failed: {command:?}: {status}");
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
