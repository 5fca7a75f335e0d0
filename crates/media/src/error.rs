//! Why media could not be had or stored.

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Not there, expired, deleted or quarantined: who asks learns no more.
    #[error("there is no such media")]
    NotFound,
    #[error("its content has not been uploaded yet")]
    NotYetUploaded,
    #[error("this has content already")]
    CannotOverwrite,
    #[error("{0}")]
    Forbidden(&'static str),
    /// What this server was asked to store or to make a thumbnail of.
    #[error("this is larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the image has more than {max} pixels")]
    TooManyPixels { max: u64 },
    /// What another server has.
    #[error("the media of the other server is larger than this server takes")]
    RemoteTooLarge,
    #[error("uploads of this account have reached their limit")]
    QuotaExceeded,
    #[error("too many uploads are pending")]
    TooManyPending { retry_after_ms: u64 },
    #[error("no thumbnail can be made of this: {0}")]
    CannotThumbnail(String),
    /// Too much of this kind is under way.
    #[error("too much is being done already")]
    Busy,
    /// The sender broke off, was too slow, or sent something else than announced.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
    /// The other server did not answer as it should.
    #[error("the media could not be fetched: {0}")]
    Unreachable(String),
    /// Other writers were first, time and again.
    #[error("other changes were first, time and again")]
    Contended,
    #[error("the object store failed: {0}")]
    Objects(String),
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
    #[error(transparent)]
    View(#[from] myelin_view::Error),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::Objects(error.to_string())
    }
}
