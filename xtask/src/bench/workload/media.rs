//! Files up and down, against a file server that does nothing else; memory during many uploads; a thumbnail.

mod plain;
mod png;

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use futures::future::{select, try_join_all};
use http::Method;
use serde::Deserialize;

use self::plain::PlainServer;
use crate::bench::client::Connection;
use crate::bench::drive::Driven;
use crate::bench::measure::{Samples, Window};
use crate::bench::procfs;
use crate::bench::report::{Row, Unit};
use crate::bench::user::User;
use crate::bench::world::World;

const FILE_SIZE: usize = 16_000_000;
const LARGE_SIZE: usize = 50_000_000;
const CONCURRENT: usize = 4;
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(20);
const BYTES_PER_MEGABYTE: f64 = 1e6;
const THUMBNAILS: [&str; 4] = ["320&height=240", "640&height=480", "800&height=600", "1280&height=960"];

pub async fn run(world: &mut World) -> Result<Vec<Row>> {
    let mut rows = files(world).await?;
    rows.push(memory(world).await?);
    rows.push(thumbnails(world).await?);
    Ok(rows)
}

/// Bytes that no other file has.
fn file(size: usize, number: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size);
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.freeze()
}

async fn files(world: &mut World) -> Result<Vec<Row>> {
    let count = world.sizes.files;
    let plain = PlainServer::start(world.server.home())?;
    let users = world.users(CONCURRENT).await?.users;
    let rounds = count.div_ceil(CONCURRENT);
    let (mut up, mut down) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
    for round in 0..rounds {
        let files: Vec<Bytes> = (0..CONCURRENT).map(|n| file(FILE_SIZE, round * CONCURRENT + n)).collect();
        // In turns, so that both meet the same disk and the same neighbours.
        let begun = Instant::now();
        let uploads = users.iter_mut().zip(&files).map(|(user, file)| upload(user, file.clone()));
        let media = try_join_all(uploads).await?;
        up[0] += begun.elapsed();
        let begun = Instant::now();
        try_join_all(files.iter().enumerate().map(|(n, file)| plain.put(n, file.clone()))).await?;
        up[1] += begun.elapsed();
        let begun = Instant::now();
        let downloads = users.iter_mut().zip(&media).map(|(user, media)| download(user, media));
        try_join_all(downloads).await?;
        down[0] += begun.elapsed();
        let begun = Instant::now();
        try_join_all((0..CONCURRENT).map(|n| plain.get(n))).await?;
        down[1] += begun.elapsed();
    }
    let megabytes = (rounds * CONCURRENT * FILE_SIZE) as f64 / BYTES_PER_MEGABYTE;
    let speed = |name: &str, took: Duration| {
        let each = took.as_secs_f64() * 1e3 / megabytes;
        let per_second = Some(megabytes / took.as_secs_f64());
        Row { per_second, ..Row::figure(format!("{name} of 1 MB"), each, Unit::Milliseconds) }
    };
    let ratio = |name: &str, [ours, plain]: [Duration; 2]| {
        let name = format!("{name}: time against a plain file server");
        Row::figure(name, ours.as_secs_f64() / plain.as_secs_f64(), Unit::Ratio)
    };
    Ok(vec![speed("upload", up[0]), ratio("upload", up), speed("download", down[0]), ratio("download", down)])
}

async fn memory(world: &mut World) -> Result<Row> {
    let count = world.sizes.uploads_at_once;
    let pid = world.server.pid();
    let user = world.fresh_user().await?;
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(user.also().await?);
    }
    // All send the same memory: the generator's own does not matter, and equal files are found to be equal at their end.
    let content = file(LARGE_SIZE, usize::MAX);
    world.server.settle().await?;
    let before = procfs::resident_bytes(pid)?;
    let uploads = try_join_all(connections.iter_mut().map(|user| upload(user, content.clone())));
    let most = Cell::new(before);
    let looks = async {
        loop {
            match procfs::resident_bytes(pid) {
                Ok(now) => most.set(most.get().max(now)),
                Err(error) => return error,
            }
            tokio::time::sleep(MEMORY_LOOK_EVERY).await;
        }
    };
    futures::pin_mut!(uploads, looks);
    match select(uploads, looks).await {
        futures::future::Either::Left((uploaded, _)) => drop(uploaded?),
        futures::future::Either::Right((error, _)) => return Err(error),
    }
    let added = most.get().saturating_sub(before) as f64 / BYTES_PER_MEGABYTE;
    Ok(Row::figure(format!("memory that {count} uploads of 50 MB at once add"), added, Unit::Megabytes))
}

async fn thumbnails(world: &mut World) -> Result<Row> {
    let mut user = world.fresh_user().await?;
    let media = upload(&mut user, png::gradient(4000, 3000)).await?;
    world.server.settle().await?;
    let window = Window::open(&world.server)?;
    let mut samples = Samples::default();
    for size in THUMBNAILS {
        let begun = Instant::now();
        let target = format!("/_matrix/client/v1/media/thumbnail/{media}?width={size}&method=scale");
        user.raw(Method::GET, &target, Bytes::new()).await?;
        samples.push(begun.elapsed());
    }
    let driven = Driven { samples, cost: window.close()? };
    Ok(Row::driven("thumbnail of 12 megapixels", &driven).without_writes())
}

/// `server/media id` of what was uploaded.
async fn upload(user: &mut User, content: Bytes) -> Result<String> {
    #[derive(Deserialize)]
    struct Uploaded {
        content_uri: String,
    }
    let answer = user.raw(Method::POST, "/_matrix/media/v3/upload", content).await?;
    let uploaded: Uploaded = serde_json::from_slice(&answer)?;
    let media = uploaded.content_uri.strip_prefix("mxc://").context("not an mxc:// URI")?;
    Ok(media.to_owned())
}

async fn download(user: &mut User, media: &str) -> Result<()> {
    let target = format!("/_matrix/client/v1/media/download/{media}");
    let body = user.raw(Method::GET, &target, Bytes::new()).await?;
    anyhow::ensure!(body.len() == FILE_SIZE, "{} bytes of {FILE_SIZE} came", body.len());
    Ok(())
}

impl PlainServer {
    async fn put(&self, number: usize, content: Bytes) -> Result<()> {
        self.connection().await?.call(Method::PUT, &format!("/{number}"), None, content).await.map(drop)
    }

    async fn get(&self, number: usize) -> Result<()> {
        let body =
            self.connection().await?.call(Method::GET, &format!("/{number}"), None, Bytes::new()).await?;
        anyhow::ensure!(body.len() == FILE_SIZE, "{} bytes of {FILE_SIZE} came", body.len());
        Ok(())
    }

    async fn connection(&self) -> Result<Connection> {
        Connection::open(self.address).await
    }
}
