//! Media.

use http::Method;

use super::{
    super::{
        call::{Call, Content},
        place::{PNG, Place},
        surroundings::PAGE,
    },
    Row,
};

pub const ROWS: &[Row] = &[
    ("createContent", Place::call),
    ("uploadContent", |at| at.call().query("filename", "pixel.png").bytes("image/png", PNG)),
    ("uploadContentToMXC", |at| {
        let created = at.tries(&at.alice, Method::POST, "/_matrix/media/v1/create", Content::None);
        let uri = created.text("content_uri");
        let media_id = uri.rsplit('/').next().unwrap_or_default();
        at.call().path("mediaId", media_id).query("filename", "pixel.png").bytes("image/png", PNG)
    }),
    ("getContentAuthed", |at| uploaded(at)),
    ("getContentOverrideNameAuthed", |at| uploaded(at).path("fileName", "other.png")),
    ("getContentThumbnailAuthed", |at| scaled(uploaded(at))),
    ("getUrlPreviewAuthed", |at| previewed(at.call())),
    ("getConfigAuthed", Place::call),
    ("getContent", |at| uploaded(at).by_nobody()),
    ("getContentOverrideName", |at| uploaded(at).path("fileName", "other.png").by_nobody()),
    ("getContentThumbnail", |at| scaled(uploaded(at).by_nobody())),
    ("getUrlPreview", |at| previewed(at.call())),
    ("getConfig", Place::call),
];

fn uploaded(at: &Place) -> Call {
    at.call().path("mediaId", &at.uploads_pixel())
}

fn scaled(call: Call) -> Call {
    call.query("width", "32").query("height", "32").query("method", "scale").query("animated", "false")
}

fn previewed(call: Call) -> Call {
    call.query("url", PAGE).query("ts", "1")
}
