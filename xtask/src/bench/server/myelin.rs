//! Myelin as the server under test: the release build with its defaults, except for what a benchmark needs.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::{Launch, Options, build, text};

pub fn prepare(home: &Path, address: SocketAddr, options: &Options) -> Result<Launch> {
    let program = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build("myelin")?,
    };
    let data = home.join("data");
    let mut arguments = vec!["serve".into(), "--dev".into()];
    for setting in settings(text(&data)?, address).into_iter().chain(options.set.iter().cloned()) {
        arguments.extend(["--set".into(), setting.into()]);
    }
    Ok(Launch { program, arguments, data })
}

fn settings(data: &str, address: SocketAddr) -> Vec<String> {
    vec![
        format!("store.uri=\"embedded:{data}\""),
        format!("server.listen=[{{ address = \"{address}\" }}]"),
        "rate_limits.enabled=false".to_owned(),
        // The other servers of the federation workloads are on the loopback network, and nobody vouches for them.
        "federation.verify_certificates=false".to_owned(),
        "federation.allow_addresses=[\"127.0.0.0/8\"]".to_owned(),
    ]
}
