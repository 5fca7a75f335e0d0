//! Media: what is uploaded, where its bytes lie, thumbnails, previews of URLs, retention and quarantine (Client-Server API,
//! "Content repository").
//!
//! Must not know: HTTP, rooms, how remote servers are reached (it names what it needs of them as a port).
