//! Media as configured: where the bytes lie, and the limits.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use myelin_api::config::UnauthenticatedMedia;
use myelin_media::{Backend, Retention, backend::S3, remote, thumbnails};

use crate::config::{
    Config,
    keys::MediaS3,
    types::{MediaUri, StoreUri},
};

/// Opens the object store; makes a local directory if there is none. An S3 API is not asked for anything yet.
pub fn backend(config: &Config) -> anyhow::Result<Backend> {
    match place(config) {
        Place::Memory => Ok(Backend::memory()),
        Place::Directory(path) => Backend::local(&path)
            .with_context(|| format!("cannot use the directory {} for media (media.uri)", path.display())),
        Place::Bucket(uri) => {
            Backend::s3(&s3(&uri, &config.media_s3)?).with_context(|| format!("cannot use {uri} for media"))
        }
    }
}

/// Where media lies.
pub enum Place {
    Memory,
    Directory(PathBuf),
    Bucket(String),
}

pub fn place(config: &Config) -> Place {
    match (&config.media.uri, &config.store.uri) {
        (Some(MediaUri::File(path)), _) => Place::Directory(path.clone()),
        (Some(MediaUri::S3(uri)), _) => Place::Bucket(uri.clone()),
        (None, StoreUri::Embedded(directory)) => Place::Directory(directory.join("media")),
        (None, StoreUri::Postgres(_)) => Place::Directory(Path::new("./myelin-data/media").to_owned()),
        (None, StoreUri::Memory) => Place::Memory,
    }
}

fn s3(uri: &str, config: &MediaS3) -> anyhow::Result<S3> {
    let path = uri.strip_prefix("s3://").unwrap_or(uri);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    ensure!(!bucket.is_empty(), "media.uri names no bucket; write s3://bucket/prefix");
    let secret = match (&config.secret_access_key, &config.secret_access_key_file) {
        (Some(secret), _) => Some(secret.0.clone()),
        (None, Some(file)) => {
            let read = fs::read_to_string(file);
            let read = read.with_context(|| {
                format!("cannot read {} (media.s3.secret_access_key_file)", file.display())
            })?;
            Some(read.trim().to_owned())
        }
        (None, None) => None,
    };
    Ok(S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: config.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        region: config.region.clone(),
        access_key_id: config.access_key_id.as_ref().map(|id| id.0.clone()),
        secret_access_key: secret,
        allow_http: config.allow_http,
        virtual_hosted: config.virtual_hosted,
    })
}

pub fn config(config: &Config) -> myelin_media::Config {
    let media = &config.media;
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    myelin_media::Config {
        upload_size_max: media.upload_size_max.0,
        user_bytes_max: media.user_size_max.map(|size| size.0),
        user_bytes_per_day_max: media.user_size_per_day_max.map(|size| size.0),
        pending_per_user_max: count(media.pending_per_user_max),
        unused_expires_after: media.unused_expires_after,
        thumbnails: thumbnails::Config {
            pixels_max: u64::from(media.thumbnail_pixels_max),
            concurrent_max: media.thumbnails_at_once.map_or_else(half_the_processors, count).max(1),
            ..thumbnails::Config::default()
        },
        retention: Retention { local: media.local_retention, remote: media.remote_retention },
        remote: remote::Config {
            size_max: config.media_remote.size_max.0,
            kept_size_max: Some(config.media_remote.kept_size_max.0),
            timeout: config.media_remote.timeout,
            allow: config.media_remote.allow.clone(),
            deny: config.media_remote.deny.clone(),
        },
    }
}

/// The other half answers requests.
fn half_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) / 2
}

/// What is served to those who show no access token.
pub fn unauthenticated(config: &Config) -> UnauthenticatedMedia {
    match (config.media.unauthenticated, config.media.unauthenticated_until) {
        (false, _) => UnauthenticatedMedia::Nothing,
        (true, Some(until)) => UnauthenticatedMedia::StoredBefore(until.start_ms),
        (true, None) => UnauthenticatedMedia::Everything,
    }
}
