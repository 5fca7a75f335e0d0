//! Thumbnails of images that the tests make, and of files that are none.

use std::io::Cursor;

use image::{
    AnimationDecoder, Delay, DynamicImage, Frame, GenericImageView, ImageDecoder, ImageEncoder as _,
    ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::{
        gif::{GifDecoder, GifEncoder},
        jpeg::JpegEncoder,
    },
};

use super::{
    Config, Method, Size,
    render::{Rendered, Target, render},
};
use crate::Error;

const RED: Rgb<u8> = Rgb([220, 20, 20]);
const BLUE: Rgb<u8> = Rgb([20, 20, 220]);

fn size(width: u32, height: u32, method: Method) -> Size {
    Size { width, height, method, animated: false }
}

fn scale(width: u32, height: u32) -> Size {
    size(width, height, Method::Scale)
}

fn made(bytes: &[u8], size: Size) -> Result<Rendered, Error> {
    render(bytes, size, &Config { pixels_max: 1 << 20, ..Config::default() })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Vec::new();
    image.write_to(&mut Cursor::new(&mut out), format).expect("encoded");
    out
}

/// Red on the left, blue on the right.
fn two_halves(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, _| if x < width / 2 { RED } else { BLUE }).into()
}

fn decoded(rendered: &Rendered) -> DynamicImage {
    image::load_from_memory(rendered.bytes.as_ref().expect("a thumbnail")).expect("decodable")
}

fn is_near(pixel: Rgba<u8>, expected: Rgb<u8>) -> bool {
    pixel.0.iter().zip(expected.0).all(|(found, expected)| found.abs_diff(expected) < 60)
}

#[test]
fn sizes_are_snapped_to_no_smaller_ones() {
    for (asked, method, expected) in [
        ((32, 32), Method::Crop, (32, 32)),
        ((33, 33), Method::Crop, (96, 96)),
        ((1, 1), Method::Crop, (32, 32)),
        ((40, 70), Method::Crop, (64, 96)),
        ((9999, 9999), Method::Crop, (1600, 1600)),
        ((320, 240), Method::Scale, (320, 240)),
        ((1, 300), Method::Scale, (640, 480)),
        ((800, 601), Method::Scale, (1280, 960)),
        ((u32::MAX, 1), Method::Scale, (1600, 1200)),
    ] {
        let snapped = size(asked.0, asked.1, method).snapped();
        assert_eq!((snapped.width, snapped.height), expected, "{asked:?}");
    }
}

#[test]
fn targets_keep_their_shape_and_never_grow() {
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (33, 65), (640, 480), (4000, 3000), (65_535, 16)] {
        for method in [Method::Crop, Method::Scale] {
            for (w, h) in [(32, 32), (96, 64), (640, 480), (1600, 1600)] {
                let target = Target::of(width, height, size(w, h, method));
                let (left, top, cut_w, cut_h) = target.cut;
                assert!(left + cut_w <= width && top + cut_h <= height, "{target:?}");
                assert!(target.width >= 1 && target.height >= 1, "{target:?}");
                assert!(
                    target.width <= cut_w.min(w) && target.height <= cut_h.min(h),
                    "{width}x{height}: {target:?}"
                );
            }
        }
    }
    assert_eq!(Target::of(4000, 3000, scale(320, 240)).width, 320);
    assert_eq!(Target::of(1000, 1000, scale(640, 480)).width, 480);
    assert_eq!(Target::of(1000, 500, size(96, 96, Method::Crop)).cut, (250, 0, 500, 500));
}

#[test]
fn every_format_is_made_smaller() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        let bytes = encoded(&two_halves(900, 300), format);
        let scaled = made(&bytes, scale(320, 240)).expect("a thumbnail");
        assert_eq!(
            (scaled.content_type, scaled.width, scaled.height),
            ("image/jpeg", 320, 106),
            "{format:?}"
        );
        let image = decoded(&scaled);
        assert_eq!(image.dimensions(), (320, 106));
        assert!(
            is_near(image.get_pixel(40, 50), RED) && is_near(image.get_pixel(280, 50), BLUE),
            "{format:?}"
        );
        let cropped = decoded(&made(&bytes, size(96, 96, Method::Crop)).expect("a thumbnail"));
        assert_eq!(cropped.dimensions(), (96, 96));
        assert!(
            is_near(cropped.get_pixel(10, 50), RED) && is_near(cropped.get_pixel(86, 50), BLUE),
            "{format:?}"
        );
    }
}

#[test]
fn what_one_can_see_through_stays_so() {
    let image: DynamicImage = RgbaImage::from_pixel(400, 400, Rgba([10, 200, 10, 100])).into();
    let thumbnail = made(&encoded(&image, ImageFormat::Png), scale(320, 240)).expect("a thumbnail");
    assert_eq!(thumbnail.content_type, "image/png");
    assert_eq!(decoded(&thumbnail).get_pixel(5, 5).0[3], 100);
}

#[test]
fn what_is_small_already_is_handed_on() {
    let bytes = encoded(&two_halves(300, 200), ImageFormat::Png);
    let same = made(&bytes, scale(320, 240)).expect("the original");
    assert!(same.bytes.is_none());
    assert_eq!((same.content_type, same.width, same.height), ("image/png", 300, 200));
    let narrow =
        made(&encoded(&two_halves(30, 400), ImageFormat::Png), size(96, 96, Method::Crop)).expect("one");
    assert_eq!((narrow.width, narrow.height), (30, 30), "cut, and not made larger");
}

