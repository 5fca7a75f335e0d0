//! Full-text search over what users may see: an index that follows the log (Client-Server API, "Server Side Search").
//!
//! Must not know: HTTP, how rooms are written.
