//! Application services and third-party networks.

use serde_json::json;

use super::{super::place::Place, Row};

const NO_SERVICES: &str = "as specified for a server without application services";

pub const ROWS: &[Row] = &[
    ("pingAppservice", |at| {
        let call = at.call().path("appserviceId", "bridge").json(json!({ "transaction_id": "1" }));
        call.refused(403, "M_FORBIDDEN", NO_SERVICES)
    }),
    ("updateAppserviceRoomDirectoryVisibility", |at| {
        let call = at.call().path("networkId", "irc").json(json!({ "visibility": "public" }));
        call.refused(403, "M_FORBIDDEN", NO_SERVICES)
    }),
    ("getProtocols", Place::call),
    ("getProtocolMetadata", |at| at.call().path("protocol", "irc").refused(404, "M_NOT_FOUND", NO_SERVICES)),
    ("queryLocationByProtocol", |at| {
        at.call().path("protocol", "irc").query("channel", "x").refused(404, "M_NOT_FOUND", NO_SERVICES)
    }),
    ("queryUserByProtocol", |at| {
        at.call().path("protocol", "irc").query("nick", "x").refused(404, "M_NOT_FOUND", NO_SERVICES)
    }),
    ("queryLocationByAlias", |at| {
        at.call().query("alias", &at.alias).refused(404, "M_NOT_FOUND", NO_SERVICES)
    }),
    ("queryUserByID", |at| at.call().query("userid", &at.bob.id).refused(404, "M_NOT_FOUND", NO_SERVICES)),
];
