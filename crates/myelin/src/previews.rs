//! Previews of URLs as configured, and the way to the pages: through the guards, but with ranges of its own. Who opens
//! federation to a private network does not open it to whoever posts a URL.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, header};
use myelin_core::Env;
use myelin_media::{
    FetchLimits, Page, PageError, Pages,
    preview::{self, Patterns},
};
use myelin_outbound::{AddressPolicy, Budget, Error, Fetcher, Landed, Network, Options, Redirects};
use url::Url;

use crate::{config::Config, outbound};

/// Pages and images open at once.
const CONNECTIONS_MAX: usize = 64;
const REDIRECTS: Redirects = Redirects { follow_max: 5, plain_http: true };
/// Sites that answer browsers with scripts answer those who say that they are none with what they are about.
const USER_AGENT: &str = concat!("Myelin/", env!("CARGO_PKG_VERSION"), " (bot; Matrix URL previews)");
const ACCEPT: &str = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.5";

pub fn config(config: &Config) -> preview::Config {
    let previews = &config.media_previews;
    preview::Config {
        enabled: previews.enabled,
        patterns: Patterns::new(&previews.allow, &previews.deny),
        page_size_max: usize::try_from(previews.page_size_max.0).unwrap_or(usize::MAX),
        image_size_max: previews.image_size_max.0,
        images_size_max: previews.images_size_max.0,
        timeout: previews.timeout,
        fresh_for: previews.fresh_for,
    }
}

pub fn pages(config: &Config, env: &Env) -> anyhow::Result<Arc<dyn Pages>> {
    let previews = &config.media_previews;
    let addresses = AddressPolicy::new(previews.allow_addresses.clone(), previews.deny_addresses.clone());
    let trust = outbound::trust(&config.federation)?;
    let options = Options { addresses, trust, connections_max: CONNECTIONS_MAX };
    let fetcher = Fetcher::new(env.clone(), Network::system(), options)?;
    let language =
        HeaderValue::try_from(&previews.accept_language).context("media.previews.accept_language")?;
    Ok(Arc::new(Web { fetcher, language }))
}

struct Web {
    fetcher: Fetcher,
    language: HeaderValue,
}

impl Pages for Web {
    fn fetch<'a>(&'a self, url: &'a Url, limits: FetchLimits) -> BoxFuture<'a, Result<Page, PageError>> {
        let size_max = usize::try_from(limits.size_max).unwrap_or(usize::MAX);
        let budget = Budget { timeout: limits.timeout, body_size_max: size_max };
        let mut request = Request::new(Bytes::new());
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        headers.insert(header::ACCEPT_LANGUAGE, self.language.clone());
        async move {
            let answer = self.fetcher.open(url, request, REDIRECTS, budget).await.map_err(told)?;
            let (head, body) = answer.into_parts();
            Ok(Page {
                status: head.status.as_u16(),
                url: head.extensions.get::<Landed>().map_or_else(|| url.clone(), |landed| landed.0.clone()),
                content_type: text(&head.headers, header::CONTENT_TYPE),
                robots: head.headers.get_all("x-robots-tag").iter().map(shown).collect(),
                size: body.announced_size(),
                body: body.into_stream().map_err(std::io::Error::other).boxed(),
            })
        }
        .boxed()
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    // Names of character sets are ASCII; the rest may be anything.
    headers.get(name).map(shown)
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn told(error: Error) -> PageError {
    match error {
        Error::Refused(refusal) => PageError::Refused(refusal.to_string()),
        error => PageError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Sources;

    const LIMITS: FetchLimits = FetchLimits { size_max: 1_000, timeout: Duration::from_secs(5) };

    async fn refusal(set: &[&str], url: &str) -> Option<PageError> {
        let set = set.iter().map(|&set| set.to_owned()).collect();
        let loaded =
            Sources { file: None, env: Default::default(), dev: false, set }.load().expect("a configuration");
        let pages = pages(&loaded.config, &crate::system::env()).expect("a web");
        pages.fetch(&url.parse().expect("a URL"), LIMITS).await.err()
    }

    #[tokio::test]
    async fn what_only_this_machine_can_reach_is_not_shown_though_federation_may_reach_it() {
        let federation = r#"federation.allow_addresses=["127.0.0.0/8", "10.0.0.0/8"]"#;
        for url in
            ["http://127.0.0.1:1/", "http://[::1]:1/", "http://0x7f000001:1/", "http://169.254.169.254/"]
        {
            let refusal = refusal(&[federation], url).await;
            assert!(matches!(refusal, Some(PageError::Refused(_))), "{url}: {refusal:?}");
        }
        let own = r#"media.previews.allow_addresses=["127.0.0.0/8"]"#;
        let refusal = refusal(&[own], "http://127.0.0.1:1/").await;
        assert!(matches!(refusal, Some(PageError::Failed(_))), "nobody listens there: {refusal:?}");
    }
}
