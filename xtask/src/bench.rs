//! `cargo xtask bench`: the load generator and its table.

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("the benchmark is not built yet")
}
