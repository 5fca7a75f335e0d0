//! From a server name to where to connect, which `Host` to send and whose certificate to expect
//! (Server-Server API, "Resolving server names").

use std::{net::IpAddr, sync::Arc};

use myelin_core::Env;
use ruma::ServerName;
use rustls::pki_types;

use crate::{
    dial::{Endpoint, Host},
    error::{Error, Step},
    fetch::{Fetcher, certificate_name},
    network::Service,
    well_known::WellKnown,
};

const PORT_DEFAULT: u16 = 8448;
/// Of one name.
const SERVICES_MAX: usize = 8;
/// The second is deprecated.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// A server as it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What to send as `Host`.
    pub host: String,
    /// Whose certificate it must present; the SNI too, unless it is an address.
    pub certificate_name: pki_types::ServerName<'static>,
    /// In the order in which to try them; never empty.
    pub endpoints: Vec<Endpoint>,
}

pub struct Discovery {
    env: Env,
    fetcher: Arc<Fetcher>,
    well_known: Arc<WellKnown>,
}

impl Discovery {
    pub fn new(env: Env, fetcher: Arc<Fetcher>) -> Self {
        let well_known = Arc::new(WellKnown::new(env.clone(), fetcher.clone()));
        Self { env, fetcher, well_known }
    }

    /// Notes in `steps` what it did, for people.
    pub async fn find(&self, server: &ServerName, steps: &mut Vec<String>) -> Result<Destination, Error> {
        if let Some(explicit) = explicit(server) {
            steps.push(format!("{server} names its host and port"));
            return explicit;
        }
        let host = server.host();
        match self.well_known.delegation(host).await {
            Ok(delegate) => {
                steps.push(format!("https://{host}/.well-known/matrix/server delegates to {delegate}"));
                match explicit(&delegate) {
                    Some(explicit) => explicit,
                    None => self.by_service(delegate.host(), steps).await,
                }
            }
            Err(reason) => {
                steps.push(format!("https://{host}/.well-known/matrix/server: {reason}"));
                self.by_service(host, steps).await
            }
        }
    }

    /// SRV records of `host`, else its default port.
    async fn by_service(&self, host: &str, steps: &mut Vec<String>) -> Result<Destination, Error> {
        for service in SERVICES {
            let name = format!("{service}.{host}");
            let found = match self.fetcher.pool.dialer.network.resolver.services(&name).await {
                Ok(found) if found.is_empty() => {
                    steps.push(format!("{name} has no SRV records"));
                    continue;
                }
                Ok(found) => found,
                // The certificate must be the host's in any case: going on costs an attempt and no safety.
                Err(error) => {
                    steps.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let endpoints = ordered(found, &mut |below| self.draw(below));
            if endpoints.is_empty() {
                let reason = format!("{name} says that there is no such service");
                return Err(Error::unreachable(Step::Resolve, reason));
            }
            steps.push(format!("{name} leads to {}", shown(&endpoints)));
            return destination(host.to_owned(), &Host::Name(host.to_owned()), endpoints);
        }
        let endpoint = Endpoint { host: Host::Name(host.to_owned()), port: PORT_DEFAULT };
        steps.push(format!("no delegation: {endpoint}"));
        destination(host.to_owned(), &endpoint.host.clone(), vec![endpoint])
    }

    /// A number from 0 to `max`.
    fn draw(&self, max: u32) -> u32 {
        let mut bytes = [0; 8];
        self.env.rng.fill(&mut bytes);
        u32::try_from(u64::from_le_bytes(bytes) % (u64::from(max) + 1)).unwrap_or(0)
    }
}

/// Names that need no search: addresses, and hosts with a port.
fn explicit(server: &ServerName) -> Option<Result<Destination, Error>> {
    let literal = server.host().trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let host = match (literal, server.port()) {
        (Some(address), _) => Host::Address(address),
        (None, Some(_)) => Host::Name(server.host().to_owned()),
        (None, None) => return None,
    };
    let endpoint = Endpoint { host: host.clone(), port: server.port().unwrap_or(PORT_DEFAULT) };
    Some(destination(server.to_string(), &host, vec![endpoint]))
}

fn destination(host: String, certified: &Host, endpoints: Vec<Endpoint>) -> Result<Destination, Error> {
    let impossible = || Error::unreachable(Step::Resolve, format!("{certified} is not a host name"));
    Ok(Destination { host, certificate_name: certificate_name(certified).ok_or_else(impossible)?, endpoints })
}

/// By priority; within one, each next at random in proportion to its weight (RFC 2782). `draw(max)` is from 0 to `max`.
fn ordered(mut services: Vec<Service>, draw: &mut dyn FnMut(u32) -> u32) -> Vec<Endpoint> {
    services.retain(|service| !service.target.is_empty());
    // Those of weight 0 come first, as the algorithm wants it.
    services.sort_by(|a, b| (a.priority, a.weight, &a.target).cmp(&(b.priority, b.weight, &b.target)));
    let mut endpoints = Vec::new();
    while let Some(first) = services.first().filter(|_| endpoints.len() < SERVICES_MAX) {
        let priority = first.priority;
        let alike = services.iter().take_while(|service| service.priority == priority);
        let mark = draw(alike.clone().map(|service| u32::from(service.weight)).sum());
        let mut sum = 0;
        let reached = alike.take_while(|service| {
            sum += u32::from(service.weight);
            sum < mark
        });
        let Service { target, port, .. } = services.remove(reached.count());
        endpoints.push(Endpoint { host: Host::Name(target), port });
    }
    endpoints
}

fn shown(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 1, target: target.into() }
    }

    fn targets(services: &[Service], draw: &mut dyn FnMut(u32) -> u32) -> String {
        shown(&ordered(services.to_vec(), draw)).replace(":1", "").replace(", ", "")
    }

    #[test]
    fn services_come_by_priority_and_then_by_weight() {
        let services = [service(20, 0, "z"), service(10, 10, "a"), service(10, 30, "b"), service(10, 0, "n")];
        assert_eq!(targets(&services, &mut |_| 0), "nabz");
        assert_eq!(targets(&services, &mut |max| max), "banz");
        assert_eq!(targets(&services, &mut |max| max.min(10)), "anbz".replace("anb", "abn"));
    }

    #[test]
    fn heavy_services_are_drawn_in_proportion() {
        let services = [service(1, 1, "a"), service(1, 3, "b")];
        let firsts = (1..=4).map(|mark| targets(&services, &mut |max| max.min(mark)).chars().next());
        assert_eq!(firsts.flatten().collect::<String>(), "abbb");
    }

    #[test]
    fn a_dot_is_no_service_and_services_are_bounded() {
        assert_eq!(targets(&[service(0, 0, "")], &mut |_| 0), "");
        let many: Vec<_> = (0..100).map(|_| service(0, 0, "a")).collect();
        assert_eq!(targets(&many, &mut |_| 0).len(), SERVICES_MAX);
    }
}
