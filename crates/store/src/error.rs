/// Why reading or writing failed. "Not found" is an `Option`, never an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The engine failed (I/O, connection). Retrying later may help.
    #[error("the store failed: {0}")]
    Backend(String),
    /// Bytes that do not decode: damage, or a format from another version.
    #[error("table '{table}' holds a value that cannot be read: {reason}")]
    Corrupt { table: &'static str, reason: String },
    /// The data was written by a newer version of Myelin.
    #[error(
        "the store has format {found}, this binary knows up to {known}: start the newer version, or restore a backup"
    )]
    NewerFormat { found: u32, known: u32 },
    /// A copy goes into an empty store only.
    #[error("the target store is not empty (table '{table}' has rows)")]
    NotEmpty { table: &'static str },
    #[error("a {what} of {size} bytes is over the store's limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
}

/// Why a batch was not committed. Nothing of it is in the store then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold: someone else was first. Load again and retry.
    #[error("another writer was first (table '{table}')")]
    Conflict { table: &'static str },
    #[error(transparent)]
    Store(#[from] Error),
}
