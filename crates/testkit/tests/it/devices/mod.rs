//! Devices, their keys and the messages between them, as clients and other servers see them.

mod dehydrated;
mod federated;
mod inboxes;
mod lists;
mod phone;
mod stock;
mod stories;
