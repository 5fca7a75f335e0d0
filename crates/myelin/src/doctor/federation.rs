//! The way in for other servers: the server name is looked up as they do it, and asked for its keys.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use myelin_core::Env;
use myelin_outbound::{AddressPolicy, Budget, Outbound};
use serde_json::Value;

use super::{Finding, bad, doubtful, fetch, good};
use crate::{config::Config, outbound};

const BUDGET: Budget = Budget { timeout: Duration::from_secs(20), body_size_max: 64 * 1024 };
const KEYS: &str = "/_matrix/key/v2/server";
const REMEDY: &str = "start the server; then delegate with /.well-known/matrix/server on the server name, or make \
                      port 8448 of it reachable (docs/operations.md)";

pub async fn examine(config: &Config, env: &Env) -> Option<Finding> {
    if !config.federation.enabled {
        return Some(doubtful(
            "federation",
            "it is turned off",
            "set federation.enabled to true unless you mean it",
        ));
    }
    if !is_named(config) {
        return None;
    }
    Some(match outbound::outbound(&config.federation, AddressPolicy::everything(), env) {
        Ok(outbound) => ask(config, &outbound).await,
        Err(error) => bad("federation", format!("{error:#}"), "correct the [federation] section"),
    })
}

/// Whether the configuration means to be found: otherwise nothing is asked of the network.
fn is_named(config: &Config) -> bool {
    let announced = config.server.public_base_url.is_some() || config.well_known.server.is_some();
    config.server.name.port().is_some() || (announced && config.server.name.host() != "localhost")
}

async fn ask(config: &Config, outbound: &Outbound) -> Finding {
    let name = &config.server.name;
    let (_, steps) = outbound.explain(name).await;
    match keys(config, outbound).await {
        Ok(keys) if keys["server_name"] == name.as_str() => {
            good("federation", format!("other servers find {name} ({})", steps.join("; ")))
        }
        Ok(keys) => bad(
            "federation",
            format!("{name} leads to another server, {} ({})", keys["server_name"], steps.join("; ")),
            REMEDY,
        ),
        Err(error) => bad(
            "federation",
            format!("other servers do not find {name}: {error:#} ({})", steps.join("; ")),
            REMEDY,
        ),
    }
}

async fn keys(config: &Config, outbound: &Outbound) -> anyhow::Result<Value> {
    let request = Request::get(KEYS).body(Bytes::new())?;
    fetch::json(&outbound.send(&config.server.name, request, BUDGET).await?)
}
