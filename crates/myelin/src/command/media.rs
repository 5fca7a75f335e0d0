//! `myelin media list|quarantine|unquarantine|delete|purge-remote|usage`

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::Subcommand;
use myelin_media::{Kind, Mxc};

use super::{Settings, user};
use crate::{compose::Server, config::parse_duration};

/// Who did it, in the list of what is quarantined.
const BY: &str = "the command line";
const PAGE: usize = 500;
const QUARANTINED_MAX: usize = 100_000;

#[derive(Subcommand)]
pub enum Command {
    /// What a user has uploaded, oldest first; without a name, what is quarantined
    List {
        /// Like alice, or @alice:example.org
        name: Option<String>,
    },
    /// Let nobody have this any more, under whatever URI the same bytes come
    Quarantine {
        #[arg(value_name = "MXC", required = true, value_parser = mxc)]
        mxc: Vec<Mxc>,
    },
    /// Let it be had again
    Unquarantine {
        #[arg(value_name = "MXC", required = true, value_parser = mxc)]
        mxc: Vec<Mxc>,
    },
    /// Delete for good
    Delete {
        #[arg(value_name = "MXC", required = true, value_parser = mxc)]
        mxc: Vec<Mxc>,
    },
    /// Delete copies of other servers' media that nobody has asked for
    PurgeRemote {
        /// For so long
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_duration)]
        unused_for: Duration,
    },
    /// How much every user has stored
    Usage,
}

fn mxc(text: &str) -> Result<Mxc, String> {
    Mxc::parse(text).ok_or_else(|| "it is not like mxc://example.org/AbCdEf".to_owned())
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        settings.with_server(async |server| match self {
            Self::List { name: Some(name) } => list(server, &name).await,
            Self::List { name: None } => list_quarantined(server).await,
            Self::Quarantine { mxc } => {
                each(&mxc, "quarantined", async |mxc| server.media.quarantine(mxc, BY).await).await
            }
            Self::Unquarantine { mxc } => {
                each(&mxc, "free again", async |mxc| server.media.unquarantine(mxc).await).await
            }
            Self::Delete { mxc } => each(&mxc, "deleted", async |mxc| server.media.remove(mxc).await).await,
            Self::PurgeRemote { unused_for } => {
                let deleted = server.media.delete_unused(unused_for, Kind::Remote).await?;
                println!("{} files of other servers are deleted, {}", deleted.media, size(deleted.bytes));
                Ok(())
            }
            Self::Usage => usage(server).await,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn each(
    all: &[Mxc],
    done: &str,
    work: impl AsyncFn(&Mxc) -> Result<bool, myelin_media::Error>,
) -> anyhow::Result<()> {
    let mut unknown = 0;
    for mxc in all {
        match work(mxc).await.with_context(|| mxc.to_string())? {
            true => println!("{mxc} is {done}"),
            false => {
                unknown += 1;
                eprintln!("{mxc} is not here");
            }
        }
    }
    ensure!(unknown == 0, "{unknown} of {} are not here", all.len());
    Ok(())
}

async fn list(server: &Server, name: &str) -> anyhow::Result<()> {
    let account = user::account(server, name).await?;
    let mut after = None;
    loop {
        let (page, next) = server.media.media_of(account.user, after.as_ref(), PAGE).await?;
        for info in &page {
            let content = info.record.content.as_ref();
            let shown = content.map_or_else(
                || "not uploaded yet".to_owned(),
                |content| format!("{}  {}", size(content.size), content.content_type),
            );
            let quarantined = if info.record.quarantined { "  (quarantined)" } else { "" };
            println!("{}  {shown}{quarantined}", info.mxc);
        }
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let usage = server.media.usage_of(account.user).await?;
    eprintln!("{} files, {}", usage.files, size(usage.bytes));
    Ok(())
}

async fn list_quarantined(server: &Server) -> anyhow::Result<()> {
    for (mxc, row) in server.media.quarantined(QUARANTINED_MAX).await? {
        println!("{mxc}  (by {})", row.by);
    }
    Ok(())
}

async fn usage(server: &Server) -> anyhow::Result<()> {
    let all = server.media.usage().await?;
    for (user, usage) in &all {
        println!(
            "{}  {}  {} files",
            server.view.interner.user_id(*user).await?,
            size(usage.bytes),
            usage.files
        );
    }
    let total = all.iter().map(|(_, usage)| usage.bytes).sum();
    eprintln!("{} users, {}", all.len(), size(total));
    Ok(())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
