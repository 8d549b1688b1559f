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
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts until `stop`, in a thread that ends with the process at the latest. A node that does not
/// answer is passed over.
pub(crate) fn start(nodes: Vec<NodeClient>, stop: CancellationToken) -> Arc<AtomicU64> {
    let mut nodes: Vec<_> = nodes
        .into_iter()
        .map(|node| node.patience(PATIENCE))
        .collect();
    let committed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&committed);
    thread::spawn(move || {
        let mut height = 0;
        while !stop.is_cancelled() {
            let blocks = of_any(&mut nodes, |node| page(node, height)).unwrap_or_default();
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

/// What the first node that answers says. It is asked first from then on: one that hangs is waited
/// for once.
fn of_any<N, A>(nodes: &mut [N], ask: impl Fn(&N) -> Option<A>) -> Option<A> {
    let (first, answer) = nodes
        .iter()
        .enumerate()
        .find_map(|(place, node)| Some((place, ask(node)?)))?;
    nodes.rotate_left(first);
    Some(answer)
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn one_that_hangs_is_asked_once() {
        let asked = RefCell::new(Vec::new());
        let ask = |node: &u8| {
            asked.borrow_mut().push(*node);
            (*node == 2).then_some("answer")
        };
        let mut nodes = [0, 1, 2, 3];
        assert_eq!(of_any(&mut nodes, ask), Some("answer"));
        assert_eq!(of_any(&mut nodes, ask), Some("answer"));
        assert_eq!(asked.take(), [0, 1, 2, 2]);
        assert_eq!(of_any(&mut nodes[1..], ask), None);
    }
}
