//! What a server is told besides its disk and its network: the configuration of the real one, with passwords that cost
//! nothing and no rate limits.

use myelin_api::ServerConfig;
use myelin_federation::WHOLE_STATE_MAX;
use myelin_users::{Config, PasswordCost, RegistrationMode};
use ruma::{OwnedServerName, ServerName};

pub struct Settings {
    pub edge: ServerConfig,
    pub accounts: Config,
    /// Identity servers that it trusts.
    pub identity_servers: Vec<OwnedServerName>,
    /// Of larger rooms members are left out of what joining servers get at once.
    pub whole_state_max: usize,
}

impl Settings {
    /// Anybody may register; nothing is announced, nobody trusted.
    pub fn new(name: &ServerName) -> Self {
        let mut edge = ServerConfig::new(name);
        edge.rate_limits.enabled = false;
        let password_cost = PasswordCost { memory_kib: 8, iterations: 1 };
        let accounts = Config { password_cost, registration: RegistrationMode::Open, ..Config::default() };
        Self { edge, accounts, identity_servers: Vec::new(), whole_state_max: WHOLE_STATE_MAX }
    }
}
