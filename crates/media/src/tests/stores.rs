//! One suite for every place where bytes may lie.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use myelin_store::{
    Batch, Store,
    memory::{Memory, MemoryDisk},
    tables::UNCLAIMED_OBJECTS,
};
use myelin_testenv::Sim;

use crate::{Backend, Error, Objects, Writer, Written, backend::S3};

/// Where a server is that speaks S3.
const S3_SERVER: &str = "MYELIN_TEST_S3";

/// Sizes around the smallest part of any store.
const SIZES: [usize; 5] = [0, 1, 100_000, 5 * 1024 * 1024, 12 * 1024 * 1024 + 17];

async fn write(objects: &Objects, content: &[u8]) -> Result<Written, Error> {
    let mut writer: Writer = objects.writer();
    for chunk in content.chunks(60_000) {
        writer.write(Bytes::copy_from_slice(chunk)).await?;
    }
    writer.finish().await
}

async fn read(
    objects: &Objects,
    object: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = objects.read(object, range).await?.try_collect().await.expect("readable");
    Ok(chunks.concat())
}

pub async fn conforms(backend: Backend) {
    let store = Store::new(std::sync::Arc::new(Memory::open(MemoryDisk::default())));
    let objects = Objects::new(backend, store.clone(), Sim::new(1).env());
    for size in SIZES {
        let content: Vec<u8> = (0..size).map(|n| (n * 31 + n / 509) as u8).collect();
        let written = write(&objects, &content).await.expect("written");
        assert_eq!(written.size, size as u64);
        let mut batch = Batch::new();
        Objects::claim(&mut batch, &written);
        store.commit(batch).await.expect("claimed");
        let object = written.settled();
        assert!(read(&objects, &object, None).await.expect("read") == content, "{size}");
        let whole = 0..size as u64;
        assert!(read(&objects, &object, Some(whole)).await.expect("read") == content, "{size}");
        assert_eq!(objects.read_head(&object, 10).await.expect("read"), content[..size.min(10)]);
        if size > 1 {
            let (from, to) = (size / 3, size - 1);
            let part = read(&objects, &object, Some(from as u64..to as u64)).await.expect("read");
            assert!(part == content[from..to], "{size}");
        }
        objects.delete_doomed(&object).await.expect("deleted");
        objects.delete_doomed(&object).await.expect("deleted already");
        assert!(matches!(objects.read(&object, None).await, Err(Error::NotFound)));
    }
    let left = store.read().all(&UNCLAIMED_OBJECTS, 9).await.expect("readable");
    assert_eq!(left, []);
}

#[tokio::test]
async fn memory_conforms() {
    conforms(Backend::memory()).await;
}

#[tokio::test]
async fn a_local_directory_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("new/media");
    conforms(Backend::local(&path).expect("made")).await;
    conforms(Backend::local(&path).expect("there already")).await;
}

/// A bucket of its own.
async fn bucket(name: &str) -> S3 {
    let endpoint = std::env::var(S3_SERVER).unwrap_or_else(|_| {
        panic!("{S3_SERVER} is not set: run the tests through the test command (cargo xtask test), which starts a server")
    });
    let bucket = format!("{name}-{}", std::process::id());
    let config = S3 {
        bucket,
        endpoint: Some(endpoint),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("test".to_owned()),
        secret_access_key: Some("test".to_owned()),
        allow_http: true,
        ..S3::default()
    };
    // Also sets the cryptography up that the client wants for plain HTTP too.
    Backend::s3(&config).expect("configured");
    let uri = format!("{}/{}", config.endpoint.as_deref().unwrap_or_default(), config.bucket);
    let made = reqwest::Client::new().put(uri).send().await.expect("answered");
    assert!(made.status().is_success(), "{made:?}");
    config
}

#[tokio::test]
async fn an_s3_api_conforms() {
    let config = bucket("conforms").await;
    for prefix in ["", "some/where/"] {
        let backend = Backend::s3(&S3 { prefix: prefix.to_owned(), ..config.clone() }).expect("configured");
        conforms(backend.clone()).await;
        assert_eq!(backend.objects.list(None).count().await, 0, "something is left");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_an_error() {
    let config = S3 { bucket: "nobody-has-made-this".to_owned(), ..bucket("there").await };
    let store = Store::new(std::sync::Arc::new(Memory::open(MemoryDisk::default())));
    let objects = Objects::new(Backend::s3(&config).expect("configured"), store, Sim::new(1).env());
    for content in [vec![1; 10], vec![1; 6 * 1024 * 1024]] {
        assert!(write(&objects, &content).await.is_err(), "{} bytes were written nowhere", content.len());
    }
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_local_file_is_deleted_with_its_object() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Backend::local(directory.path()).expect("made");
    let store = Store::new(std::sync::Arc::new(Memory::open(MemoryDisk::default())));
    let objects = Objects::new(backend, store.clone(), Sim::new(1).env());
    let mut writer = objects.writer();
    writer.write(Bytes::from(vec![1; 3 * 1024 * 1024])).await.expect("written");
    std::mem::forget(writer);
    let files = || {
        let all = walk(directory.path());
        all.into_iter().filter(|name| name.contains('#')).count()
    };
    assert_eq!(files(), 1);
    let rows = store.read().all(&UNCLAIMED_OBJECTS, 9).await.expect("readable");
    objects.abandon(&rows[0].0, &rows[0].1).await.expect("given up");
    assert_eq!(files(), 0);
    assert_eq!(store.read().all(&UNCLAIMED_OBJECTS, 9).await.expect("readable"), []);
}

fn walk(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("readable").flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => walk(&path),
        path => vec![path.display().to_string()],
    });
    below.collect()
}
