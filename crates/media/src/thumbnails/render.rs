//! From the bytes of an image to those of its thumbnail: pure, and careful. What an image claims to be is read from its
//! head, and judged, before anything is decoded.

use std::io::Cursor;

use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::jpeg::JpegEncoder, imageops::FilterType, metadata::Orientation,
};

use super::{Config, Method, Size, animate};
use crate::Error;

/// Bytes that tell the format.
pub const HEAD_SIZE: u64 = 64;
/// A side, in pixels: beyond it, formats and decoders become interesting.
const SIDE_MAX: u32 = 65_535;
/// A decoder may hold 16 bits of four channels per pixel, and as much again while it works.
const BYTES_PER_PIXEL_MAX: u64 = 16;
const JPEG_QUALITY: u8 = 82;
/// From this ratio on, an image is first made smaller by a quick method.
const COARSE_FIRST: u32 = 3;

pub struct Rendered {
    /// `None`: the original serves.
    pub bytes: Option<Vec<u8>>,
    pub content_type: &'static str,
    pub width: u32,
    pub height: u32,
}

/// The format, if it is one that thumbnails are made of.
pub fn format_of(head: &[u8]) -> Result<ImageFormat, Error> {
    match image::guess_format(head) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Gif | ImageFormat::WebP)) => {
            Ok(format)
        }
        _ => Err(cannot("it is not a JPEG, PNG, GIF or WebP image")),
    }
}

pub fn render(bytes: &[u8], size: Size, config: &Config) -> Result<Rendered, Error> {
    let format = format_of(bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(config));
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    check_dimensions(width, height, config)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let (shown_width, shown_height) = if turns(orientation) { (height, width) } else { (width, height) };
    let animated = animate::is_animated(bytes, format);
    let is_small = shown_width <= size.width && shown_height <= size.height;
    if is_small && (!animated || size.animated) {
        let content_type = format.to_mime_type();
        return Ok(Rendered { bytes: None, content_type, width: shown_width, height: shown_height });
    }
    let target = Target::of(shown_width, shown_height, size);
    if animated
        && size.animated
        && let Some(bytes) = animate::render(bytes, format, target, config)
    {
        let (width, height) = (target.width, target.height);
        return Ok(Rendered { bytes: Some(bytes), content_type: "image/gif", width, height });
    }
    let image = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    let (bytes, content_type) = encode(&still(image, orientation, target))?;
    Ok(Rendered { bytes: Some(bytes), content_type, width: target.width, height: target.height })
}

/// Decoders of the image crate get these; what they hold is bounded by the number of pixels.
pub fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(config.pixels_max.saturating_mul(BYTES_PER_PIXEL_MAX));
    limits
}

fn check_dimensions(width: u32, height: u32, config: &Config) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(cannot("it has no pixels"));
    }
    if u64::from(width) * u64::from(height) > config.pixels_max {
        return Err(Error::TooManyPixels { max: config.pixels_max });
    }
    Ok(())
}

/// What is cut out of the image, after it is turned, and how large that becomes. Never larger than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Left, top, width and height of the cut.
    pub cut: (u32, u32, u32, u32),
    pub width: u32,
    pub height: u32,
}

impl Target {
    pub fn of(width: u32, height: u32, size: Size) -> Self {
        match size.method {
            Method::Scale => Self::scaled(width, height, size),
            Method::Crop => Self::cropped(width, height, size),
        }
    }

    fn scaled(width: u32, height: u32, size: Size) -> Self {
        let (w, h) = (u64::from(width), u64::from(height));
        let (max_w, max_h) = (u64::from(size.width), u64::from(size.height));
        let cut = (0, 0, width, height);
        if w <= max_w && h <= max_h {
            return Self { cut, width, height };
        }
        let (to_w, to_h) =
            if w * max_h > h * max_w { (max_w, h * max_w / w) } else { (w * max_h / h, max_h) };
        let side = |side: u64| u32::try_from(side).unwrap_or(SIDE_MAX).max(1);
        Self { cut, width: side(to_w), height: side(to_h) }
    }

