//! A valid call for each operation of the Client-Server API, by its `operationId`. What a row does not say is Alice's:
//! her token, her room, her event.

mod accounts;
mod encryption;
mod media;
mod notifications;
mod outside;
mod rooms;
mod sync;
mod users;

use super::{call::Call, place::Place};

pub type Row = (&'static str, fn(&Place) -> Call);

pub fn rows() -> impl Iterator<Item = Row> {
    let families = [
        accounts::ROWS,
        encryption::ROWS,
        media::ROWS,
        notifications::ROWS,
        outside::ROWS,
        rooms::ROWS,
        sync::ROWS,
        users::ROWS,
    ];
    families.into_iter().flatten().copied()
}
