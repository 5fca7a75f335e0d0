//! A server that speaks S3 (moto, unmodified from PyPI), of the tests' own: loopback, free port, everything in its
//! memory, stopped by its process id.
//!
//! Its packages are installed into the target directory, pinned by `tests/s3/requirements.txt`.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;

use super::{clients, process, service};

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
        service::at_free_port(|port| Self::start_at(port, &python, scratch))
    }

    fn start_at(port: u16, python: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(scratch.join("s3.log"))?;
        // If this process is killed, the server must not outlive it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT", "--"]).arg(python).args(["-m", "moto.server"]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).current_dir(scratch);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start moto")?;
        let mut server = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        let answers = || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok());
        service::wait_until_ready("moto", &mut server.child, answers)
            .with_context(|| std::fs::read_to_string(scratch.join("s3.log")).unwrap_or_default())?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is kept.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
