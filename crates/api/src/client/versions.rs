//! `GET /_matrix/client/versions` (Client-Server API, "Specification versions").

use axum::{Router, routing::get};
use serde_json::{Map, Value, json};

use crate::{AppState, extract::MaybeAuth, respond::Json};

/// `r0` versions are served under `/r0`, everything else under `/v1` and `/v3`.
const VERSIONS: [&str; 27] = [
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3",
    "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15",
    "v1.16", "v1.17", "v1.18", "v1.19",
];

/// What clients ask for by name, because they looked before it was in a version: cross-signing, aliases of rooms, private
/// read receipts, threads, lists of threads, relations in both directions, room types in the directory, media with
/// authentication, recursive relations, mutual rooms, profile fields, redactions by `/send`, blocked invites; dehydrated
/// devices, delayed events, sticky events, sliding sync and thread subscriptions under their unstable ones.
const FEATURES: [&str; 23] = [
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2432",
    "org.matrix.msc2285.stable",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3715.stable",
    "org.matrix.msc3827.stable",
    "org.matrix.msc3916.stable",
    "org.matrix.msc3981",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    "com.beeper.msc4169",
    "org.matrix.msc4380.stable",
    "org.matrix.msc3814",
    "org.matrix.msc4108",
    "org.matrix.msc4140",
    "org.matrix.msc4143",
    "org.matrix.msc4354",
    "org.matrix.msc4155",
    "io.element.msc4388",
    "org.matrix.msc3856.stable",
    "uk.tcpip.msc4133.stable",
    "org.matrix.simplified_msc3575",
    "org.matrix.msc4306",
    "io.element.msc4308",
];

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/versions", get(versions))
}

/// A bad token is refused, as everywhere; without one the answer is the same.
async fn versions(_: MaybeAuth) -> Json<Value> {
    let features: Map<_, _> = FEATURES.iter().map(|name| ((*name).to_owned(), true.into())).collect();
    Json(json!({ "versions": VERSIONS, "unstable_features": features }))
}
