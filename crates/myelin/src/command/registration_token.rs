//! `myelin registration-token create|list`

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use myelin_users::registration_tokens::{NewRegistrationToken, RegistrationToken};

use super::Settings;
use crate::{compose::Server, config::parse_duration};

#[derive(Subcommand)]
pub enum Command {
    /// Make a token with which somebody can register
    Create(Create),
    /// List all tokens and how much they were used
    List,
}

#[derive(Args)]
pub struct Create {
    /// The token itself [default: made up]
    #[arg(long)]
    token: Option<String>,
    /// How many accounts it is good for [default: any number]
    #[arg(long, value_name = "NUMBER")]
    uses: Option<u64>,
    /// When it expires, like 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_in: Option<Duration>,
}

const TOKENS_MAX: usize = 10_000;

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        settings.with_server(async |server| match self {
            Self::Create(command) => create(server, command).await,
            Self::List => list(server).await,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn create(server: &Server, command: Create) -> anyhow::Result<()> {
    let lifetime_ms =
        command.expires_in.map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
    let new = NewRegistrationToken {
        token: command.token,
        uses_allowed: command.uses,
        expires_ms: lifetime_ms.map(|lifetime| server.env.now_ms().saturating_add(lifetime)),
    };
    println!("{}", server.users.create_registration_token(new).await?.token);
    Ok(())
}

async fn list(server: &Server) -> anyhow::Result<()> {
    let tokens = server.users.registration_tokens(TOKENS_MAX).await?;
    for token in &tokens {
        println!("{}  {}", token.token, describe(token, server.env.now_ms()));
    }
    eprintln!("{} {}", tokens.len(), if tokens.len() == 1 { "token" } else { "tokens" });
    Ok(())
}

fn describe(token: &RegistrationToken, now_ms: u64) -> String {
    let uses = match token.uses_allowed {
        Some(allowed) => format!("used {} of {allowed} times", token.completed),
        None => format!("used {} times, unlimited", token.completed),
    };
    let pending = if token.pending > 0 { format!(", {} pending", token.pending) } else { String::new() };
    let expiry = match token.expires_ms {
        None => String::new(),
        Some(at_ms) if at_ms <= now_ms => ", expired".to_owned(),
        Some(at_ms) => format!(", expires in {}", rough(at_ms - now_ms)),
    };
    format!("{uses}{pending}{expiry}")
}

/// A duration as one says it: the two largest units.
fn rough(ms: u64) -> String {
    let minutes = ms.div_ceil(60_000);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_described_for_people() {
        let token = |uses_allowed, completed, expires_ms| RegistrationToken {
            token: "t".to_owned(),
            uses_allowed,
            pending: 0,
            completed,
            expires_ms,
            created_ms: 0,
        };
        for (token, expected) in [
            (token(Some(3), 1, None), "used 1 of 3 times"),
            (token(None, 2, Some(500)), "used 2 times, unlimited, expired"),
            (token(Some(1), 0, Some(1_000 + 90_000_000)), "used 0 of 1 times, expires in 1d 1h"),
            (token(Some(1), 0, Some(1_000 + 5_400_000)), "used 0 of 1 times, expires in 1h 30m"),
        ] {
            assert_eq!(describe(&token, 1_000), expected);
        }
    }
}
