//! Thumbnails (Client-Server API, "Thumbnails"): made when first asked for, kept as objects of their own by the blob that
//! they are of, so that media with the same bytes share them.
//!
//! Sizes are snapped to few. Concurrent requests for the same thumbnail wait for one computation, and computations have
//! a bound of their own.

mod animate;
mod making;
mod render;
#[cfg(test)]
mod tests;

use myelin_store::tables::{MediaContent, THUMBNAILS, ThumbnailRecord};

pub(crate) use self::making::Thumbnails;
use crate::{Download, Error, Media, Mxc, Wants, download::Source};

/// What a thumbnail may cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pixels of an image, or of one frame of an animation.
    pub pixels_max: u64,
    /// Bytes of the original, which is in memory while its thumbnail is made.
    pub source_size_max: u64,
    /// Thumbnails that are made at the same time.
    pub concurrent_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { pixels_max: 64 * 1024 * 1024, source_size_max: 64 * 1024 * 1024, concurrent_max: 2 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The aspect ratio of what is asked for.
    Crop,
    /// The aspect ratio of the image, within what is asked for.
    Scale,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    pub width: u32,
    pub height: u32,
    pub method: Method,
    /// Animated, if the media is.
    pub animated: bool,
}

/// The specification's sizes, and some larger ones for dense screens.
const CROPS: [u32; 6] = [32, 96, 160, 320, 640, 800];
const SCALES: [(u32, u32); 5] = [(320, 240), (640, 480), (800, 600), (1280, 960), (1600, 1200)];
/// Nobody needs a larger thumbnail than this: whoever asks for more gets this.
const SIDE_MAX: u32 = 1600;
/// Sides of thumbnails that are not square are multiples of this.
const GRID: u32 = 32;

impl Size {
    /// The size that is made for this: no smaller, and one of few.
    fn snapped(self) -> Self {
        let (width, height) = (self.width.clamp(1, SIDE_MAX), self.height.clamp(1, SIDE_MAX));
        let up = |side: u32| side.next_multiple_of(GRID).min(SIDE_MAX);
        let (width, height) = match self.method {
            Method::Crop if width == height => {
                let side = CROPS.into_iter().find(|side| *side >= width).unwrap_or(SIDE_MAX);
                (side, side)
            }
            Method::Crop => (up(width), up(height)),
            Method::Scale => {
                let fits = SCALES.into_iter().find(|(w, h)| *w >= width && *h >= height);
                fits.unwrap_or((SIDE_MAX, SIDE_MAX))
            }
        };
        Self { width, height, ..self }
    }

    /// As the table has it.
    fn key(self, blob: &[u8; 32]) -> ([u8; 32], u64, u64, u8) {
        let kind = u8::from(self.method == Method::Scale) | u8::from(self.animated) << 1;
        (*blob, u64::from(self.width), u64::from(self.height), kind)
    }
}

impl Media {
    /// A thumbnail of media of any server.
    pub async fn thumbnail(&self, mxc: &Mxc, size: Size, wants: &Wants) -> Result<Download, Error> {
        let content = if mxc.server() == self.view.server_name {
            self.local_content(mxc, wants).await?
        } else {
            self.remote_content(mxc, wants).await?
        };
        if wants.stored_before_ms.is_some_and(|before_ms| content.stored_ms >= before_ms) {
            return Err(Error::NotFound);
        }
        self.accesses.note(mxc);
        self.thumbnail_of(&content, size).await
    }

    /// A thumbnail of bytes that are here.
    pub(crate) async fn thumbnail_of(&self, content: &MediaContent, size: Size) -> Result<Download, Error> {
        // Quarantine is looked up each time, also if the thumbnail is there.
        let original = self.stored(content).await?;
        let size = size.snapped();
        let found = self.view.store.get(&THUMBNAILS, &size.key(&content.blob)).await?;
        let record = match found {
            Some(record) => record,
            None => {
                let Source::Object(_, object) = &original.bytes else { return Err(Error::NotFound) };
                let object = object.clone();
                self.thumbnails.made(self, content, &object, size).await?
            }
        };
        Ok(self.show(original, record))
    }

    fn show(&self, original: Download, record: ThumbnailRecord) -> Download {
        let extension = record.content_type.trim_start_matches("image/").replace("jpeg", "jpg");
        let shown = Download {
            content_type: record.content_type,
            file_name: Some(format!("thumbnail.{extension}")),
            ..original
        };
        match record.object {
            None => shown,
            Some(object) => Download {
                size: Some(record.size),
                sha256: Some(record.sha256),
                bytes: Source::Object(self.objects.clone(), object),
                ..shown
            },
        }
    }
}
