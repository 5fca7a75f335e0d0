//! A PostgreSQL server of the tests' own: loopback, free port, temporary data directory, stopped by its process id.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context;

use super::{process, service};

/// The unprivileged account it runs as when the tests run as root, which initdb refuses.
const ACCOUNT: &str = "postgres";

/// A running server; dropping it stops it.
pub struct Server {
    child: Child,
    pub uri: String,
}

impl Server {
    /// Creates a cluster in `scratch` and starts it.
    pub fn start(scratch: &Path) -> anyhow::Result<Self> {
        let data = create_cluster(scratch)?;
        service::at_free_port(|port| Self::start_at(port, &data))
    }

    fn start_at(port: u16, data: &Path) -> anyhow::Result<Self> {
        // If this process is killed, the server must not outlive it.
        let mut command = unprivileged("setpriv")?;
        command.args(["--pdeathsig", "INT", "--"]).arg(program("postgres")?);
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(data.with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start PostgreSQL")?;
        let uri = format!("postgres://{ACCOUNT}@127.0.0.1:{port}/postgres");
        let mut server = Self { child, uri };
        let answers = || {
            let mut ready = Command::new(program("pg_isready")?);
            Ok(process::output(ready.args(["-h", "127.0.0.1", "-p", &port.to_string()])).is_ok())
        };
        service::wait_until_ready("PostgreSQL", &mut server.child, answers)
            .with_context(|| std::fs::read_to_string(data.with_extension("log")).unwrap_or_default())?;
        Ok(server)
    }
}

/// `fsync` is off because no test pulls the plug of the machine: what is committed survives every process here.
const SETTINGS: &[&str] =
    &["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"];

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's "fast shutdown"; a shell has `kill` built in, a small machine may lack the program.
        let interrupt = format!("kill -INT {}", self.child.id());
        if process::output(Command::new("sh").args(["-c", &interrupt])).is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

pub fn version() -> anyhow::Result<String> {
    program("initdb")?;
    process::output(Command::new(program("postgres")?).arg("--version"))
}

fn create_cluster(scratch: &Path) -> anyhow::Result<PathBuf> {
    let home = scratch.join("postgres");
    std::fs::create_dir(&home)?;
    if is_root()? {
        process::output(Command::new("chmod").arg("a+x").arg(scratch))?;
        process::output(Command::new("chown").arg(format!("{ACCOUNT}:")).arg(&home))?;
    }
    let data = home.join("data");
    let mut command = unprivileged("env")?;
    command.arg(program("initdb")?).arg("-D").arg(&data);
    command.args(["-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    process::output(command.current_dir(&home))?;
    Ok(data)
}

/// `program`, run as an account that PostgreSQL accepts.
fn unprivileged(program: &str) -> anyhow::Result<Command> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    if process::output(Command::new("id").args(["-u", ACCOUNT])).is_err() {
        process::output(Command::new("useradd").args(["--system", "--user-group", ACCOUNT]))?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups", "--", program]);
    Ok(command)
}

fn is_root() -> anyhow::Result<bool> {
    Ok(process::output(Command::new("id").arg("-u"))? == "0")
}

/// A program of PostgreSQL: from the path, else the newest of Debian's versioned directories, which are not on it.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    on_path.or_else(|| debian_program(name)).with_context(|| format!("PostgreSQL's {name} is not installed"))
}

fn debian_program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let files = versions.map(|version| version.path().join("bin").join(name)).filter(|file| file.is_file());
    files.max_by_key(|file| major_version(file))
}

/// `15` of `/usr/lib/postgresql/15/bin/initdb`.
fn major_version(file: &Path) -> u32 {
    let version = file.ancestors().nth(2).and_then(Path::file_name).and_then(|name| name.to_str());
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_on_loopback_until_it_is_dropped() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(scratch.path()).expect("PostgreSQL starts");
        let address =
            server.uri.trim_start_matches("postgres://postgres@").trim_end_matches("/postgres").to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert!(std::net::TcpStream::connect(&address).is_ok());
        drop(server);
        assert!(std::net::TcpStream::connect(&address).is_err(), "it still listens");
        assert!(
            !scratch.path().join("postgres/data/postmaster.pid").exists(),
            "it was not shut down in order"
        );
    }

    #[test]
    fn the_newest_version_is_the_largest_number() {
        let newest = ["/usr/lib/postgresql/9/bin/initdb", "/usr/lib/postgresql/15/bin/initdb"];
        assert_eq!(newest.map(|file| major_version(Path::new(file))), [9, 15]);
    }
}
