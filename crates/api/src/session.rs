//! Who makes a request, as the access token says. The port that [`crate::extract::Auth`] stands on.

use std::{net::IpAddr, sync::Arc};

use futures::future::BoxFuture;
use myelin_core::UserNid;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::ApiError;

/// A signed-in device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub guest: bool,
    pub admin: bool,
    pub locked: bool,
    pub suspended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionLookup {
    Active(Arc<Session>),
    /// The token has expired, the session has not: a refresh token renews it (soft logout).
    Expired,
    Unknown,
}

/// Where access tokens are looked up.
pub trait Sessions: Send + Sync + 'static {
    fn lookup<'a>(&'a self, access_token: &'a str) -> BoxFuture<'a, Result<SessionLookup, ApiError>>;

    /// Notes that the session was just used, for the device list and `/admin/whois`. Must be cheap.
    fn seen(&self, _session: &Session, _address: IpAddr, _user_agent: Option<&str>) {}
}
