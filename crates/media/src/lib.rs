//! Media: what is uploaded, where its bytes lie, thumbnails, previews of URLs, retention and quarantine (Client-Server API,
//! "Content repository").
//!
//! Must not know: HTTP, rooms, how remote servers are reached (it names what it needs of them as a port).
//!
//! - [`Objects`]: bytes in an object store, streamed in and out.
//! - `catalog`: the rows that say what lies where; reference counts.
//! - [`Origin`], [`Pages`]: what is needed of other servers and of the web.
//!
//! An object is *announced* (a durable row in `unclaimed_objects`) before its first byte is written, and *claimed* in the
//! commit that makes media of it. Whatever is never claimed is deleted by the sweep, whenever the process died.

mod access;
pub mod backend;
mod catalog;
mod config;
mod deletion;
mod download;
mod error;
mod listing;
mod mxc;
mod objects;
mod pending;
mod ports;
pub mod preview;
mod quarantine;
mod quota;
pub mod remote;
pub mod sanitize;
mod sweep;
#[cfg(test)]
mod tests;
pub mod thumbnails;
mod upload;

use std::sync::Arc;

use myelin_store::tables::MediaRecord;
use myelin_view::View;
use tokio::sync::Notify;

pub use backend::Backend;
pub use catalog::Description;
pub use config::{Config, Retention};
pub use deletion::Deleted;
pub use download::{Download, Wants};
pub use error::Error;
pub use listing::{After, MediaInfo};
pub use mxc::Mxc;
pub use objects::{Objects, Writer, Written};
pub use pending::Created;
pub use ports::{
    BytesStream, FetchError, FetchLimits, Fetched, NoOrigin, NoPages, Origin, Page, PageError, Pages,
};
pub use quarantine::mentioned;
pub use sweep::Kind;
pub use upload::Upload;

use crate::{access::Accesses, catalog::Catalog, quota::UserLocks, remote::Remote, thumbnails::Thumbnails};

/// What the composition root hands in.
pub struct Setup {
    pub view: View,
    pub config: Config,
    pub objects: Backend,
    pub origin: Arc<dyn Origin>,
    pub pages: Arc<dyn Pages>,
}

/// The media repository of this server.
pub struct Media {
    pub(crate) view: View,
    pub config: Config,
    pub(crate) objects: Objects,
    pub(crate) catalog: Catalog,
    pub(crate) accesses: Accesses,
    pub(crate) users: UserLocks,
    pub(crate) thumbnails: Thumbnails,
    /// Told when content came for a URI that was created before.
    pub(crate) arrived: Notify,
    pub(crate) remote: Remote,
    pub(crate) pages: Arc<dyn Pages>,
}

impl Media {
    /// Nothing runs yet: spawn [`Media::run`].
    pub fn new(setup: Setup) -> Arc<Self> {
        let Setup { view, config, objects, origin, pages } = setup;
        let objects = Objects::new(objects, view.store.clone(), view.env.clone());
        let catalog = Catalog::new(view.store.clone(), view.env.clone());
        let (env, limits) = (view.env.clone(), config.remote.clone());
        Arc::new(Self {
            remote: Remote::new(env, catalog.clone(), objects.clone(), origin, limits),
            catalog,
            accesses: Accesses::new(view.store.clone(), view.env.clone()),
            users: UserLocks::default(),
            thumbnails: Thumbnails::new(&config.thumbnails),
            arrived: Notify::new(),
            view,
            config,
            objects,
            pages,
        })
    }

    /// Makes `written` the content of `mxc`, in place of what it has; durable when this returns. For media of other
    /// servers, and (with [`Media::new_mxc`]) for what this server stores for itself.
    pub async fn keep(
        &self,
        mxc: &Mxc,
        written: Written,
        description: &Description,
    ) -> Result<MediaRecord, Error> {
        self.catalog.keep(&self.objects, mxc, written, description).await
    }

    /// Bytes on their way into the object store.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }
}
