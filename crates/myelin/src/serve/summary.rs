//! What a person sees when the server is up: where it is, how to get in, what to do next. With JSON logs it is one
//! log line.

use std::{fmt::Write, net::SocketAddr};

use myelin_users::registration_tokens::NewRegistrationToken;

use crate::{
    compose::Server,
    config::{
        Loaded,
        types::{Listener, RegistrationMode, Surface},
    },
};

pub async fn announce(
    server: &Server,
    loaded: &Loaded,
    addresses: &[SocketAddr],
    dev: bool,
) -> anyhow::Result<()> {
    let token = invitation(server, loaded).await?;
    let urls: Vec<_> =
        loaded.config.server.listen.iter().zip(addresses).map(|(l, address)| url(l, *address)).collect();
    if loaded.config.log.json {
        let name = loaded.config.server.name.as_str();
        tracing::info!(server_name = name, listen = ?urls, registration_token = token, "ready");
        return Ok(());
    }
    print!("{}", text(loaded, &urls, token.as_deref(), dev));
    Ok(())
}

/// The one-time registration token of a server without accounts; the same one until it is used.
async fn invitation(server: &Server, loaded: &Loaded) -> anyhow::Result<Option<String>> {
    if loaded.config.registration.mode != RegistrationMode::Token
        || !server.users.accounts(None, 1).await?.is_empty()
    {
        return Ok(None);
    }
    const TOKENS_LOOKED_AT: usize = 16;
    for known in server.users.registration_tokens(TOKENS_LOOKED_AT).await? {
        if known.uses_allowed == Some(1) && server.users.is_valid_registration_token(&known.token).await? {
            return Ok(Some(known.token));
        }
    }
    let once = NewRegistrationToken { uses_allowed: Some(1), ..NewRegistrationToken::default() };
    Ok(Some(server.users.create_registration_token(once).await?.token))
}

fn url(listener: &Listener, address: SocketAddr) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

fn text(loaded: &Loaded, urls: &[String], token: Option<&str>, dev: bool) -> String {
    let config = &loaded.config;
    let mut out = format!("\nMyelin {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "  {label:<14} {value}");
    };
    line("server name", config.server.name.as_str());
    for (listener, url) in config.server.listen.iter().zip(urls) {
        let serves: Vec<_> = listener.serves.iter().map(|surface| surface_name(*surface)).collect();
        line("listening on", &format!("{url} ({})", serves.join(", ")));
    }
    line("store", &config.store.uri.to_string());
    line(
        "configuration",
        &loaded.file.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string()),
    );
    line("registration", registration(config.registration.mode));
    if let Some(token) = token {
        line("", &format!("the first account can be made with this one-time token: {token}"));
    }
    out.push('\n');
    out.push_str(&how_to_connect(loaded, urls));
    if dev {
        out.push_str("  --dev: anybody on this machine can register. Not for real use.\n");
    }
    out.push_str("  Ctrl-C stops the server.\n\n");
    out
}

fn registration(mode: RegistrationMode) -> &'static str {
    match mode {
        RegistrationMode::Closed => "closed (make accounts with `myelin user create` or the shared secret)",
        RegistrationMode::Token => "by token",
        RegistrationMode::Open => "open to everybody",
    }
}

fn how_to_connect(loaded: &Loaded, urls: &[String]) -> String {
    let config = &loaded.config;
    let client = config
        .server
        .listen
        .iter()
        .zip(urls)
        .find(|(listener, _)| listener.serves.contains(&Surface::Client));
    let public =
        config.server.public_base_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    match public.or(client.map(|(_, url)| url.clone())) {
        None => "  No listener serves clients (server.listen).\n".to_owned(),
        Some(url) => format!(
            "  To chat: open Element (or any Matrix client), choose \"Edit\" beside the homeserver, enter\n  \
             {url}\n  and create an account.\n"
        ),
    }
}

fn surface_name(surface: Surface) -> &'static str {
    match surface {
        Surface::Client => "client",
        Surface::Federation => "federation",
        Surface::Admin => "admin",
        Surface::Metrics => "metrics",
    }
}
