//! Counts transactions in blocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use perihelion_testkit::process::NodeClient;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Blocks that `/blockchain` tells of at once.
const PAGE: i64 = 20;
/// Between two looks for new blocks.
const PAUSE: Duration = Duration::from_millis(500);

/// Counts until `stop`, in a thread that ends with the process at the latest. A node that does not
/// answer is passed over.
pub(crate) fn start(nodes: Vec<NodeClient>, stop: CancellationToken) -> Arc<AtomicU64> {
    let committed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&committed);
    thread::spawn(move || {
        let mut height = 0;
        while !stop.is_cancelled() {
            let pages = nodes.iter().find_map(|node| page(node, height));
            let blocks = pages.unwrap_or_default();
            if blocks.is_empty() {
                thread::sleep(PAUSE);
            }
            for (at, txs) in blocks {
                height = height.max(at);
                counted.fetch_add(txs, Ordering::Relaxed);
            }
        }
    });
    committed
}

/// Height and number of transactions of the blocks behind `height`; `None` without an answer.
fn page(node: &NodeClient, height: i64) -> Option<Vec<(i64, u64)>> {
    let (from, to) = (height + 1, height + PAGE);
    let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
    let answer = node.call(&path).ok()?;
    let number = |text: &Value| text.as_str().and_then(|text| text.parse::<i64>().ok());
    let metas = answer["block_metas"].as_array()?;
    let block = |meta: &Value| {
        let height = number(&meta["header"]["height"])?;
        Some((height, number(&meta["num_txs"])?.unsigned_abs()))
    };
    Some(metas.iter().filter_map(block).collect())
}
