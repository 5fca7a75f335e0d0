//! `cargo xtask tidy`: rules of the code base that no compiler checks.

/// Arguments of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<()> {
    check()
}

/// Prints every violation with what to do about it; an error if there is one.
pub fn check() -> anyhow::Result<()> {
    println!("no rules yet");
    Ok(())
}
