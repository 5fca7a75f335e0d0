//! Logs go to standard error; standard output is for answers to the person at the terminal.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::Log;

/// The storage engine tells of every file it writes, and the room rules of every event they let pass; who wants to know
/// says `fjall=info`. Off also means free: nothing is even formatted.
const QUIET: &str =
    "fjall=warn,lsm_tree=warn,ruma_state_res=warn,ruma_signatures=warn,ruma_common=warn,tokio_postgres=warn";

/// For the server.
pub fn start(log: &Log) {
    install(log, &log.filter.0);
}

/// For commands, whose output is for a person: only what goes wrong.
pub fn quietly(log: &Log) {
    install(log, "warn");
}

fn install(log: &Log, directives: &str) {
    let filter = EnvFilter::builder().parse_lossy(format!("{QUIET},{directives}"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = if log.json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init()
    } else {
        let colours = stderr().is_terminal();
        registry.with(fmt::layer().with_target(false).with_ansi(colours).with_writer(stderr)).try_init()
    };
    // Invariant: called once per process.
    started.ok();
}
