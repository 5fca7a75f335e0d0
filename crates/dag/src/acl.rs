//! Server access control lists (Client-Server API, "Server ACLs"): which servers may take part in a room.
//!
//! Must not know: what is refused to whom they shut out.

use myelin_core::patterns::glob;
use ruma::ServerName;
use serde_json::{Value, value::RawValue};

/// The content of an `m.room.server_acl` event, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAcl {
    allow_ip_literals: bool,
    /// Globs.
    allow: Vec<String>,
    deny: Vec<String>,
}

impl ServerAcl {
    /// What is not understood is taken as if it were not there.
    pub fn of(content: &RawValue) -> Self {
        let content: Value = serde_json::from_str(content.get()).unwrap_or_default();
        let globs = |name: &str| {
            let globs = content.get(name).and_then(Value::as_array).into_iter().flatten();
            globs.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            allow_ip_literals: content.get("allow_ip_literals") != Some(&Value::Bool(false)),
            allow: globs("allow"),
            deny: globs("deny"),
        }
    }

    /// The port of a server name does not count.
    pub fn permits(&self, server: &ServerName) -> bool {
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = server.host();
        let among = |globs: &[String]| globs.iter().any(|entry| glob(entry, host));
        !among(&self.deny) && among(&self.allow)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn permits(content: Value, server: &str) -> bool {
        let content = to_raw_value(&content).unwrap();
        ServerAcl::of(&content).permits(server.try_into().unwrap())
    }

    #[test]
    fn the_rules_in_order() {
        let acl = json!({ "allow": ["*"], "deny": ["*.evil.test", "bad?.test", "1.2.3.4"] });
        let table = [
            ("good.test", true),
            ("evil.test", true),
            ("a.evil.test", false),
            ("a.b.EVIL.test", false),
            ("a.evil.test:8448", false),
            ("bad1.test", false),
            ("bad12.test", true),
            ("1.2.3.4:80", false),
            ("[::1]", true),
        ];
        for (server, expected) in table {
            assert_eq!(permits(acl.clone(), server), expected, "{server}");
        }
    }

    #[test]
    fn ip_literals_are_shut_out_on_request() {
        let acl = json!({ "allow": ["*"], "allow_ip_literals": false });
        assert!(!permits(acl.clone(), "1.2.3.4"));
        assert!(!permits(acl.clone(), "[2001:db8::1]:8448"));
        assert!(permits(acl.clone(), "a.test"));
        assert!(permits(json!({ "allow": ["*"], "allow_ip_literals": "no" }), "1.2.3.4"));
    }

    #[test]
    fn what_is_not_allowed_is_shut_out() {
        assert!(!permits(json!({}), "a.test"));
        assert!(!permits(json!({ "allow": "a.test" }), "a.test"));
        assert!(!permits(json!({ "allow": ["b.test", 7] }), "a.test"));
        assert!(permits(json!({ "allow": ["A.TEST", 7], "deny": "a.test" }), "a.test"));
    }
}
