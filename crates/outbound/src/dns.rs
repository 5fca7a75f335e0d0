//! DNS through the name servers that the system is configured with.

use std::{net::IpAddr, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
    lookup::Lookup,
    net::NetError,
    proto::rr::{Name, RData},
};

use crate::network::{LookupError, Resolver, Service};

/// Answers kept.
const CACHE_SIZE: u64 = 16_384;
/// A record that lives for no time at all would be asked for with every request.
const TTL_MIN: Duration = Duration::from_secs(30);
const TTL_MAX: Duration = Duration::from_secs(60 * 60);
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5 * 60);
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Without a configuration that can be read, every question is answered with why.
pub struct SystemResolver(Result<TokioResolver, LookupError>);

impl SystemResolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`.
    pub fn new() -> Self {
        let resolver = Self::configured();
        Self(resolver.map_err(|error| LookupError(format!("the system's DNS configuration: {error}"))))
    }

    fn configured() -> Result<TokioResolver, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.cache_size = CACHE_SIZE;
        options.positive_min_ttl = Some(TTL_MIN);
        options.positive_max_ttl = Some(TTL_MAX);
        options.negative_min_ttl = Some(TTL_MIN);
        options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        options.timeout = QUERY_TIMEOUT;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        builder.build()
    }

    fn resolver(&self) -> Result<&TokioResolver, LookupError> {
        self.0.as_ref().map_err(Clone::clone)
    }
}

impl Resolver for SystemResolver {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, LookupError>> {
        async move {
            let found = self.resolver()?.lookup_ip(absolute(host)?).await;
            found.map_or_else(none_if_absent, |found| Ok(found.iter().collect()))
        }
        .boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, LookupError>> {
        async move {
            let found = self.resolver()?.srv_lookup(absolute(name)?).await;
            found.map_or_else(none_if_absent, |found| Ok(services(&found)))
        }
        .boxed()
    }
}

/// Names are absolute: the search domains of this machine are nobody else's business.
fn absolute(name: &str) -> Result<Name, LookupError> {
    let mut absolute = Name::from_ascii(name)
        .map_err(|error| LookupError(format!("'{name}' is not a host name: {error}")))?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

fn none_if_absent<T>(error: NetError) -> Result<Vec<T>, LookupError> {
    if error.is_no_records_found() { Ok(Vec::new()) } else { Err(LookupError(format!("DNS: {error}"))) }
}

fn services(found: &Lookup) -> Vec<Service> {
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some(service),
        _ => None,
    });
    let services = records.map(|record| Service {
        priority: record.priority,
        weight: record.weight,
        port: record.port,
        target: record.target.to_ascii().trim_end_matches('.').to_owned(),
    });
    services.collect()
}
