//! Animated thumbnails: GIF, which every client shows; nothing in Rust writes animated WebP yet.

use std::io::Cursor;

use image::{
    AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder, ImageFormat,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        webp::WebPDecoder,
    },
    imageops::FilterType,
};

use super::{
    Config,
    render::{Target, limits},
};

/// More frames, or more pixels in all of them, and the thumbnail stands still.
const FRAMES_MAX: usize = 500;
const FRAME_PIXELS_MAX_FACTOR: u64 = 4;
/// Of the GIF encoder: 1 is careful, 30 is quick.
const SPEED: i32 = 20;

/// Whether it has more than one frame, as its head says.
pub fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Gif => frames(bytes, format, None).is_some_and(|frames| frames.take(2).count() > 1),
        ImageFormat::WebP => {
            WebPDecoder::new(Cursor::new(bytes)).is_ok_and(|decoder| decoder.has_animation())
        }
        // Animated PNG is shown as its first frame everywhere; it counts as animated so that it is not handed out as it is.
        ImageFormat::Png => has_animation_chunk(bytes),
        _ => false,
    }
}

/// `None` if there is too much of it, or it cannot be read to the end.
pub fn render(bytes: &[u8], format: ImageFormat, target: Target, config: &Config) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut out, SPEED);
    encoder.set_repeat(Repeat::Infinite).ok()?;
    let mut pixels_left = config.pixels_max.saturating_mul(FRAME_PIXELS_MAX_FACTOR);
    for (number, frame) in frames(bytes, format, Some(config))?.enumerate() {
        let frame = frame.ok()?;
        let pixels = u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
        pixels_left = pixels_left.checked_sub(pixels)?;
        if number >= FRAMES_MAX {
            return None;
        }
        encoder.encode_frame(shrink(frame, target)).ok()?;
    }
    drop(encoder);
    Some(out)
}

fn shrink(frame: Frame, target: Target) -> Frame {
    let delay = frame.delay();
    let (left, top, width, height) = target.cut;
    let cut = DynamicImage::ImageRgba8(frame.into_buffer()).crop_imm(left, top, width, height);
    let small = cut.resize_exact(target.width, target.height, FilterType::Triangle);
    Frame::from_parts(small.into_rgba8(), 0, 0, delay)
}

fn frames<'a>(bytes: &'a [u8], format: ImageFormat, config: Option<&Config>) -> Option<Frames<'a>> {
    let bytes = Cursor::new(bytes);
    let limits = config.map(limits);
    match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(bytes).ok()?;
            limits.map_or(Ok(()), |limits| decoder.set_limits(limits)).ok()?;
            Some(decoder.into_frames())
        }
        ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(bytes).ok()?;
            limits.map_or(Ok(()), |limits| decoder.set_limits(limits)).ok()?;
            Some(decoder.into_frames())
        }
        _ => None,
    }
}

/// `acTL` comes before the first `IDAT` (PNG specification, "Animation control chunk").
fn has_animation_chunk(bytes: &[u8]) -> bool {
    const SIGNATURE_SIZE: usize = 8;
    const CHUNKS_MAX: usize = 1000;
    let mut rest = bytes.get(SIGNATURE_SIZE..).unwrap_or_default();
    for _ in 0..CHUNKS_MAX {
        let Some((head, after)) = rest.split_first_chunk::<8>() else { return false };
        let [a, b, c, d, kind @ ..] = *head;
        match &kind {
            b"acTL" => return true,
            b"IDAT" | b"IEND" => return false,
            _ => {}
        }
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        rest = after.get(size.saturating_add(4)..).unwrap_or_default();
    }
    false
}
