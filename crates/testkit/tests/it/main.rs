//! What clients read of what others wrote: rooms, users and the read side together, over the memory store and
//! simulated time.

mod client;
mod cost;
mod coverage;
mod delayed;
mod devices;
mod edus;
mod forks;
mod handshakes;
mod histories;
mod history;
mod inbound;
mod keys;
mod long_polls;
mod notices;
mod old_clients;
mod outside;
mod pages;
mod receipts;
mod remote_media;
mod retention;
mod rooms_read;
mod sending;
mod sending_outages;
mod serving;
mod serving_hostile;
mod simulation;
mod sliding;
mod sliding_equals;
mod sliding_extensions;
mod sticky;
mod stories;
mod storms;
mod syncs;
mod unread;
mod world;
