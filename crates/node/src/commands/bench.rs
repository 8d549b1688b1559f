//! `bench`.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use anyhow::Context as _;
use perihelion_bench::{BenchError, Shape, Verify, measure};
use tokio_util::sync::CancellationToken;

use super::{
    arguments::{Bench, VerifyMode},
    output,
};
use crate::signals;

/// Measures until it is done or told to stop; what it wrote is removed again either way.
pub(super) fn run(options: &Bench) -> anyhow::Result<()> {
    let shapes = shapes(options)?;
    let verify = match options.verify {
        VerifyMode::Pinned => Verify::Pinned,
        VerifyMode::Every => Verify::Every,
    };
    let folder = options.dir.clone().unwrap_or_else(env::temp_dir);
    let says_what = !options.json && io::stderr().is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let stop = CancellationToken::new();
    let report = runtime.block_on(async {
        signals::watch(stop.clone()).context("cannot wait for signals")?;
        let measured = tokio::task::spawn_blocking(move || {
            measure(&shapes, verify, &folder, &|| stop.is_cancelled(), |shape| {
                if says_what {
                    output::note(&format!("measuring {} …", shape.name));
                }
            })
            .map_err(|error| match error {
                BenchError::System { .. } | BenchError::Store(_) => {
                    anyhow::Error::new(error).context(format!("--dir {}", folder.display()))
                }
                error => error.into(),
            })
        });
        measured.await.context("measuring panicked")?
    })?;
    if options.json {
        output::line(&serde_json::to_string_pretty(&report)?);
    } else {
        output::write(&report.to_string());
    }
    Ok(())
}

/// Those that are named, or the one that the other flags describe.
fn shapes(options: &Bench) -> anyhow::Result<Vec<Shape>> {
    let presets = Shape::presets();
    let described = [options.validators, options.txs, options.tx_bytes];
    if described.iter().all(Option::is_none) {
        let named = options.shapes.iter();
        return Ok(named.map(|name| presets[*name as usize].clone()).collect());
    }
    let [small, ..] = presets;
    let shape = Shape {
        name: "this shape".to_owned(),
        validators: options.validators.unwrap_or(small.validators),
        txs: options.txs.unwrap_or(small.txs),
        tx_bytes: options.tx_bytes.unwrap_or(small.tx_bytes),
    };
    shape.check()?;
    Ok(vec![shape])
}
