//! One GET of what the operator of this machine names, over HTTP or HTTPS, at whatever address.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Response;
use myelin_core::Env;
use myelin_outbound::{AddressPolicy, Budget, Error, Network, Options, Redirects, Trust};
use serde_json::Value;
use url::Url;

use crate::{config::keys, outbound, serve::tls};

const ANSWER_SIZE_MAX: usize = 256 * 1024;
const REDIRECTS: Redirects = Redirects { follow_max: 0, plain_http: true };
const CONNECTIONS_MAX: usize = 4;

pub struct Fetcher(myelin_outbound::Fetcher);

impl Fetcher {
    /// Trusts the authorities that federation trusts.
    pub fn trusting_configured(env: &Env, config: &keys::Federation) -> anyhow::Result<Self> {
        Self::trusting(env, outbound::trust(config)?)
    }

    /// Trusts the certificates in `file` and nobody else; without a file, nobody.
    pub fn trusting_only(env: &Env, file: Option<&Path>) -> anyhow::Result<Self> {
        let trusted = file.map(tls::certificates).transpose()?;
        Self::trusting(env, Trust::only(trusted.unwrap_or_default()))
    }

    fn trusting(env: &Env, trust: Trust) -> anyhow::Result<Self> {
        let addresses = AddressPolicy::everything();
        let options = Options { addresses, trust, connections_max: CONNECTIONS_MAX };
        Ok(Self(myelin_outbound::Fetcher::new(env.clone(), Network::system(), options)?))
    }

    pub async fn get(&self, url: &Url, timeout: Duration) -> Result<Response<Bytes>, Error> {
        self.0.get(url, REDIRECTS, Budget { timeout, body_size_max: ANSWER_SIZE_MAX }).await
    }
}

/// The body of a 200 as JSON.
pub fn json(answer: &Response<Bytes>) -> anyhow::Result<Value> {
    ensure!(answer.status() == http::StatusCode::OK, "it answers with status {}", answer.status().as_u16());
    serde_json::from_slice(answer.body()).context("it does not answer with JSON")
}
