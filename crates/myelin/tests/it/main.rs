//! The real binary on a free loopback port, with its data in a temporary directory.

mod chat;
mod doctor;
mod first_start;
mod limits;
mod media;
mod notices;
mod postgres;
mod process;
mod sessions;
mod settings;
mod store;
mod users;
