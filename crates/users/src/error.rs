/// What can fail under any operation and is nobody's fault who asked. Verdicts on what was asked are the error enums of
/// the operations, which hold this one as their last variant.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
    #[error(transparent)]
    View(#[from] myelin_view::Error),
    /// Other writers were first again and again.
    #[error("too many concurrent changes of the same data; try again")]
    Contended,
    /// The pool for password hashing is shutting down, or Argon2 refused its parameters.
    #[error("passwords cannot be hashed: {0}")]
    Hashing(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

impl From<myelin_store::CommitError> for Error {
    fn from(error: myelin_store::CommitError) -> Self {
        match error {
            myelin_store::CommitError::Conflict { .. } => Self::Contended,
            myelin_store::CommitError::Store(error) => Self::Store(error),
        }
    }
}
