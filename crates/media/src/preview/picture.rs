//! The image of a preview, as media of this server.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use image::ImageReader;
use myelin_store::{
    Batch, CommitError,
    tables::{PREVIEW_IMAGES, PreviewImageRecord},
};
use serde_json::{Map, Value};

use super::{Config, PreviewError, versions::KEPT_MS};
use crate::{Description, Error, Media, Mxc, Page, Written};

/// Images are told by their first bytes; in some the size stands behind a long description.
const START_SIZE_MAX: usize = 256 * 1024;
/// An image outlives the previews that show it.
const IMAGE_KEPT_MS: u64 = KEPT_MS + 24 * 60 * 60_000;

pub struct Picture {
    mxc: Mxc,
    size: u64,
    content_type: &'static str,
    sides: Option<(u32, u32)>,
}

impl Picture {
    pub fn describe(self, properties: &mut Map<String, Value>) {
        properties.insert("og:image".to_owned(), self.mxc.to_string().into());
        properties.insert("og:image:type".to_owned(), self.content_type.into());
        properties.insert("matrix:image:size".to_owned(), self.size.into());
        if let Some((width, height)) = self.sides {
            properties.insert("og:image:width".to_owned(), width.into());
            properties.insert("og:image:height".to_owned(), height.into());
        }
    }
}

/// `None` if it is no image, or one that is not taken.
pub async fn store(media: &Media, config: &Config, answer: Page) -> Result<Option<Picture>, PreviewError> {
    let mut body = answer.body;
    let mut start = BytesMut::new();
    let mut writer = media.objects().writer();
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else { return Ok(None) };
        if writer.size() + piece.len() as u64 > config.image_size_max {
            return Ok(None);
        }
        start.extend_from_slice(&piece[..piece.len().min(START_SIZE_MAX - start.len())]);
        writer.write(piece).await?;
    }
    let Some(kind) = infer::get(&start).filter(|kind| kind.matcher_type() == infer::MatcherType::Image)
    else {
        return Ok(None);
    };
    let start = start.freeze();
    let sides = media.view.env.blocking(move || sides(&start)).await.flatten();
    let written = writer.finish().await?;
    let size = written.size;
    let mxc = keep(media, written, kind.mime_type()).await?;
    Ok(Some(Picture { mxc, size, content_type: kind.mime_type(), sides }))
}

/// When it is to be deleted is durable before it is there.
async fn keep(media: &Media, written: Written, content_type: &str) -> Result<Mxc, Error> {
    let mxc = media.new_mxc();
    let until_ms = media.view.env.now_ms() + IMAGE_KEPT_MS;
    let mut batch = Batch::new();
    let record = PreviewImageRecord { size: written.size };
    batch.put(&PREVIEW_IMAGES, &(until_ms, mxc.id().to_owned()), &record);
    media.view.store.commit(batch).await.map_err(|error| match error {
        CommitError::Conflict { .. } => Error::Contended,
        CommitError::Store(error) => error.into(),
    })?;
    let description = Description { content_type: content_type.to_owned(), file_name: None };
    media.keep(&mxc, written, &description).await?;
    Ok(mxc)
}

/// Width and height, from the header alone.
fn sides(start: &Bytes) -> Option<(u32, u32)> {
    ImageReader::new(Cursor::new(start)).with_guessed_format().ok()?.into_dimensions().ok()
}
