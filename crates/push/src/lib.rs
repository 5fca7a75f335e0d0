//! Push rules (Client-Server API, "Push notifications") as pure functions: which events notify whom.
//!
//! Must not know: stores, rooms' history, clocks, I/O.
