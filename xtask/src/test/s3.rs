//! A server that speaks S3 (moto, unmodified from PyPI), of the tests' own: loopback, free port, everything in its
//! memory, stopped by its process id.
//!
//! Its packages are installed into the target directory, pinned by `tests/s3/requirements.txt`.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{clients, process};

/// How often it is asked whether it is ready, and for how long: 60 seconds.
const READY_POLL: Duration = Duration::from_millis(100);
const READY_POLLS_MAX: u32 = 600;
const START_ATTEMPTS_MAX: u32 = 3;

/// A running server; dropping it stops it.
pub struct Server {
    child: Child,
    pub endpoint: String,
}

impl Server {
    /// Its log lies in `scratch`.
    pub fn start(scratch: &Path) -> anyhow::Result<Self> {
        let sources = process::workspace_root().join("tests/s3");
        let python = clients::python_with("s3", &sources.join("requirements.txt"))?;
        for _ in 1..START_ATTEMPTS_MAX {
            // The port may be taken between finding it and using it.
            match Self::start_once(&python, scratch) {
                Ok(server) => return Ok(server),
                Err(error) => println!("{error:#}; trying another port"),
            }
        }
        Self::start_once(&python, scratch)
    }

    fn start_once(python: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(scratch.join("s3.log"))?;
        // If this process is killed, the server must not outlive it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT", "--"]).arg(python).args(["-m", "moto.server"]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).current_dir(scratch);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start moto")?;
        let mut server = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        server
            .wait_until_ready(port)
            .with_context(|| std::fs::read_to_string(scratch.join("s3.log")).unwrap_or_default())?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, port: u16) -> anyhow::Result<()> {
        for _ in 0..READY_POLLS_MAX {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("moto ended with {status}");
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            thread::sleep(READY_POLL);
        }
        anyhow::bail!("moto is not ready after {} s", (READY_POLL * READY_POLLS_MAX).as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is kept.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
