//! Threads of the process. Few: each one costs memory, and the work is short.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Files, DNS and password hashing, which has its own bound below this one.
const BLOCKING_THREADS_MAX: usize = 16;

/// One worker per processor.
pub fn server() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("myelin")
        .build()
}

/// For commands that do one thing.
pub fn command() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()
}
