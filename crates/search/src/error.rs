/// Why a search failed. What the user may not see is no error: it is not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Sync(#[from] myelin_sync::Error),
    #[error("the search index: {0}")]
    Index(#[from] tantivy::TantivyError),
    #[error("the directory of the search index: {0}")]
    Directory(#[from] std::io::Error),
    #[error("the index is being worked on and has not come back")]
    Stopped,
    /// A parameter cannot be used; the message says which and why.
    #[error("{0}")]
    InvalidParam(String),
}

impl From<myelin_view::Error> for Error {
    fn from(error: myelin_view::Error) -> Self {
        Self::Sync(error.into())
    }
}

impl From<myelin_store::Error> for Error {
    fn from(error: myelin_store::Error) -> Self {
        Self::Sync(error.into())
    }
}
