//! A Myelin of the scenario's own: free loopback port, temporary data directory, ended by its process id.

use std::{fs::File, net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PORT_MIN: u16 = 20_000;
const PORTS: u16 = 12_000;

pub struct Server {
    directory: TempDir,
    port: u16,
    process: Child,
}

impl Server {
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let process = spawn(&directory, port)?;
        let mut server = Self { directory, port, process };
        server.ready().await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// As by `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Starts it again on its port and its data.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.directory, self.port)?;
        self.ready().await
    }

    pub fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(log_of(&self.directory)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            anyhow::ensure!(self.process.try_wait()?.is_none(), "the server ended:\n{}", self.last_lines());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// Below those that the system gives to outgoing connections, which may have taken it by the time the server starts.
fn free_port() -> anyhow::Result<u16> {
    let first = (std::process::id() % u32::from(PORTS)) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..PORTS).map(|nth| PORT_MIN + (first + nth) % PORTS);
    ports.find(free).context("no port is free")
}

fn spawn(directory: &TempDir, port: u16) -> anyhow::Result<Child> {
    let program = std::env::var_os("MYELIN_BIN").context("MYELIN_BIN names the server")?;
    let log = File::options().create(true).append(true).open(log_of(directory))?;
    let listen = format!("server.listen=[{{ address = \"127.0.0.1:{port}\" }}]");
    let child = Command::new(program)
        .args(["serve", "--dev", "--set", &listen])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

fn log_of(directory: &TempDir) -> PathBuf {
    directory.path().join("server.log")
}
