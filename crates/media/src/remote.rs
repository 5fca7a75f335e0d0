//! Media of other servers.

use crate::{Download, Error, Media, Mxc, Wants};

impl Media {
    pub(crate) async fn open_remote(&self, mxc: &Mxc, _wants: &Wants) -> Result<Download, Error> {
        let record = self.catalog.media(mxc).await?.filter(|record| !record.quarantined);
        let content = record.and_then(|record| record.content).ok_or(Error::NotFound)?;
        self.stored(&content).await
    }
}
