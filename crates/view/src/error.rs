/// Why something could not be loaded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
    /// A row refers to something that is not there, or holds what does not parse: `myelin store verify` tells more.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("interning failed: {0}")]
    Intern(#[from] myelin_store::CommitError),
}
