//! Thumbnails (Client-Server API, "Thumbnails").

/// What a thumbnail may cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pixels of an image, or of one frame of an animation.
    pub pixels_max: u64,
    /// Bytes of the original.
    pub source_size_max: u64,
    /// Thumbnails that are made at the same time.
    pub concurrent_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { pixels_max: 64 * 1024 * 1024, source_size_max: 64 * 1024 * 1024, concurrent_max: 2 }
    }
}