    /// The largest cut of the wanted aspect ratio, from the middle.
    fn cropped(width: u32, height: u32, size: Size) -> Self {
        let (w, h) = (u64::from(width), u64::from(height));
        let (want_w, want_h) = (u64::from(size.width), u64::from(size.height));
        let (cut_w, cut_h) =
            if w * want_h > h * want_w { (h * want_w / want_h, h) } else { (w, w * want_h / want_w) };
        let side = |side: u64| u32::try_from(side).unwrap_or(SIDE_MAX).max(1);
        let (cut_w, cut_h) = (side(cut_w), side(cut_h));
        let cut = ((width - cut_w) / 2, (height - cut_h) / 2, cut_w, cut_h);
        Self { cut, width: size.width.min(cut_w), height: size.height.min(cut_h) }
    }
}

/// A still image, turned as its camera was held. Cutting and shrinking come first: turning is cheaper then.
fn still(image: DynamicImage, orientation: Orientation, target: Target) -> DynamicImage {
    if orientation == Orientation::NoTransforms {
        return shrink(&image, target);
    }
    let mut small = coarse(&image, target).unwrap_or(image);
    small.apply_orientation(orientation);
    let (width, height) = small.dimensions();
    let scaled = Target::of_cut(width, height, target);
    shrink(&small, scaled)
}

impl Target {
    /// The same cut of the same image after it was made smaller to `width` and `height`.
    fn of_cut(width: u32, height: u32, target: Self) -> Self {
        let (left, top, cut_w, cut_h) = target.cut;
        let (full_w, full_h) =
            (u64::from(left) * 2 + u64::from(cut_w), u64::from(top) * 2 + u64::from(cut_h));
        let along = |part: u32, full: u64, side: u32| {
            u32::try_from(u64::from(part) * u64::from(side) / full.max(1)).unwrap_or(side).min(side)
        };
        let cut_w = along(cut_w, full_w, width).max(1);
        let cut_h = along(cut_h, full_h, height).max(1);
        let cut = ((width - cut_w) / 2, (height - cut_h) / 2, cut_w, cut_h);
        Self { cut, width: target.width.min(cut_w), height: target.height.min(cut_h) }
    }
}

/// Roughly smaller, as a whole, if it is much larger than needed.
fn coarse(image: &DynamicImage, target: Target) -> Option<DynamicImage> {
    let (width, height) = image.dimensions();
    let (.., cut_w, cut_h) = target.cut;
    let factor = (cut_w / target.width.max(1)).min(cut_h / target.height.max(1)) / 2;
    (factor >= 2).then(|| image.thumbnail_exact((width / factor).max(1), (height / factor).max(1)))
}

fn shrink(image: &DynamicImage, target: Target) -> DynamicImage {
    let (left, top, width, height) = target.cut;
    let whole = (left, top, width, height) == (0, 0, image.width(), image.height());
    let cut = if whole { None } else { Some(image.crop_imm(left, top, width, height)) };
    let cut = cut.as_ref().unwrap_or(image);
    if (width, height) == (target.width, target.height) {
        return cut.clone();
    }
    let ratio = (width / target.width).min(height / target.height);
    if ratio >= COARSE_FIRST {
        let rough = cut.thumbnail_exact(target.width * 2, target.height * 2);
        return rough.resize_exact(target.width, target.height, FilterType::Triangle);
    }
    cut.resize_exact(target.width, target.height, FilterType::CatmullRom)
}

/// PNG where one can see through, else JPEG.
fn encode(image: &DynamicImage) -> Result<(Vec<u8>, &'static str), Error> {
    let mut bytes = Vec::new();
    let see_through =
        image.color().has_alpha() && image.to_rgba8().pixels().any(|pixel| pixel.0[3] < u8::MAX);
    if see_through {
        let image = DynamicImage::ImageRgba8(image.to_rgba8());
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(refuse)?;
        return Ok((bytes, "image/png"));
    }
    let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    image.to_rgb8().write_with_encoder(encoder).map_err(refuse)?;
    Ok((bytes, "image/jpeg"))
}

fn turns(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

fn refuse(error: ImageError) -> Error {
    Error::CannotThumbnail(error.to_string())
}

fn cannot(reason: &str) -> Error {
    Error::CannotThumbnail(reason.to_owned())
}
