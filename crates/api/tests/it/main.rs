//! The router driven in process, over the memory store and simulated time: no sockets.

mod admin;
mod auth;
mod browsers;
mod hostile;
mod hostile_everywhere;
mod limits;
mod media;
mod push;
mod reading;
mod rooms;
mod routes;
mod search;
mod small;
mod threepids;
mod users;
mod world;
