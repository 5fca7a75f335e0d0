//! Reading an object, in large pieces.

use std::{io, io::SeekFrom, ops::Range};

use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, path::Path};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::{Backend, BytesStream, Error};

/// Read from a file at a time; the object store's own stream reads 8 KiB, each on another thread.
const CHUNK_SIZE: usize = 256 * 1024;

pub(super) async fn open(
    backend: &Backend,
    object: &str,
    range: Option<Range<u64>>,
) -> Result<BytesStream, Error> {
    let options = GetOptions::new().with_range(range.filter(|range| !range.is_empty()));
    let found = match backend.objects.get_opts(&Path::from(object), options).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Err(Error::NotFound),
        Err(error) => return Err(error.into()),
    };
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::File(file, _) => file_stream(file, range).await,
        GetResultPayload::Stream(stream) => Ok(stream.map_err(io::Error::other).boxed()),
    }
}

async fn file_stream(file: std::fs::File, range: Range<u64>) -> Result<BytesStream, Error> {
    let mut file = tokio::fs::File::from_std(file);
    let failed = |error: io::Error| Error::Objects(error.to_string());
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start)).await.map_err(failed)?;
    }
    let length = range.end - range.start;
    let capacity = CHUNK_SIZE.min(usize::try_from(length).unwrap_or(CHUNK_SIZE).max(1));
    Ok(ReaderStream::with_capacity(file.take(length), capacity).boxed())
}
