//! Having media: of this server from the object store, of others through `remote`.

use std::{ops::Range, time::Duration};

use myelin_store::tables::MediaContent;

use crate::{BytesStream, Error, Media, Mxc, Objects, pending::is_expired};

/// Waiting for content that has not been uploaded yet.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Another process may take in the content: looked at so often while somebody waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Ask the other server if the media is not here.
    pub allow_remote: bool,
    /// How long to wait for content that is still to come.
    pub timeout: Duration,
    /// Only media that was stored before this time (milliseconds): the rest is for those who authenticate.
    pub stored_before_ms: Option<u64>,
}

impl Default for Wants {
    fn default() -> Self {
        Self { allow_remote: true, timeout: Duration::from_secs(20), stored_before_ms: None }
    }
}

/// Content that is there, or arriving.
pub struct Download {
    pub content_type: String,
    pub file_name: Option<String>,
    /// `None` while it arrives from a server that did not say.
    pub size: Option<u64>,
    /// SHA-256 of the bytes; `None` while they arrive.
    pub sha256: Option<[u8; 32]>,
    pub stored_ms: u64,
    pub(crate) bytes: Source,
}

pub(crate) enum Source {
    /// Complete, in the object store.
    Object(Objects, String),
    /// On its way from another server; to be had once, as a whole.
    Arriving(BytesStream),
}

impl Download {
    /// Whether parts of it can be had.
    pub fn has_ranges(&self) -> bool {
        !matches!(self.bytes, Source::Arriving(_))
    }

    /// The bytes of `range`, which must lie within [`Download::size`], or all.
    pub async fn read(self, range: Option<Range<u64>>) -> Result<BytesStream, Error> {
        match self.bytes {
            Source::Object(objects, object) => objects.read(&object, range).await,
            Source::Arriving(stream) => Ok(stream),
        }
    }
}

impl Media {
    /// Media of any server.
    pub async fn open(&self, mxc: &Mxc, wants: &Wants) -> Result<Download, Error> {
        let download = if mxc.server() == self.view.server_name {
            self.open_local(mxc, wants).await?
        } else {
            self.open_remote(mxc, wants).await?
        };
        if wants.stored_before_ms.is_some_and(|before_ms| download.stored_ms >= before_ms) {
            return Err(Error::NotFound);
        }
        self.accesses.note(mxc);
        Ok(download)
    }

    /// Media of this server; waits if its content is still to come.
    pub async fn open_local(&self, mxc: &Mxc, wants: &Wants) -> Result<Download, Error> {
        let content = self.local_content(mxc, wants).await?;
        self.stored(&content).await
    }

    pub(crate) async fn local_content(&self, mxc: &Mxc, wants: &Wants) -> Result<MediaContent, Error> {
        let waiting = async {
            loop {
                let arrived = self.arrived.notified();
                futures::pin_mut!(arrived);
                arrived.as_mut().enable();
                let record = self.catalog.media(mxc).await?.filter(|record| !record.quarantined);
                let record = record.ok_or(Error::NotFound)?;
                if is_expired(&record, self.view.env.now_ms()) {
                    return Err(Error::NotFound);
                }
                match record.content {
                    Some(content) => return Ok(content),
                    None if wants.timeout.is_zero() => return Err(Error::NotYetUploaded),
                    None => drop(self.view.env.timeout(LOOK_EVERY, arrived).await),
                }
            }
        };
        let patience = wants.timeout.min(WAIT_MAX).max(Duration::from_millis(1));
        if wants.timeout.is_zero() {
            return waiting.await;
        }
        self.view.env.timeout(patience, waiting).await.unwrap_or(Err(Error::NotYetUploaded))
    }

    /// What a row refers to, unless nobody may have these bytes.
    pub(crate) async fn stored(&self, content: &MediaContent) -> Result<Download, Error> {
        let blob = self.catalog.blob(&content.blob).await?.filter(|blob| !blob.quarantined);
        let blob = blob.ok_or(Error::NotFound)?;
        Ok(Download {
            content_type: content.content_type.clone(),
            file_name: content.file_name.clone(),
            size: Some(blob.size),
            sha256: Some(content.blob),
            stored_ms: content.stored_ms,
            bytes: Source::Object(self.objects.clone(), blob.object),
        })
    }
}
