//! Examines an installation. Every finding that is not good says what to do about it.
//!
//! Touches nothing: no directory is made, no store is claimed. Uses the network only towards what the configuration
//! names as this server's own public address, and as its name.

mod federation;
mod fetch;
mod machine;
mod ports;
mod reach;
mod store;

use std::fmt;

use crate::config::Loaded;

/// What one check came to.
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
}

pub enum Verdict {
    Good(String),
    /// Works, and may be a mistake.
    Doubtful {
        found: String,
        remedy: String,
    },
    Bad {
        found: String,
        remedy: String,
    },
}

pub async fn examine(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    let env = crate::system::env();
    let mut findings = configuration(loaded);
    findings.extend(machine::clock(config, &env));
    findings.extend(store::examine(config).await);
    findings.extend(machine::disk(config));
    findings.extend(machine::media(config));
    findings.extend(machine::open_files());
    findings.extend(ports::examine(config, &env).await);
    findings.extend(reach::examine(config, &env).await);
    findings.extend(federation::examine(config, &env).await);
    findings
}

fn configuration(loaded: &Loaded) -> Vec<Finding> {
    let source = loaded.file.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string());
    let warnings = loaded.config.warnings().into_iter().map(|warning| match warning.split_once("; ") {
        Some((found, remedy)) => doubtful("configuration", found, remedy),
        None => doubtful("configuration", warning, "see docs/configuration.md"),
    });
    std::iter::once(good("configuration", format!("valid ({source})"))).chain(warnings).collect()
}

pub fn good(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Good(found.into()) }
}

pub fn doubtful(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Doubtful { found: found.into(), remedy: remedy.into() } }
}

pub fn bad(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Bad { found: found.into(), remedy: remedy.into() } }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = self.check;
        match &self.verdict {
            Verdict::Good(found) => write!(f, "ok    {check}: {found}"),
            Verdict::Doubtful { found, remedy } => write!(f, "warn  {check}: {found}\n      -> {remedy}"),
            Verdict::Bad { found, remedy } => write!(f, "FAIL  {check}: {found}\n      -> {remedy}"),
        }
    }
}
