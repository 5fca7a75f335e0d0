//! Against real TLS servers on loopback, under addresses and names of a made-up Internet.

mod discovery;
mod exchange;
mod guards;
mod streams;
mod world;
