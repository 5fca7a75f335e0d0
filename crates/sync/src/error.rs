/// Why a read failed. What the user may not see is not an error of its own: it answers as if it were not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    View(#[from] myelin_view::Error),
    /// The user may not read this room (or that part of its history).
    #[error("{0}")]
    Forbidden(&'static str),
    /// No such thing, or not for this user's eyes.
    #[error("{0}")]
    NotFound(&'static str),
    /// A parameter cannot be used; the message says which and why.
    #[error("{0}")]
    InvalidParam(String),
    /// A position of a sliding sync connection that is not known (any more): the client starts anew.
    #[error("This position is not known.")]
    UnknownPos,
    /// Somebody else wrote the same thing again and again meanwhile.
    #[error("too many concurrent changes, try again")]
    Busy,
}

impl From<myelin_store::Error> for Error {
    fn from(error: myelin_store::Error) -> Self {
        Self::View(error.into())
    }
}
