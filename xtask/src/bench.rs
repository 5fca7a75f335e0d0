//! `cargo xtask bench`: the load generator and what it says about a server.
//!
//! Starts the server under test itself on a free loopback port, plays the workloads against it over HTTP,
//! reads what they cost the server from the kernel, and prints one table. It knows nothing of Myelin's
//! crates: whatever speaks the Client-Server API can be measured, which is how the peer is.
//! How to read the figures: `docs/benchmarks.md`.
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator measures real time on real sockets; no simulator runs it"
)]

mod client;
mod drive;
mod goals;
mod measure;
mod procfs;
mod puppet;
mod report;
mod server;
mod table;
mod user;
mod workload;
mod world;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use tokio::signal::unix::{SignalKind, signal};

use report::{Report, Run};
use server::{Kind, Options, Server};
use world::{Sizes, World};

/// No workload takes this long on a server that works.
const WORKLOAD_MAX: Duration = Duration::from_secs(900);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these workloads (repeat it, or separate with commas)
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_parser = workload::NAMES)]
    only: Vec<String>,
    /// Small sizes: a few minutes in place of half an hour
    #[arg(long)]
    quick: bool,
    /// Run the same workloads against this server too and show the ratios
    #[arg(long, value_name = "SERVER")]
    peer: Option<Kind>,
    /// The server under test
    #[arg(long, value_name = "SERVER", default_value = "myelin")]
    subject: Kind,
    /// Also write everything measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A `myelin` that is already built, instead of building the release profile
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Passed on to `myelin serve` as `--set KEY=VALUE`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the peer's virtual environment is kept between runs
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Keep the data directories and logs of the servers, and say where they are
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_optimised();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(unless_stopped(measure_all(&args)))?;
    println!("{}", table::render(&report));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    match report.failures() {
        0 => Ok(()),
        failures => bail!("{failures} workload(s) failed, see above"),
    }
}

/// The generator shares the machine with the server, so it runs from the release profile as well.
fn run_optimised() -> Result<()> {
    let program = server::build("xtask")?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    Err(error).context("cannot run the release build of xtask")
}

/// Gives up at a signal, so that the servers end with the generator.
async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = terminate.recv() => bail!("stopped"),
        _ = tokio::signal::ctrl_c() => bail!("stopped"),
    }
}

async fn measure_all(args: &Args) -> Result<Report> {
    let subject = measure(args, args.subject).await?;
    let peer = match args.peer {
        Some(kind) => Some(measure(args, kind).await?),
        None => None,
    };
    Ok(Report { quick: args.quick, cores: std::thread::available_parallelism()?.get(), subject, peer })
}

async fn measure(args: &Args, kind: Kind) -> Result<Run> {
    let options = Options {
        binary: args.binary.clone(),
        set: args.set.clone(),
        cache: args.cache.clone(),
        keep: args.keep,
    };
    let server = Server::start(kind, &options).await?;
    let mut world = World::new(server, if args.quick { Sizes::quick() } else { Sizes::full() });
    let mut run = Run::new(kind.name());
    for name in workload::NAMES.into_iter().filter(|name| selected(&args.only, name)) {
        eprintln!("{}: {name}", kind.name());
        match tokio::time::timeout(WORKLOAD_MAX, workload::run(name, &mut world)).await {
            Ok(Ok(rows)) => run.rows.extend(rows),
            Ok(Err(error)) => run.fail(name, format!("{error:#}")),
            Err(_) => run.fail(name, format!("not done within {} s", WORKLOAD_MAX.as_secs())),
        }
    }
    world.server.stop().await?;
    Ok(run)
}

fn selected(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|wanted| wanted == name)
}
