//! `status`: how far a running node is, asked over its RPC.

use std::{
    io::{IsTerminal as _, Read as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use perihelion_consensus::Step;
use perihelion_store::{StoreError, lock_store};
use serde_json::Value;

use super::{Context, arguments::Status, output};
use crate::{
    config::{Config, host_and_port},
    progress::{LiveLine, ProgressLine, format_round},
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer at most: a status is far below, and a wrong server must not fill memory.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// Characters of a text in it that are shown at most.
const MAX_TEXT_CHARS: usize = 600;
/// Pause between two looks with `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(context: &Context, options: &Status) -> anyhow::Result<()> {
    let config = if context.names_home && options.rpc.is_none() {
        // Another home's node must not answer for one that is not there.
        context.existing()?.config
    } else {
        context.config()?
    };
    let server = server(&config, options.rpc.as_deref())?;
    let client = Client::new(server);
    let first = match client.progress() {
        Ok(first) => first,
        Err(error) if options.rpc.is_none() => return Err(silence(&config, &client.server, error)),
        Err(error) => return Err(error),
    };
    if !options.watch {
        output::line(&first.format());
        return Ok(());
    }
    let live = std::io::stdout()
        .is_terminal()
        .then(LiveLine::on_terminal)
        .flatten();
    let show = |progress: &ProgressLine| match &live {
        Some(live) => live.show(progress),
        None => output::line(&progress.format()),
    };
    show(&first);
    let (mut last, mut height) = (Instant::now(), first.height);
    loop {
        std::thread::sleep(PAUSE);
        let mut progress = match client.progress() {
            Ok(progress) => progress,
            Err(error) => {
                // It may be started again.
                let text = format!("{error:#}");
                match &live {
                    Some(live) => live.show_text(&text),
                    None => output::line(&text),
                }
                continue;
            }
        };
        if progress.blocks_per_second == 0.0 {
            // A CometBFT node tells no rate: what was seen between two looks is one.
            let blocks = progress.height.saturating_sub(height);
            progress.blocks_per_second = rate(blocks, last.elapsed());
        }
        (last, height) = (Instant::now(), progress.height);
        show(&progress);
    }
}

/// Why the node of a home does not answer.
fn silence(config: &Config, server: &str, error: anyhow::Error) -> anyhow::Error {
    match lock_store(&config.data_dir()) {
        Err(StoreError::Locked { holder, .. }) => anyhow::anyhow!(
            "{holder} runs on {} and does not answer at {server}: it starts, or waits for its \
             application at proxy_app = {:?}; its log says for what",
            config.home().display(),
            config.base.proxy_app
        ),
        _ => error,
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
fn rate(blocks: u64, time: Duration) -> f64 {
    blocks as f64 / time.as_secs_f64().max(0.001)
}

/// `HOST:PORT` of the server: as given, else where the home's node listens.
fn server(config: &Config, given: Option<&str>) -> anyhow::Result<String> {
    let address = given.unwrap_or(&config.rpc.laddr);
    anyhow::ensure!(
        !address.is_empty(),
        "rpc.laddr is empty, so that the node of {} serves no RPC that could be asked: set it, or pass \
         --rpc tcp://HOST:PORT of another node",
        config.home().display()
    );
    let bare = address
        .strip_prefix("tcp://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address)
        .trim_end_matches('/');
    let (host, port) = host_and_port(bare)
        .with_context(|| format!("{address:?} is no address to ask: pass --rpc tcp://HOST:PORT"))?;
    // Who listens everywhere is asked here.
    Ok(match host {
        "" | "0.0.0.0" => format!("127.0.0.1:{port}"),
        "::" => format!("[::1]:{port}"),
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    })
}

struct Client {
    agent: ureq::Agent,
    server: String,
}

impl Client {
    fn new(server: String) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            server,
        }
    }

    /// The node's progress: from `/sync_status`, or from `/status` of a node without it.
    fn progress(&self) -> anyhow::Result<ProgressLine> {
        let mut line = self.sync()?;
        if line.mode == "consensus" && line.round.is_empty() {
            // A server may do without it.
            let state = self.get("consensus_state").ok().flatten();
            let place = state.and_then(|state| Place::of(state.get("round_state")?));
            if let Some(place) = place {
                place.show_in(&mut line);
            }
        }
        Ok(line)
    }

    fn sync(&self) -> anyhow::Result<ProgressLine> {
        if let Some(answer) = self.get("sync_status")? {
            return Ok(from_sync_status(&answer));
        }
        let status = self
            .get("status")?
            .with_context(|| format!("{} answers, but not as a node does", self.server))?;
        let peers = self.get("net_info")?;
        Ok(from_status(&status, peers.as_ref()))
    }

    /// The result of a route; `None` where the server has no such route.
    fn get(&self, route: &str) -> anyhow::Result<Option<Value>> {
        let url = format!("http://{}/{route}", self.server);
        let unreachable = || {
            format!(
                "no node answers at {}: start one, or pass --rpc with the address of its [rpc] laddr",
                self.server
            )
        };
        let mut response = self.agent.get(&url).call().with_context(unreachable)?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let mut text = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut text)
            .with_context(unreachable)?;
        let answer: Option<Value> = serde_json::from_slice(&text).ok();
        Ok(answer.and_then(|mut answer| answer.get_mut("result").map(Value::take)))
    }
}

/// What is being decided.
struct Place {
    height: u64,
    round: u32,
    step: Step,
}

impl Place {
    /// As an answer has it; `None` where there is none.
    fn of(answer: &Value) -> Option<Self> {
        let place = answer.get("height/round/step")?.as_str()?;
        let mut parts = place.split('/');
        let (height, round) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let number: u8 = parts.next()?.parse().ok()?;
        let step = Step::ALL.into_iter().find(|step| *step as u8 == number)?;
        Some(Self {
            height,
            round,
            step,
        })
    }

    /// The round, and the height below, for what an earlier answer said of that is of another moment.
    /// Where that said that there is no block, a chain begins, maybe not at 1.
    fn show_in(&self, line: &mut ProgressLine) {
        if line.height > 0 {
            line.height = self.height.saturating_sub(1);
        }
        line.round = self.format();
    }

    fn format(&self) -> String {
        format_round(self.height, self.round, self.step)
    }
}

/// An integer, be it a number or, as 64-bit integers are, a text.
fn integer(value: &Value, name: &str) -> Option<u64> {
    match value.get(name)? {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    }
}

fn number(value: &Value, name: &str) -> f64 {
    match value.get(name) {
        Some(Value::String(text)) => text.parse().unwrap_or(0.0),
        Some(number) => number.as_f64().unwrap_or(0.0),
        None => 0.0,
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name)?.as_str()?;
    // What a server sends must not steer the terminal.
    let visible = text.chars().filter(|c| !c.is_control());
    Some(visible.take(MAX_TEXT_CHARS).collect())
}

/// A reason, which is empty or absent where there is none.
fn reason(value: &Value, name: &str) -> Option<String> {
    text(value, name).filter(|reason| !reason.is_empty())
}

fn from_sync_status(answer: &Value) -> ProgressLine {
    ProgressLine {
        mode: text(answer, "mode").unwrap_or_default(),
        height: integer(answer, "height").unwrap_or(0),
        start_height: integer(answer, "start_height").unwrap_or(0),
        target: integer(answer, "target_height").filter(|target| *target > 0),
        blocks_per_second: number(answer, "blocks_per_second"),
        bytes_per_second: number(answer, "bytes_per_second"),
        eta: integer(answer, "remaining_time").map(Duration::from_nanos),
        peers: answer
            .get("peers")
            .and_then(Value::as_array)
            .map_or(0, Vec::len),
        limiting_stage: text(answer, "limiting_stage").unwrap_or_default(),
        stalled: reason(answer, "stalled_reason"),
        silent: reason(answer, "silent_reason"),
        round: Place::of(answer).map_or_else(String::new, |place| place.format()),
    }
}

fn from_status(status: &Value, net_info: Option<&Value>) -> ProgressLine {
    let null = Value::Null;
    let sync = status.get("sync_info").unwrap_or(&null);
    let catching_up = sync.get("catching_up").and_then(Value::as_bool);
    let height = integer(sync, "latest_block_height").unwrap_or(0);
    ProgressLine {
        mode: match catching_up {
            Some(true) => "block_sync",
            _ => "consensus",
        }
        .to_owned(),
        height,
        target: match catching_up {
            Some(false) => Some(height).filter(|height| *height > 0),
            _ => integer(sync, "max_peer_block_height"),
        },
        peers: net_info
            .and_then(|info| integer(info, "n_peers"))
            .and_then(|peers| usize::try_from(peers).ok())
            .unwrap_or(0),
        ..ProgressLine::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn all_of_a_sync_status_is_shown() {
        let line = from_sync_status(&json!({
            "mode": "block_sync", "height": "500", "start_height": "100",
            "target_height": "1000", "blocks_per_second": 25.0, "bytes_per_second": 1e6,
            "remaining_time": "20000000000", "peers": [{}, {}],
            "limiting_stage": "execution", "stalled_reason": "disk\u{1b}[2J full",
            "silent_reason": "not signed",
        }));
        assert_eq!(
            line.format(),
            "syncing blocks 500/1000 50.00% 25.0 blocks/s 1.0 MB/s ETA 20s 2 peers, limited by execution, stalled: disk[2J full, the validator stays silent: not signed"
        );
    }

    #[test]
    fn a_status_of_cometbft_is_shown() {
        let status = json!({"sync_info": {"latest_block_height": "7", "catching_up": false}});
        let line = from_status(&status, Some(&json!({"n_peers": "3"})));
        assert_eq!(line.format(), "consensus 7, 0.0 blocks/s 3 peers");
        let status = json!({"sync_info": {"latest_block_height": "7", "catching_up": true}});
        assert_eq!(
            from_status(&status, None).format(),
            "syncing blocks 7/? 0.0 blocks/s 0.0 MB/s ETA unknown 0 peers"
        );
    }

    #[test]
    fn the_round_is_told_in_words() {
        let place = Place::of(&json!({"height/round/step": "12/1/3"})).unwrap();
        for height in [9, 12] {
            let mut line = ProgressLine {
                mode: "consensus".into(),
                height,
                ..ProgressLine::default()
            };
            place.show_in(&mut line);
            assert_eq!(
                line.format(),
                "consensus 11, deciding 12 at round 1, propose, 0.0 blocks/s 0 peers"
            );
        }
        let mut first = ProgressLine::default();
        place.show_in(&mut first);
        assert_eq!(first.height, 0, "the chain begins at 12");
        for bent in ["12/1/9", "12/1", "12", "x/1/3", "-1/0/1"] {
            let answer = json!({"height/round/step": bent});
            assert!(Place::of(&answer).is_none(), "{bent}");
        }
        assert!(Place::of(&json!({"height/round/step": null})).is_none());
        assert!(Place::of(&Value::Null).is_none());
    }

    #[test]
    fn the_server_is_that_of_the_home_or_the_flag() {
        let mut config = Config::new(Path::new("/h"));
        assert_eq!(server(&config, None).unwrap(), "127.0.0.1:26657");
        config.rpc.laddr = "tcp://0.0.0.0:1".into();
        assert_eq!(server(&config, None).unwrap(), "127.0.0.1:1");
        config.rpc.laddr = "tcp://[::]:1".into();
        assert_eq!(server(&config, None).unwrap(), "[::1]:1");
        assert_eq!(server(&config, Some("http://host:2/")).unwrap(), "host:2");
        config.rpc.laddr = String::new();
        assert!(server(&config, None).is_err());
    }
}
