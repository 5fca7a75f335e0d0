//! What other servers may read here: events, states, history.

use myelin_view::View;

/// Reads for other servers, each checked for what the asking server may see.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Serve {
    view: View,
}

impl Serve {
    pub fn new(view: View) -> Self {
        Self { view }
    }
}
