//! Where bytes lie: a local directory, an S3 API, or memory.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::{
    ClientOptions, ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem, memory::InMemory,
    prefix::PrefixStore,
};

/// Bytes of a local file that are written at a time.
const LOCAL_PART_SIZE: usize = 256 * 1024;
/// S3 takes no smaller parts, except for the last.
const S3_PART_SIZE: usize = 5 * 1024 * 1024;
/// Bytes of uploads that wait in memory for the object store; more uploads wait for their turn.
const BUFFERED_MAX: usize = 128 * 1024 * 1024;

/// An object store and how to write to it.
#[derive(Clone)]
pub struct Backend {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) part_size: usize,
    /// Of a local store: what a crash leaves of an unfinished object lies beside it.
    pub(crate) directory: Option<PathBuf>,
}

/// A bucket behind an S3 API. What is not set comes from the environment (`AWS_*`), as for other S3 tools.
#[derive(Clone, Default)]
pub struct S3 {
    pub bucket: String,
    /// Before every object's name; may be empty.
    pub prefix: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    /// Speak plain HTTP to the endpoint.
    pub allow_http: bool,
    /// `bucket.endpoint` instead of `endpoint/bucket`.
    pub virtual_hosted: bool,
}

impl Backend {
    /// Nothing survives the process.
    pub fn memory() -> Self {
        Self { objects: Arc::new(InMemory::new()), part_size: LOCAL_PART_SIZE, directory: None }
    }

    /// Files in `directory`, which is made if it is not there. A write returns when it is on the disk.
    pub fn local(directory: &Path) -> io::Result<Self> {
        if !directory.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()).ok();
        }
        let objects = LocalFileSystem::new_with_prefix(directory).map_err(io::Error::other)?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            part_size: LOCAL_PART_SIZE,
            directory: Some(directory.canonicalize()?),
        })
    }

    /// Connects to nothing yet.
    pub fn s3(config: &S3) -> Result<Self, object_store::Error> {
        // The client panics without a provider for the process. Who has set one already is heeded.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_client_options(ClientOptions::new().with_allow_http(config.allow_http))
            .with_virtual_hosted_style_request(config.virtual_hosted);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(id) = &config.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &config.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        let bucket = builder.build()?;
        let objects: Arc<dyn ObjectStore> = match config.prefix.trim_matches('/') {
            "" => Arc::new(bucket),
            prefix => Arc::new(PrefixStore::new(bucket, prefix)),
        };
        Ok(Self { objects, part_size: S3_PART_SIZE, directory: None })
    }

    /// Parts that may wait in memory at once.
    pub(crate) fn parts_max(&self) -> usize {
        BUFFERED_MAX / self.part_size
    }
}
