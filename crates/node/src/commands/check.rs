//! `config check`: all that is wrong at once.

use super::{
    Context,
    arguments::{ConfigCommand, ConfigOptions},
    output,
};
use crate::{
    config::{self, Config, ConfigError, variable},
    files::{SignState, ValidatorKey, load_genesis, load_node_key},
    prepare,
};

pub(super) fn run(context: &Context, options: &ConfigOptions) -> anyhow::Result<()> {
    match options.command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Defaults => {
            for (path, value) in config::all_keys() {
                output::line(&format!("{path} = {value}"));
            }
            Ok(())
        }
    }
}

fn check(context: &Context) -> anyhow::Result<()> {
    let path = Config::new(&context.home).file();
    if !path.exists() {
        return Err(match std::fs::metadata(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                ConfigError::Read { path, source }
            }
            _ => ConfigError::Missing {
                path,
                home: context.home.clone(),
            },
        }
        .into());
    }
    let reading = Config::inspect(&context.home, &context.overrides)?;
    let mut problems: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
    problems.extend(unknown_variables(context));
    let config = &reading.config;
    let files = [
        load_genesis(&config.genesis_file()).err(),
        load_node_key(&config.node_key_file()).err(),
        ValidatorKey::load(&config.priv_validator_key_file()).err(),
        SignState::load(&config.priv_validator_state_file()).err(),
    ];
    problems.extend(files.into_iter().flatten().map(|error| error.to_string()));
    let refused = prepare::findings(config);
    problems.extend(refused.iter().map(ToString::to_string));
    if problems.is_empty() {
        output::line(&format!(
            "{} is right, and so are the files it names",
            path.display()
        ));
        return Ok(());
    }
    for problem in &problems {
        output::line(problem);
    }
    anyhow::bail!(
        "{} {} found",
        problems.len(),
        if problems.len() == 1 {
            "problem"
        } else {
            "problems"
        }
    )
}

/// Variables of the environment that look like one of a key, and are none.
fn unknown_variables(context: &Context) -> Vec<String> {
    let keys = config::all_keys();
    let known: Vec<_> = keys.iter().map(|(path, _)| variable("", path)).collect();
    let mut found = Vec::new();
    for name in context.overrides.environment.keys() {
        let Some(rest) = name
            .strip_prefix("PERIHELION_")
            .or_else(|| name.strip_prefix("CMT_"))
        else {
            continue;
        };
        // What names the home is no key, and an empty variable counts as none.
        if rest == "HOME"
            || context.overrides.environment[name].is_empty()
            || known.iter().any(|known| known == rest)
        {
            continue;
        }
        let like = |known: &&String| strsim::normalized_damerau_levenshtein(known, rest);
        let nearest = known.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
        let prefix = &name[..name.len() - rest.len()];
        let hint = nearest.filter(|nearest| like(nearest) > 0.5);
        let hint = hint.map_or(String::new(), |nearest| {
            format!("; the nearest known variable is {prefix}{nearest}")
        });
        found.push(format!("environment variable {name}: no such key{hint}"));
    }
    found
}
