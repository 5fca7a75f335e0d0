//! The journal of a store that was closed in order.
//!
//! fjall starts a new journal file only when one has grown to 64 MB, and reads all of it at the next start, flushed or
//! not. After everything has been flushed it holds nothing that is needed, so it is emptied.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

const LOCK_FILE: &str = "lock";
const EXTENSION: &str = "jnl";

/// Empties the journal in `directory`. Only for a database that is dropped, with every memtable flushed.
pub(crate) fn discard(directory: &Path) {
    if let Err(error) = empty(directory) {
        tracing::warn!(%error, "the journal was not emptied; the next start takes longer");
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    let lock = OpenOptions::new().read(true).write(true).open(directory.join(LOCK_FILE))?;
    // A snapshot still has the database open, or another process has it already: the journal is theirs.
    if lock.try_lock().is_err() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            let journal = OpenOptions::new().write(true).open(path)?;
            journal.set_len(0)?;
            journal.sync_all()?;
        }
    }
    Ok(())
}
