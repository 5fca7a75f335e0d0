//! `myelin user create|set-password|deactivate|list`

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use myelin_core::UserNid;
use myelin_store::tables::{AccountKind, AccountRecord};
use myelin_users::{Account, registration::Registration};
use ruma::{OwnedUserId, UserId};

use super::{Settings, password};
use crate::compose::Server;

#[derive(Subcommand)]
pub enum Command {
    /// Create an account; the password is asked for, or read from standard input
    Create(Create),
    /// Give an account a new password and log its devices out
    SetPassword(SetPassword),
    /// Close an account for good
    Deactivate(Deactivate),
    /// List all accounts
    List,
}

#[derive(Args)]
pub struct Create {
    /// Like alice, or @alice:example.org
    name: String,
    /// Make it a server administrator
    #[arg(long)]
    admin: bool,
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Others on this machine can see it in the process list: better leave it out and be asked
    #[arg(long)]
    password: Option<String>,
}

#[derive(Args)]
pub struct SetPassword {
    /// Like alice, or @alice:example.org
    name: String,
    /// Leave the devices of the account logged in
    #[arg(long)]
    keep_devices: bool,
    /// Others on this machine can see it in the process list: better leave it out and be asked
    #[arg(long)]
    password: Option<String>,
}

#[derive(Args)]
pub struct Deactivate {
    /// Like alice, or @alice:example.org
    name: String,
    /// Also forget profile and account data
    #[arg(long)]
    erase: bool,
}

const PAGE: usize = 500;

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        settings.with_server(async |server| match self {
            Self::Create(command) => create(server, command).await,
            Self::SetPassword(command) => set_password(server, command).await,
            Self::Deactivate(command) => deactivate(server, command).await,
            Self::List => list(server).await,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn create(server: &Server, command: Create) -> anyhow::Result<()> {
    let user_id = user_id(server, &command.name)?;
    let username = user_id.localpart().to_owned();
    server.users.check_available(&username).await.with_context(|| format!("{user_id} cannot be created"))?;
    let password = password::obtain(command.password, &user_id)?;
    let registration = Registration {
        username: Some(username),
        password: Some(password),
        display_name: command.display_name,
        admin: command.admin,
        login: None,
        ..Registration::default()
    };
    let registered = server.users.register(&registration).await?;
    println!("{} was created{}", registered.user_id, if command.admin { " as an administrator" } else { "" });
    Ok(())
}

async fn set_password(server: &Server, command: SetPassword) -> anyhow::Result<()> {
    let account = account(server, &command.name).await?;
    let password = password::obtain(command.password, &account.user_id)?;
    server.users.set_password(account.user, &password, !command.keep_devices, None).await?;
    let devices =
        if command.keep_devices { "its devices stay logged in" } else { "its devices were logged out" };
    println!("{} has a new password; {devices}", account.user_id);
    Ok(())
}

async fn deactivate(server: &Server, command: Deactivate) -> anyhow::Result<()> {
    let account = account(server, &command.name).await?;
    if account.record.deactivated {
        bail!("{} is deactivated already", account.user_id);
    }
    server.users.deactivate(account.user, command.erase).await?;
    println!("{} was deactivated; it leaves its rooms while the server runs", account.user_id);
    Ok(())
}

async fn list(server: &Server) -> anyhow::Result<()> {
    let (mut after, mut count): (Option<UserNid>, usize) = (None, 0);
    loop {
        let page = server.users.accounts(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.user);
        count += page.len();
        for account in &page {
            println!("{}{}", account.user_id, flags(&account.record));
        }
    }
    eprintln!("{count} {}", if count == 1 { "account" } else { "accounts" });
    Ok(())
}

fn flags(account: &AccountRecord) -> String {
    let all = [
        (account.admin, "administrator"),
        (account.kind == AccountKind::Guest, "guest"),
        (account.locked, "locked"),
        (account.suspended, "suspended"),
        (account.deactivated, "deactivated"),
        (account.erased, "erased"),
        (account.password_hash.is_none() && !account.deactivated, "no password"),
    ];
    let set: Vec<_> = all.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if set.is_empty() { String::new() } else { format!("  ({})", set.join(", ")) }
}

/// A localpart or a whole user id of this server.
fn user_id(server: &Server, name: &str) -> anyhow::Result<OwnedUserId> {
    let server_name = &server.view.server_name;
    let user_id = UserId::parse_with_server_name(name, server_name)
        .with_context(|| format!("'{name}' is not a user name; write alice or @alice:{server_name}"))?;
    if !server.view.is_local(&user_id) {
        bail!("{user_id} is not a user of this server, {server_name}");
    }
    Ok(user_id)
}

pub(super) async fn account(server: &Server, name: &str) -> anyhow::Result<Account> {
    let user_id = user_id(server, name)?;
    let account = server.users.account(&user_id).await?;
    account.with_context(|| format!("there is no account {user_id}; `myelin user list` shows all"))
}
