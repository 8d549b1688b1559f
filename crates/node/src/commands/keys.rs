//! Commands that print or make keys, and shell completion.

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{
    Context,
    arguments::{Arguments, Completion},
    output,
};
use crate::files::{ValidatorKey, create_folder, generate_node_key, load_node_key};

pub(super) fn show_node_id(context: &Context, libp2p: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !libp2p,
        "--libp2p is not offered: peers of v0.38 to v0.40 use the id of the classic protocol"
    );
    let config = context.config()?;
    let key = load_node_key(&config.node_key_file())?;
    output::line(&key.public_key().node_id().to_string());
    Ok(())
}

pub(super) fn gen_node_key(context: &Context) -> anyhow::Result<()> {
    let config = context.config()?;
    let path = config.node_key_file();
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let key = generate_node_key(&path)?;
    output::line(&key.public_key().node_id().to_string());
    Ok(())
}

pub(super) fn show_validator(context: &Context) -> anyhow::Result<()> {
    let config = context.config()?;
    let key = ValidatorKey::load(&config.priv_validator_key_file())?;
    let text = serde_json::to_string(&key.public_key()).context("the key has no JSON form")?;
    output::line(&text);
    Ok(())
}

pub(super) fn gen_validator() -> anyhow::Result<()> {
    output::line(&ValidatorKey::generate().to_json_with_state());
    Ok(())
}

pub(super) fn completion(options: &Completion) -> anyhow::Result<()> {
    let shell = if options.zsh {
        Shell::Zsh
    } else {
        options.shell
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "perihelion", &mut script);
    output::write(&String::from_utf8(script).context("the script is no text")?);
    Ok(())
}
