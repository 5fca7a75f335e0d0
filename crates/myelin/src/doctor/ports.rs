//! Can every listener be bound, or does this server answer there already?

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use myelin_core::Env;
use myelin_outbound::Error;
use url::Url;

use super::{Finding, bad, fetch::Fetcher, good};
use crate::{
    config::{Config, types::Listener},
    serve::tls,
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

pub async fn examine(config: &Config, env: &Env) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listener in &config.server.listen {
        findings.extend(certificate(listener));
        findings.push(port(listener, env).await);
    }
    findings
}

fn certificate(listener: &Listener) -> Option<Finding> {
    let tls = listener.tls.as_ref()?;
    Some(match tls::Certified::load(tls) {
        Ok(_) => good("TLS", format!("{} and its key can be used", tls.cert.display())),
        Err(error) => {
            bad("TLS", format!("{error:#}"), "check server.listen: both files are PEM and belong together")
        }
    })
}

async fn port(listener: &Listener, env: &Env) -> Finding {
    let address = listener.address;
    let Err(error) = TcpListener::bind(address) else {
        return good("port", format!("{address} is free"));
    };
    match error.kind() {
        ErrorKind::AddrInUse if is_ours(listener, env).await => {
            good("port", format!("{address} is answered by myelin"))
        }
        ErrorKind::AddrInUse => bad(
            "port",
            format!("{address} is in use by another program"),
            format!(
                "find it with `ss -ltnp 'sport = :{}'` and stop it, or change server.listen",
                address.port()
            ),
        ),
        ErrorKind::PermissionDenied => bad(
            "port",
            format!("{address} may not be used by this user"),
            "use a port from 1024 up behind a reverse proxy, or give myelin CAP_NET_BIND_SERVICE",
        ),
        ErrorKind::AddrNotAvailable => bad(
            "port",
            format!("this machine does not have the address {}", address.ip()),
            "use one of its addresses (ip addr), or 0.0.0.0 for all, in server.listen",
        ),
        _ => bad("port", format!("{address} cannot be used: {error}"), "change server.listen"),
    }
}

/// Asks the liveness endpoint. The certificate is that of the public name, not of this address: it is not checked.
async fn is_ours(listener: &Listener, env: &Env) -> bool {
    let mut address = listener.address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let Ok(url) = Url::parse(&format!("{scheme}://{address}/_myelin/health/live")) else { return false };
    let certificate = listener.tls.as_ref().map(|tls| tls.cert.as_path());
    let Ok(fetcher) = Fetcher::trusting_only(env, certificate) else { return false };
    match fetcher.get(&url, ANSWER_TIMEOUT).await {
        Ok(answer) => answer.status() == http::StatusCode::OK,
        // A certificate for another name is still a TLS server at our port.
        Err(Error::Tls { .. }) => true,
        Err(_) => false,
    }
}
