/// Who may register through `POST /register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RegistrationMode {
    #[default]
    Closed,
    /// With a registration token (`m.login.registration_token`).
    Token,
    Open,
}

/// Argon2id parameters; one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub iterations: u32,
}

impl Default for PasswordCost {
    /// What OWASP recommends: 19 MiB, 2 iterations.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, iterations: 2 }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub registration: RegistrationMode,
    /// Whether `POST /register?kind=guest` makes accounts.
    pub guests: bool,
    /// Opens `/_synapse/admin/v1/register`.
    pub shared_secret: Option<String>,
    pub password_cost: PasswordCost,
    /// Passwords shorter than this (in bytes) are refused.
    pub password_size_min: usize,
    /// Of access tokens that come with a refresh token.
    pub refreshable_token_lifetime_ms: u64,
    /// Of access tokens without one; `None`: they do not expire.
    pub access_token_lifetime_ms: Option<u64>,
    /// `None`: they do not expire.
    pub refresh_token_lifetime_ms: Option<u64>,
    pub login_token_lifetime_ms: u64,
    pub openid_token_lifetime_ms: u64,
    /// `None`: this server sends no mail, and knows nobody by an address.
    pub mail: Option<crate::mail::MailSetup>,
    /// Sessions kept in memory, some 300 bytes each.
    pub sessions_cached_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registration: RegistrationMode::Closed,
            guests: false,
            shared_secret: None,
            password_cost: PasswordCost::default(),
            password_size_min: 1,
            refreshable_token_lifetime_ms: 5 * 60 * 1000,
            access_token_lifetime_ms: None,
            refresh_token_lifetime_ms: None,
            login_token_lifetime_ms: 2 * 60 * 1000,
            openid_token_lifetime_ms: 60 * 60 * 1000,
            mail: None,
            sessions_cached_max: 50_000,
        }
    }
}
