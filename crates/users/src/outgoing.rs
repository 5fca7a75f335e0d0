//! EDUs of users on their way to other servers.

use myelin_store::{Batch, outbox};
use ruma::ServerName;
use serde_json::Value;

/// Adds what has to arrive at `server`, in order with everything else that is put there.
pub(crate) fn put_edu(batch: &mut Batch, server: &ServerName, edu_type: &str, content: &Value) {
    outbox::put(batch, server.as_str(), edu_type, content.to_string());
}
