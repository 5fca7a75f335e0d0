//! Settings that are allowed and dangerous.

use super::{
    Config,
    types::{RegistrationMode, StoreUri},
};

/// A shared secret shorter than this can be guessed.
const SECRET_LENGTH_MIN: usize = 16;

impl Config {
    /// One sentence per danger, with what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        let checks = [
            self.open_to_everybody(),
            self.guests_from_outside(),
            self.unlimited(),
            self.forgetful(),
            self.nameless(),
            self.clear_text(),
            self.weak_secret(),
            self.unverified(),
            self.search_in_memory(),
        ];
        checks.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Whether anybody but this machine can connect.
    pub fn is_public(&self) -> bool {
        self.server.listen.iter().any(|listener| !listener.address.ip().is_loopback())
    }

    fn open_to_everybody(&self) -> Option<&'static str> {
        let open = self.registration.mode == RegistrationMode::Open;
        (open && self.is_public()).then_some(
            "registration is open to everybody who can reach this server: spammers will find it; \
             set registration.mode to \"token\" unless you mean it",
        )
    }

    fn guests_from_outside(&self) -> Option<&'static str> {
        (self.registration.guests && self.is_public()).then_some(
            "guests may come in without an account; set registration.guests to false unless you mean it",
        )
    }

    fn unlimited(&self) -> Option<&'static str> {
        (!self.rate_limits.enabled && self.is_public()).then_some(
            "rate limits are off: passwords can be guessed at full speed; set rate_limits.enabled to true",
        )
    }

    fn forgetful(&self) -> Option<&'static str> {
        (self.store.uri == StoreUri::Memory)
            .then_some("the store is in memory: everything is lost when the server stops; set store.uri")
    }

    fn search_in_memory(&self) -> Option<&'static str> {
        let elsewhere = matches!(self.store.uri, StoreUri::Postgres(_));
        (elsewhere && self.search.path.is_none()).then_some(
            "the search index is in memory and made anew at every start; set search.path to a directory of this machine",
        )
    }

    fn nameless(&self) -> Option<&'static str> {
        (self.is_public() && self.server.name.host() == "localhost").then_some(
            "the server is called 'localhost' but listens to the outside: the name cannot be changed later; \
             set server.name before the first user registers",
        )
    }

    fn clear_text(&self) -> Option<&'static str> {
        let bare = |listener: &super::types::Listener| {
            listener.tls.is_none()
                && !listener.address.ip().is_loopback()
                && !is_private(listener.address.ip())
        };
        self.server.listen.iter().any(bare).then_some(
            "a listener on a public address has no TLS: passwords travel in the clear; \
             give it tls = { cert, key } or put a reverse proxy before it",
        )
    }

    fn weak_secret(&self) -> Option<&'static str> {
        let weak =
            self.registration.shared_secret.as_ref().is_some_and(|secret| secret.0.len() < SECRET_LENGTH_MIN);
        weak.then_some(
            "registration.shared_secret is short enough to guess; use at least 16 random characters",
        )
    }

    fn unverified(&self) -> Option<&'static str> {
        (!self.federation.verify_certificates).then_some(
            "certificates of other servers are not checked: anybody can pretend to be them; \
             set federation.verify_certificates to true",
        )
    }
}

fn is_private(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
