//! Synapse as the peer: the package from PyPI in a virtual environment of its own, on SQLite, with everything
//! that would only slow a benchmark down (rate limits, hard password hashes) out of the way.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Launch, Options, complete};

const VERSION: &str = "1.163.2";

const RATE_LIMITS: &[&str] = &[
    "rc_message",
    "rc_registration",
    "rc_admin_redaction",
    "rc_room_creation",
    "rc_delayed_event_mgmt",
    "rc_reports",
    "rc_presence.per_user",
    "rc_login.address",
    "rc_login.account",
    "rc_login.failed_attempts",
    "rc_joins.local",
    "rc_joins.remote",
    "rc_joins_per_room",
    "rc_invites.per_room",
    "rc_invites.per_user",
    "rc_invites.per_issuer",
];

pub fn prepare(home: &Path, address: SocketAddr, options: &Options) -> Result<Launch> {
    let python = environment(&cache(options)?)?;
    // YAML is a superset of JSON.
    let configuration = home.join("homeserver.yaml");
    std::fs::write(&configuration, configuration_for(home, address).to_string())?;
    std::fs::write(home.join("log.yaml"), logging().to_string())?;
    let arguments: Vec<OsString> =
        vec!["-m".into(), "synapse.app.homeserver".into(), "--config-path".into(), configuration.into()];
    let keys = &mut Command::new(&python);
    keys.args(&arguments).arg("--generate-keys").current_dir(home).stdout(Stdio::null());
    complete(keys, "generating Synapse's keys")?;
    Ok(Launch { program: python, arguments, data: home.join("data") })
}

fn cache(options: &Options) -> Result<PathBuf> {
    if let Some(cache) = &options.cache {
        return Ok(std::path::absolute(cache)?);
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    Ok(base.context("neither HOME nor XDG_CACHE_HOME is set: use --cache")?.join("myelin-bench"))
}

/// The interpreter of the environment, which is made if it is not there.
fn environment(cache: &Path) -> Result<PathBuf> {
    let directory = cache.join(format!("synapse-{VERSION}"));
    let python = directory.join("bin/python");
    let complete_marker = directory.join("bin/synapse_homeserver");
    if !complete_marker.exists() {
        eprintln!("synapse: installing {VERSION} in {}", directory.display());
        std::fs::create_dir_all(cache)?;
        complete(Command::new("python3").args(["-m", "venv"]).arg(&directory), "python3 -m venv")?;
        let package = format!("matrix-synapse=={VERSION}");
        complete(Command::new(&python).args(["-m", "pip", "install", "--quiet", &package]), "pip")?;
    }
    Ok(python)
}

fn configuration_for(home: &Path, address: SocketAddr) -> Value {
    let data = home.join("data");
    let mut configuration = json!({
        "server_name": "localhost",
        "pid_file": home.join("synapse.pid"),
        "listeners": [{
            "port": address.port(), "bind_addresses": [address.ip()], "type": "http", "tls": false,
            "resources": [{ "names": ["client", "federation"] }],
        }],
        "database": { "name": "sqlite3", "args": { "database": data.join("homeserver.db") } },
        "log_config": home.join("log.yaml"),
        "media_store_path": home.join("media"),
        "signing_key_path": home.join("signing.key"),
        "registration_shared_secret": "bench",
        "macaroon_secret_key": "bench",
        "form_secret": "bench",
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        // The other servers of the federation workloads are on the loopback network, and nobody vouches for them.
        "federation_verify_certificates": false,
        "ip_range_blacklist": [],
        "rc_federation": { "window_size": 1, "sleep_limit": 1_000_000, "reject_limit": 1_000_000, "concurrent": 1_000 },
        "report_stats": false,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "default_room_version": "12",
        // Answers that are repeated from a cache would measure the cache.
        "caches": { "sync_response_cache_duration": "0s" },
        "include_profile_data_on_invite": true,
    });
    for path in RATE_LIMITS {
        set(&mut configuration, path, json!({ "per_second": 1_000_000, "burst_count": 1_000_000 }));
    }
    std::fs::create_dir_all(&data).ok();
    configuration
}

fn logging() -> Value {
    json!({
        "version": 1,
        "handlers": { "console": { "class": "logging.StreamHandler" } },
        "root": { "level": "ERROR", "handlers": ["console"] },
        "disable_existing_loggers": false,
    })
}

/// Sets `a.b` of an object, making `a` where it is missing.
fn set(object: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        None => object[path] = value,
        Some((first, rest)) => {
            if object[first].is_null() {
                object[first] = json!({});
            }
            set(&mut object[first], rest, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_limit_is_out_of_the_way() {
        let home = tempfile::tempdir().unwrap();
        let configuration = configuration_for(home.path(), "127.0.0.1:8008".parse().unwrap());
        assert_eq!(configuration["rc_message"]["burst_count"], 1_000_000);
        assert_eq!(configuration["rc_login"]["address"]["per_second"], 1_000_000);
        assert_eq!(configuration["rc_login"]["account"]["per_second"], 1_000_000);
        assert_eq!(configuration["listeners"][0]["port"], 8008);
    }
}
