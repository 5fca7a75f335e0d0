//! The way in from outside, as far as the configuration names it: the public base URL and the well-known documents.

use std::time::Duration;

use myelin_core::Env;
use serde_json::Value;
use url::Url;

use super::{
    Finding, bad, doubtful,
    fetch::{self, Fetcher},
    good,
};
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(10);
const PROXY_REMEDY: &str =
    "start the server, and let the reverse proxy pass this path on (docs/operations.md)";

pub async fn examine(config: &Config, env: &Env) -> Vec<Finding> {
    let Some(base) = &config.server.public_base_url else { return Vec::new() };
    let fetcher = match Fetcher::trusting_configured(env, &config.federation) {
        Ok(fetcher) => fetcher,
        Err(error) => return vec![bad("reach", format!("{error:#}"), "correct federation.ca_file")],
    };
    let visit = Visit { fetcher, config };
    let mut findings = vec![visit.versions(base).await, visit.client_document(base).await];
    if config.well_known.server.is_some() {
        findings.push(visit.server_document(base).await);
    }
    if let Some(own) = own_site(config, base) {
        findings.push(visit.own_site(&own).await);
    }
    findings
}

struct Visit<'a> {
    fetcher: Fetcher,
    config: &'a Config,
}

impl Visit<'_> {
    async fn versions(&self, base: &Url) -> Finding {
        let url = at(base, "/_matrix/client/versions");
        match self.json(&url).await {
            Ok(answer) if answer["versions"].is_array() => good("reach", format!("clients reach {base}")),
            Ok(_) => bad("reach", format!("{url} is answered by something else"), PROXY_REMEDY),
            Err(error) => bad("reach", format!("{url}: {error:#}"), PROXY_REMEDY),
        }
    }

    async fn client_document(&self, base: &Url) -> Finding {
        let url = at(base, "/.well-known/matrix/client");
        match self.json(&url).await {
            Ok(answer) => self.judge_client_document(&url, &answer),
            Err(error) => bad("well-known", format!("{url}: {error:#}"), PROXY_REMEDY),
        }
    }

    fn judge_client_document(&self, url: &Url, answer: &Value) -> Finding {
        let expected =
            self.config.well_known.client_base_url.as_ref().or(self.config.server.public_base_url.as_ref());
        let expected = expected.map(|url| url.as_str().trim_end_matches('/')).unwrap_or_default();
        match answer["m.homeserver"]["base_url"].as_str().map(|base| base.trim_end_matches('/')) {
            Some(found) if found == expected => {
                good("well-known", format!("{url} sends clients to {expected}"))
            }
            found => bad(
                "well-known",
                format!("{url} sends clients to {}", found.unwrap_or("nowhere")),
                format!("it should say m.homeserver.base_url = \"{expected}\"; correct whatever serves it"),
            ),
        }
    }

    async fn server_document(&self, base: &Url) -> Finding {
        let url = at(base, "/.well-known/matrix/server");
        let expected = self.config.well_known.server.as_ref().map(ToString::to_string).unwrap_or_default();
        match self.json(&url).await {
            Ok(answer) if answer["m.server"] == expected => {
                good("well-known", format!("{url} sends servers to {expected}"))
            }
            Ok(answer) => bad(
                "well-known",
                format!("{url} sends servers to {}", answer["m.server"].as_str().unwrap_or("nowhere")),
                format!("it should say m.server = \"{expected}\"; correct whatever serves it"),
            ),
            Err(error) => bad("well-known", format!("{url}: {error:#}"), PROXY_REMEDY),
        }
    }

    /// Clients that are told `@alice:example.org` look on `https://example.org`.
    async fn own_site(&self, url: &Url) -> Finding {
        let remedy = "without it people must enter the base URL by hand: serve the document there too";
        match self.json(url).await {
            Ok(answer) => self.judge_client_document(url, &answer),
            Err(error) => doubtful("well-known", format!("{url}: {error:#}"), remedy),
        }
    }

    async fn json(&self, url: &Url) -> anyhow::Result<Value> {
        fetch::json(&self.fetcher.get(url, TIMEOUT).await?)
    }
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// The site of the server name, where it is another one than that of the base URL.
fn own_site(config: &Config, base: &Url) -> Option<Url> {
    let host = config.server.name.host();
    let elsewhere =
        base.host_str() != Some(host) && host != "localhost" && !config.server.name.is_ip_literal();
    elsewhere.then(|| Url::parse(&format!("https://{host}/.well-known/matrix/client")).ok()).flatten()
}
