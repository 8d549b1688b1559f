//! The bound that `perihelion bench` predicts for the chains, and how much of it was reached.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use perihelion_testkit::measure::{median, sorted};
use serde_json::Value;

use crate::report::align_words;

/// The application that the predictions are of.
pub(crate) const APPLICATION: &str = "kvstore";

/// Of each chain by its letter, as far as there is any.
#[derive(Debug, Default)]
pub(crate) struct Predictions {
    predicted: BTreeMap<char, Speed>,
    measured: BTreeMap<char, Vec<f64>>,
}

/// A prediction for one server on the same machine: a bound, for nothing ever waits in it and each
/// stage finds its data in the processor's cache.
#[derive(Debug, Clone, PartialEq)]
struct Speed {
    blocks_per_second: f64,
    /// What allows no more.
    limit: String,
}

impl Predictions {
    /// Lets the node's binary measure its stages, with stores below `folder`.
    pub(crate) fn make(
        &mut self,
        node: &Path,
        chains: &[char],
        folder: &Path,
    ) -> anyhow::Result<()> {
        let names: Vec<_> = chains.iter().map(char::to_string).collect();
        let mut command = Command::new(node);
        command.args(["bench", "--json", "--shapes", &names.join(","), "--dir"]);
        let output = command.arg(folder).output();
        let output = output.with_context(|| format!("cannot run {}", node.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`perihelion bench` ended with {}: {}",
            output.status,
            said.trim()
        );
        self.predicted = read(&output.stdout)?;
        Ok(())
    }

    /// Notes how fast a chain was synced, in blocks a second of each run.
    pub(crate) fn note(&mut self, chain: char, rates: &[f64]) {
        self.measured.insert(chain, sorted(rates.iter().copied()));
    }

    /// How much of each bound was reached; empty without any.
    pub(crate) fn table(&self) -> String {
        if self.predicted.is_empty() {
            return String::new();
        }
        let heads = ["", "bound", "measured", "of it reached", "what bounds it"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for (chain, speed) in &self.predicted {
            let bound = speed.blocks_per_second;
            let measured = self.measured.get(chain).map(|rates| median(rates));
            let (rate, reached) = match measured {
                Some(rate) => (
                    format!("{rate:.0}"),
                    format!("{:.0} %", 100.0 * rate / bound),
                ),
                None => ("-".to_owned(), "NOT MEASURED".to_owned()),
            };
            rows.push(vec![
                format!("chain {chain}"),
                format!("{bound:.0}"),
                rate,
                reached,
                speed.limit.clone(),
            ]);
        }
        format!(
            "\nBlocks a second: the bound that `perihelion bench` predicted before the syncs, where nothing ever waits, and their medians\n{}",
            align_words(rows)
        )
    }
}

/// What `perihelion bench --json` printed.
fn read(printed: &[u8]) -> anyhow::Result<BTreeMap<char, Speed>> {
    let report: Value = serde_json::from_slice(printed).context("`perihelion bench --json`")?;
    let shapes = report["shapes"].as_array().context("it has no shapes")?;
    let speed = |shape: &Value| {
        let speed = &shape["prediction"]["from_here"];
        Some((
            shape["name"].as_str()?.chars().next()?,
            Speed {
                blocks_per_second: speed["blocks_per_second"].as_f64()?,
                limit: speed["limit"].as_str()?.to_owned(),
            },
        ))
    };
    let speeds = shapes.iter().map(|shape| {
        speed(shape).with_context(|| format!("a shape without a prediction: {shape}"))
    });
    speeds.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed() -> Vec<u8> {
        let speed = |rate: f64, limit: &str| json!({ "blocks_per_second": rate, "limit": limit });
        let shape = |name: &str, rate: f64| {
            let from_here = speed(rate, "all 2 cores");
            let prediction = json!({ "from_elsewhere": speed(9e9, "x"), "from_here": from_here });
            json!({ "name": name, "prediction": prediction })
        };
        let report = json!({ "shapes": [shape("a", 15_000.0), shape("c", 900.0)] });
        serde_json::to_vec(&report).unwrap()
    }

    #[test]
    fn each_bound_stands_beside_the_median_and_what_of_it_was_reached() {
        let mut told = Predictions::default();
        assert_eq!(told.table(), "");
        told.predicted = read(&printed()).unwrap();
        told.note('a', &[12_000.0, 10_000.0, 11_000.0]);
        told.note('b', &[1.0]);
        let table = told.table();
        let lines: Vec<Vec<_>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[3],
            [
                "chain", "a", "15000", "11000", "73", "%", "all", "2", "cores"
            ]
        );
        assert_eq!(lines[4][..4], ["chain", "c", "900", "-"]);
        assert!(table.contains("NOT MEASURED"), "{table}");
        told.note('c', &[990.0]);
        assert!(told.table().contains("110 %"), "{}", told.table());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for printed in ["", "{}", r#"{"shapes":[{"name":"a"}]}"#] {
            assert!(read(printed.as_bytes()).is_err(), "{printed}");
        }
    }
}