/// A JPEG whose Exif data says how the camera was held.
fn held(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
    exif.extend([0, orientation, 0, 0, 0, 0, 0, 0]);
    let mut out = Vec::new();
    let mut encoder = JpegEncoder::new(&mut out);
    encoder.set_exif_metadata(exif).expect("takes it");
    image.to_rgb8().write_with_encoder(encoder).expect("encoded");
    out
}

#[test]
fn images_are_turned_as_the_camera_was_held() {
    // 6: to be turned clockwise; 3: upside down; 8: counter-clockwise.
    for (orientation, dimensions, red, blue) in [
        (1, (320, 160), (20, 80), (300, 80)),
        (3, (320, 160), (300, 80), (20, 80)),
        (6, (120, 240), (60, 20), (60, 220)),
        (8, (120, 240), (60, 220), (60, 20)),
    ] {
        let bytes = held(&two_halves(800, 400), orientation);
        let thumbnail = made(&bytes, scale(320, 240)).expect("a thumbnail");
        let image = decoded(&thumbnail);
        assert_eq!(image.dimensions(), dimensions, "{orientation}");
        assert_eq!((thumbnail.width, thumbnail.height), dimensions);
        assert!(is_near(image.get_pixel(red.0, red.1), RED), "{orientation}");
        assert!(is_near(image.get_pixel(blue.0, blue.1), BLUE), "{orientation}");
    }
    let cropped = decoded(&made(&held(&two_halves(800, 400), 6), size(96, 96, Method::Crop)).expect("one"));
    assert!(is_near(cropped.get_pixel(48, 8), RED) && is_near(cropped.get_pixel(48, 88), BLUE));
}

fn animation(frames: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut out, 30);
    for number in 0..frames {
        let buffer = RgbaImage::from_pixel(400, 400, Rgba([number * 80, 0, 255 - number * 80, 255]));
        let delay = Delay::from_numer_denom_ms(100 * (u32::from(number) + 1), 1);
        encoder.encode_frame(Frame::from_parts(buffer, 0, 0, delay)).expect("encoded");
    }
    drop(encoder);
    out
}

#[test]
fn animations_move_where_asked_and_stand_still_elsewhere() {
    let bytes = animation(3);
    let moving = made(&bytes, Size { animated: true, ..scale(320, 240) }).expect("a thumbnail");
    assert_eq!((moving.content_type, moving.width, moving.height), ("image/gif", 240, 240));
    let decoder = GifDecoder::new(Cursor::new(moving.bytes.expect("bytes"))).expect("a GIF");
    assert_eq!(decoder.dimensions(), (240, 240));
    let frames = decoder.into_frames().collect_frames().expect("frames");
    let delays: Vec<u32> = frames.iter().map(|frame| frame.delay().numer_denom_ms().0).collect();
    assert_eq!(delays, [100, 200, 300]);
    let still = made(&bytes, scale(320, 240)).expect("a thumbnail");
    assert_eq!(still.content_type, "image/jpeg");
    let small = made(&bytes, scale(640, 480)).expect("a thumbnail");
    assert!(
        small.bytes.is_some() && small.content_type == "image/jpeg",
        "never an animation unless asked for"
    );
    let original = made(&bytes, Size { animated: true, ..scale(640, 480) }).expect("the original");
    assert!(original.bytes.is_none() && original.content_type == "image/gif");
    let one_frame = made(&animation(1), Size { animated: true, ..scale(320, 240) }).expect("a thumbnail");
    assert_eq!(one_frame.content_type, "image/jpeg");
}

#[test]
fn an_animation_of_too_many_pixels_stands_still() {
    let config = Config { pixels_max: 400 * 400, ..Config::default() };
    let asked = Size { animated: true, ..scale(320, 240) };
    assert_eq!(render(&animation(3), asked, &config).expect("a thumbnail").content_type, "image/gif");
    let long = animation(3).len();
    let many = animation_of_equal_frames(5);
    assert!(many.len() > long / 3);
    assert_eq!(render(&many, asked, &config).expect("a thumbnail").content_type, "image/jpeg");
}

fn animation_of_equal_frames(frames: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut out, 30);
    for _ in 0..frames {
        let buffer = RgbaImage::from_pixel(400, 400, Rgba([9, 9, 9, 255]));
        encoder.encode_frame(Frame::new(buffer)).expect("encoded");
    }
    drop(encoder);
    out
}

#[test]
fn bombs_are_refused_by_their_head() {
    // A PNG that claims to be enormous and has nothing in it.
    let mut bomb = encoded(&two_halves(2, 2), ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(made(&bomb, scale(320, 240)), Err(Error::TooManyPixels { .. })));
    let just_too_many = encoded(&two_halves(1025, 1024), ImageFormat::WebP);
    assert!(matches!(made(&just_too_many, scale(320, 240)), Err(Error::TooManyPixels { max: 1_048_576 })));
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn what_is_no_image_is_refused_and_nothing_panics() {
    let cases: [&[u8]; 6] =
        [b"", b"x", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"BM\0\0\0\0", &[0; 5000]];
    for bytes in cases {
        assert!(matches!(made(bytes, scale(320, 240)), Err(Error::CannotThumbnail(_))), "{bytes:?}");
    }
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        let bytes = encoded(&two_halves(700, 500), format);
        let step = (bytes.len() / 60).max(1);
        for end in (0..bytes.len()).step_by(step) {
            // Cut short: refused, or what there is of it. Damaged: the same.
            drop(made(&bytes[..end], scale(320, 240)));
            let mut damaged = bytes.clone();
            damaged[end] ^= 0x5a;
            drop(made(&damaged, Size { animated: true, ..scale(320, 240) }));
        }
    }
}
