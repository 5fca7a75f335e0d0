//! Synapse as a real peer, unmodified from PyPI: stories that two servers tell together, in both directions.
//!
//! Its packages are installed into the target directory, pinned by `tests/peers/requirements.txt`. In one story the people
//! use matrix-js-sdk, as installed for [`super::clients`].

use std::{path::Path, process::Command};

use super::{clients, process};

pub fn synapse(server: &Path, scratch: &Path) -> anyhow::Result<()> {
    let sources = process::workspace_root().join("tests/peers");
    let python = clients::python_with("peers", &sources.join("requirements.txt"))?;
    let mut stories = Command::new(python);
    stories.arg("-B").arg(sources.join("peers.py"));
    stories.env("MYELIN_BIN", server).env("JS_CLIENT", clients::js_environment()?);
    process::run(clients::within(scratch, "peers", &mut stories)?)
}
