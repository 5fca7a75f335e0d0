//! The media repository over memory and simulated time.

mod crashes;
mod moderation;
mod pending;
mod stores;
mod uploads;
mod world;
