//! What every way of logging in ends with: a device and its tokens, replacing those that the device had.

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{
        ACCESS_TOKENS, AccessTokenRecord, DEVICE_TOKENS, DEVICES, DeviceRecord, DeviceTokenKind,
        REFRESH_TOKENS, RefreshTokenRecord,
    },
};
use ruma::OwnedUserId;

use crate::{
    Error, Users,
    token::{self, TokenHash},
};

/// Tokens of one device: at most two pairs while a refresh is not confirmed.
const TOKENS_PER_DEVICE_MAX: usize = 64;

/// Which device logs in.
#[derive(Clone, Debug, Default)]
pub struct DeviceRequest {
    /// `None`: one is made up.
    pub device_id: Option<String>,
    /// Only for a device that is new.
    pub initial_display_name: Option<String>,
    /// The client can refresh tokens.
    pub refresh: bool,
    pub origin: LoginOrigin,
}

/// Where a request comes from, as shown in device lists.
#[derive(Clone, Debug, Default)]
pub struct LoginOrigin {
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// A session, as the client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub user_id: OwnedUserId,
    pub device_id: String,
    pub access_token: String,
    pub refresh_token: Option<String>,
    pub expires_in_ms: Option<u64>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceRequestError {
    #[error("a device id has 1 to {} bytes", limits::DEVICE_ID_SIZE_MAX)]
    DeviceId,
    #[error("the name of a device has at most {} bytes", limits::DEVICE_DISPLAY_NAME_SIZE_MAX)]
    DisplayName,
    #[error("the account has {} devices already: remove some first", limits::DEVICES_PER_USER_MAX)]
    TooManyDevices,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for DeviceRequestError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

pub(crate) struct NewTokens {
    pub access_token: String,
    pub refresh_token: Option<(String, TokenHash)>,
    pub expires_in_ms: Option<u64>,
}

impl DeviceRequest {
    fn check(&self) -> Result<(), DeviceRequestError> {
        if self.device_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > limits::DEVICE_ID_SIZE_MAX) {
            return Err(DeviceRequestError::DeviceId);
        }
        check_display_name(self.initial_display_name.as_deref())
    }
}

pub(crate) fn check_display_name(name: Option<&str>) -> Result<(), DeviceRequestError> {
    match name {
        Some(name) if name.len() > limits::DEVICE_DISPLAY_NAME_SIZE_MAX => {
            Err(DeviceRequestError::DisplayName)
        }
        _ => Ok(()),
    }
}

impl Users {
    /// Adds a login to `batch`. The caller requires the account to be unchanged, commits, and then forgets the user's
    /// cached sessions.
    pub(crate) async fn grant(
        &self,
        batch: &mut Batch,
        user: UserNid,
        user_id: OwnedUserId,
        request: &DeviceRequest,
    ) -> Result<Grant, DeviceRequestError> {
        request.check()?;
        let made_up = || self.view.env.random_string(10).to_ascii_uppercase();
        let device_id = request.device_id.clone().unwrap_or_else(made_up);
        let key = (user, device_id.clone());
        let known = self.view.store.get(&DEVICES, &key).await?;
        if known.is_none() {
            self.check_device_count(user).await?;
        }
        batch.require_unchanged(&DEVICES, &key, known.as_ref());
        if self.revoke_device_tokens(batch, user, &device_id).await? > 0 {
            batch.log(&LogEntry::Account { user });
        }
        batch.put(&DEVICES, &key, &self.logged_in(known, request));
        let tokens = self.put_tokens(batch, user, &device_id, request.refresh, None);
        Ok(Grant {
            user_id,
            device_id,
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token.map(|(token, _)| token),
            expires_in_ms: tokens.expires_in_ms,
        })
    }

    /// Adds a new access token, and a refresh token if the client can use one.
    pub(crate) fn put_tokens(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
        refresh: bool,
        predecessor: Option<TokenHash>,
    ) -> NewTokens {
        let (env, now_ms) = (&self.view.env, self.now_ms());
        let lifetime_ms = match refresh {
            true => Some(self.config.refreshable_token_lifetime_ms),
            false => self.config.access_token_lifetime_ms,
        };
        let access_token = token::make(env, token::ACCESS);
        let access_hash = token::hash(&access_token);
        let refresh_token = refresh.then(|| token::make(env, token::REFRESH));
        let refresh_token = refresh_token.map(|t| (token::hash(&t), t)).map(|(hash, t)| (t, hash));
        let access = AccessTokenRecord {
            user,
            device_id: device_id.to_owned(),
            expires_ms: lifetime_ms.map(|ms| now_ms + ms),
            refresh_token: refresh_token.as_ref().map(|(_, hash)| *hash),
        };
        batch.put(&ACCESS_TOKENS, &access_hash, &access);
        let device_id = device_id.to_owned();
        batch.put(&DEVICE_TOKENS, &(user, device_id.clone(), access_hash), &DeviceTokenKind::Access);
        if let Some((_, hash)) = &refresh_token {
            let record = RefreshTokenRecord {
                user,
                device_id: device_id.clone(),
                expires_ms: self.config.refresh_token_lifetime_ms.map(|ms| now_ms + ms),
                access_token: access_hash,
                successor: None,
                predecessor,
            };
            batch.put(&REFRESH_TOKENS, hash, &record);
            batch.put(&DEVICE_TOKENS, &(user, device_id, *hash), &DeviceTokenKind::Refresh);
        }
        NewTokens { access_token, refresh_token, expires_in_ms: lifetime_ms }
    }

    /// Adds the revocation of every token of a device; answers how many there were.
    pub(crate) async fn revoke_device_tokens(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<usize, myelin_store::Error> {
        let prefix = (user, device_id.to_owned());
        let rows =
            self.view.store.scan(&DEVICE_TOKENS, &prefix, Direction::Forward, TOKENS_PER_DEVICE_MAX).await?;
        for (key, kind) in &rows {
            delete_token(batch, key, *kind);
        }
        Ok(rows.len())
    }

    pub(crate) async fn check_device_count(&self, user: UserNid) -> Result<(), DeviceRequestError> {
        let limit = limits::DEVICES_PER_USER_MAX;
        let devices = self.view.store.scan(&DEVICES, &user, Direction::Forward, limit).await?;
        if devices.len() < limit { Ok(()) } else { Err(DeviceRequestError::TooManyDevices) }
    }

    fn logged_in(&self, known: Option<DeviceRecord>, request: &DeviceRequest) -> DeviceRecord {
        let now_ms = self.now_ms();
        let (created_ms, display_name) = match known {
            Some(device) => (device.created_ms, device.display_name),
            None => (now_ms, request.initial_display_name.clone()),
        };
        DeviceRecord {
            display_name,
            created_ms,
            last_seen_ms: now_ms,
            last_seen_ip: request.origin.ip.clone(),
            user_agent: request.origin.user_agent.clone(),
        }
    }
}

/// Adds the deletion of one token to `batch`, given its row in `device_tokens`.
pub(crate) fn delete_token(batch: &mut Batch, key: &(UserNid, String, TokenHash), kind: DeviceTokenKind) {
    batch.delete(&DEVICE_TOKENS, key);
    match kind {
        DeviceTokenKind::Access => batch.delete(&ACCESS_TOKENS, &key.2),
        DeviceTokenKind::Refresh => batch.delete(&REFRESH_TOKENS, &key.2),
    }
}
