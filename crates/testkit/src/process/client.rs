//! Asking a node.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;

/// How long one request may take. A busy node answers late; one that takes longer hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a node for what it serves to clients.
#[derive(Debug, Clone)]
pub struct NodeClient {
    name: String,
    rpc: SocketAddr,
    patience: Duration,
}

/// What a node says of itself (`/status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its identity.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The highest block, 0 when there is none.
    pub height: i64,
    /// The lowest block, 0 when there is none.
    pub base: i64,
    /// The hash of the highest block, in upper-case hexadecimal.
    pub block_hash: String,
    /// The application hash, in upper-case hexadecimal, that the node tells with it.
    pub app_hash: String,
    /// Whether it is still syncing.
    pub catching_up: bool,
}

impl NodeClient {
    /// Of the node that messages call `name` and that listens at `rpc`.
    #[must_use]
    pub fn new(name: &str, rpc: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            rpc,
            patience: REQUEST_TIMEOUT,
        }
    }

    /// The same, whose requests may take so long instead of 5 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What messages call the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// The result of a call, `path` being such as `/block?height=3`.
    ///
    /// # Errors
    /// When the node does not answer, or answers with an error.
    pub fn call(&self, path: &str) -> anyhow::Result<Value> {
        let body =
            get(self.rpc, path, self.patience).with_context(|| format!("{} {path}", self.name))?;
        let mut answer: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{} {path}: not JSON", self.name))?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => Err(anyhow!("{} {path}: {}", self.name, answer["error"])),
        }
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer in the form of `/status`.
    pub fn status(&self) -> anyhow::Result<NodeStatus> {
        NodeStatus::from_json(&self.call("/status")?)
    }

    /// What it says of its sync; Perihelion only.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn sync_status(&self) -> anyhow::Result<Value> {
        self.call("/sync_status")
    }

    /// The hash of the block at a height and the application hash in its header, in upper-case
    /// hexadecimal.
    ///
    /// # Errors
    /// When the node does not answer or has no such block.
    pub fn hashes(&self, height: i64) -> anyhow::Result<(String, String)> {
        let commit = self.call(&format!("/commit?height={height}"))?;
        let signed = &commit["signed_header"];
        let block = text(&signed["commit"]["block_id"]["hash"], "block hash")?;
        Ok((block, text(&signed["header"]["app_hash"], "app_hash")?))
    }

    /// Hands a transaction in, without waiting for a block.
    ///
    /// # Errors
    /// When the node does not take it.
    pub fn broadcast(&self, tx: &[u8]) -> anyhow::Result<()> {
        let mut path = "/broadcast_tx_sync?tx=0x".to_owned();
        for byte in tx {
            // Writing into a String cannot fail.
            let _ = write!(path, "{byte:02x}");
        }
        let answer = self.call(&path)?;
        ensure!(answer["code"] == 0, "{} {path}: {answer}", self.name);
        Ok(())
    }
}

impl NodeStatus {
    fn from_json(status: &Value) -> anyhow::Result<Self> {
        let sync = &status["sync_info"];
        Ok(Self {
            id: text(&status["node_info"]["id"], "id")?,
            version: text(&status["node_info"]["version"], "version")?,
            height: number(&sync["latest_block_height"], "latest_block_height")?,
            base: number(&sync["earliest_block_height"], "earliest_block_height")?,
            block_hash: text(&sync["latest_block_hash"], "latest_block_hash")?,
            app_hash: text(&sync["latest_app_hash"], "latest_app_hash")?,
            catching_up: sync["catching_up"].as_bool().context("no catching_up")?,
        })
    }
}

/// The body of the answer to a request.
///
/// # Errors
/// When nobody listens there, or no whole answer comes within 5 seconds.
pub fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    get(address, path, REQUEST_TIMEOUT)
}

fn get(address: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // Version 1.0: the body is whole and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer is cut short")?;
    Ok(answer.split_off(end + 4))
}

fn text(value: &Value, what: &str) -> anyhow::Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("no {what}"))?
        .to_owned())
}

fn number(value: &Value, what: &str) -> anyhow::Result<i64> {
    let text = value.as_str().with_context(|| format!("no {what}"))?;
    text.parse().with_context(|| format!("{what} is no number"))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
