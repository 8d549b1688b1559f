//! Shows progress: a live line on a terminal, a log line each ten seconds elsewhere. That nothing
//! moves is a warning where the reason is new.

use std::{
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::Duration,
};

use perihelion_consensus_reactor::{
    Standing,
    peer::{View, VotesView},
};
use perihelion_schedule::{Limit, Mode, Progress, StallReason, TargetSource};
use perihelion_types::{Height, Round};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::ProgressDisplay,
    progress::{LiveLine, ProgressLine, format_round},
};

/// Between two log lines.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Between two log lines of a node in consensus, while nothing is new.
const QUIET_INTERVAL: Duration = Duration::from_secs(60);

/// Between two states of the live line.
const LIVE_INTERVAL: Duration = Duration::from_millis(250);

/// What is shown.
pub(super) struct Shown {
    pub(super) progress: watch::Receiver<Progress>,
    /// The round; `None` while not in consensus.
    pub(super) view: watch::Receiver<Option<Arc<View>>>,
}

/// What there is to show at one moment.
struct Look {
    mode: Mode,
    height: Height,
    line: ProgressLine,
    stall: Option<Stall>,
}

impl Shown {
    fn look(&self) -> Look {
        let view = self.view.borrow().clone();
        let mut progress = self.progress.borrow().clone();
        if let Some(view) = &view {
            progress = progress.with_decided(view.state().last_block_height);
        }
        let mut line = line(&progress);
        let mut stall = progress
            .stalled
            .as_ref()
            .map(|reason| Stall::Sync(discriminant(reason)));
        if let Some(view) = &view {
            line.round = round(view);
            line.silent = view.stay().silence.as_deref().map(str::to_owned);
            if stall.is_none()
                && let Some(standing) = Standing::of(view, std::time::Instant::now())
            {
                line.stalled = Some(standing.to_string());
                stall = Some(Stall::Consensus(standing.height));
            }
        }
        Look {
            mode: progress.mode,
            height: progress.height,
            line,
            stall,
        }
    }
}

/// Shows progress until `stop`: on a terminal as a live line, elsewhere in the log.
pub(super) async fn show(
    shown: Shown,
    display: ProgressDisplay,
    live: Option<LiveLine>,
    stop: CancellationToken,
) {
    if let Some(live) = live {
        let warning = warn_of_stalls(&shown, stop.clone());
        let showing = each(LIVE_INTERVAL, || live.show(&shown.look().line), stop);
        tokio::join!(warning, showing);
        live.finish();
        return;
    }
    match display {
        ProgressDisplay::None => warn_of_stalls(&shown, stop).await,
        ProgressDisplay::Auto | ProgressDisplay::Log => {
            let say = |line: &ProgressLine, is_news| {
                if is_news {
                    warn!("{}", line.format());
                } else {
                    info!("{}", line.format());
                }
            };
            log(shown, say, stop).await;
        }
    }
}

/// Warns when nothing moves, where the log has no lines that say so.
async fn warn_of_stalls(shown: &Shown, stop: CancellationToken) {
    let mut stalls = Stalls::default();
    let look = move || {
        let Look { line, stall, .. } = shown.look();
        if stalls.is_news(stall)
            && let Some(reason) = line.stalled
        {
            warn!(%reason, "no progress");
        }
    };
    each(INTERVAL, look, stop).await;
}

/// Why nothing moves, but for figures that go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// Blocks are not fetched, verified or applied.
    Sync(Discriminant<StallReason>),
    /// Consensus does not decide this height.
    Consensus(Height),
}

/// Why nothing moved when it was looked at last.
#[derive(Default)]
struct Stalls(Option<Stall>);

impl Stalls {
    /// Whether nothing moves for another reason than before: not if it only has gone on.
    fn is_news(&mut self, stall: Option<Stall>) -> bool {
        let before = std::mem::replace(&mut self.0, stall);
        self.0.is_some() && self.0 != before
    }
}

/// Says a line each [`INTERVAL`], and whether it tells for the first time why nothing moves. In
/// consensus only what is new is said, and each [`QUIET_INTERVAL`] how it is.
async fn log(shown: Shown, mut say: impl FnMut(&ProgressLine, bool), stop: CancellationToken) {
    let mut last: Option<Said> = None;
    let (mut height, mut stalls) = (Height::ZERO, Stalls::default());
    let show = move || {
        let look = shown.look();
        let now = Said {
            at: Instant::now(),
            mode: look.mode,
            moves: look.height > height,
        };
        height = look.height;
        let is_news = stalls.is_news(look.stall);
        let repeats = matches!(look.stall, Some(Stall::Sync(_)));
        let is_said = last.as_ref().is_some_and(|last| now.adds_nothing_to(last));
        if is_news || repeats || !is_said {
            say(&look.line, is_news);
            last = Some(now);
        }
    };
    each(INTERVAL, show, stop).await;
}

/// What a log line has said.
struct Said {
    at: Instant,
    mode: Mode,
    /// Whether there were new blocks since the look before.
    moves: bool,
}

impl Said {
    fn adds_nothing_to(&self, last: &Self) -> bool {
        let decides = |said: &Self| said.mode == Mode::Consensus;
        // Blocks are no news where one comes after another; that none comes is.
        let same = decides(self) && decides(last) && self.moves == last.moves;
        // Looks come a little early or late.
        same && self.at + INTERVAL / 2 < last.at + QUIET_INTERVAL
    }
}

/// Calls `show` each `pause`.
async fn each(pause: Duration, mut show: impl FnMut(), stop: CancellationToken) {
    let mut ticks = interval(pause);
    // After the machine slept, one look is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        show();
    }
}

/// Where the round is; beyond the first one, also how many have voted.
fn round(view: &View) -> String {
    let (height, round) = (view.height(), view.round());
    let mut text = format_round(height, round, view.round_step().step);
    if round > Round::ZERO {
        let count = |votes: Option<&Arc<VotesView>>| votes.map_or(0, |votes| votes.bits().count());
        text += &format!(
            " (of {} validators {} have prevoted, {} precommitted)",
            view.validators(),
            count(view.prevotes(round)),
            count(view.precommits(round)),
        );
    }
    text
}

/// What the line shows of `progress`.
fn line(progress: &Progress) -> ProgressLine {
    let height = |height: Height| u64::try_from(height.get()).unwrap_or_default();
    ProgressLine {
        mode: mode_name(progress.mode).to_owned(),
        height: height(progress.height),
        start_height: height(progress.start),
        target: (progress.target_source != TargetSource::Unknown).then(|| height(progress.target)),
        blocks_per_second: progress.blocks_per_second,
        bytes_per_second: progress.bytes_per_second,
        eta: progress.eta,
        peers: progress.peers.len(),
        limiting_stage: limit_name(progress.limit).to_owned(),
        stalled: progress.stalled.as_ref().map(StallReason::to_string),
        ..ProgressLine::default()
    }
}

/// The mode's name in lines and in `/sync_status`.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::WaitForPeers => "wait_for_peers",
        Mode::BlockSync => "block_sync",
        Mode::Consensus => "consensus",
        Mode::Halted => "halted",
    }
}

fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Nothing => "",
        Limit::Network => "network",
        Limit::Verification => "verification",
        Limit::Execution => "execution",
        Limit::Storage => "disk",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use perihelion_consensus::{Consensus, ConsensusConfig, LastCommit, Now, Start, Step};
    use perihelion_consensus_reactor::{STANDS_AFTER, Stay};
    use perihelion_crypto::PrivateKey;
    use perihelion_types::{GenesisValidator, Rules, State};

    use super::*;
    use crate::files::new_genesis;

    fn progress(mode: Mode, height: i64, stalled: Option<StallReason>) -> Progress {
        Progress {
            mode,
            height: Height::new(height),
            stalled,
            ..Progress::new(Height::ZERO)
        }
    }

    /// The lines that are said while progress is as `state` tells for each ten seconds in turn, with
    /// the second at which they are.
    async fn said(states: &[Progress]) -> Vec<(u64, String)> {
        let lines = told(states).await;
        lines.into_iter().map(|(at, line, _)| (at, line)).collect()
    }

    /// The same, and which of them are warnings.
    async fn told(states: &[Progress]) -> Vec<(u64, String, bool)> {
        told_beside(None, states).await
    }

    /// The same in consensus, as `view` shows it.
    async fn told_beside(view: Option<View>, states: &[Progress]) -> Vec<(u64, String, bool)> {
        let (sender, receiver) = watch::channel(states[0].clone());
        let (start, lines) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let (stop, kept) = (CancellationToken::new(), Arc::clone(&lines));
        let say = move |line: &ProgressLine, is_news| {
            let line = (start.elapsed().as_secs(), line.format(), is_news);
            kept.lock().unwrap().push(line);
        };
        let shown = Shown {
            progress: receiver,
            view: watch::channel(view.map(Arc::new)).1,
        };
        let task = tokio::spawn(log(shown, say, stop.clone()));
        // Time stands still but for sleepers, of whom the first to wake comes first.
        tokio::time::sleep(Duration::from_secs(5)).await;
        for state in states {
            sender.send_replace(state.clone());
            tokio::time::sleep(INTERVAL).await;
        }
        stop.cancel();
        task.await.unwrap();
        let lines = lines.lock().unwrap();
        lines.clone()
    }

    /// Consensus of one validator that has proposed nothing for an hour.
    fn standing() -> View {
        let instant = std::time::Instant::now();
        let pub_key = PrivateKey::ed25519_from_secret(b"validator").public_key();
        let validator = GenesisValidator {
            address: pub_key.address(),
            pub_key,
            power: 10,
            name: String::new(),
        };
        let genesis = new_genesis("chain".to_owned(), Height::new(1), vec![validator]);
        let start = Start {
            state: Arc::new(State::from_genesis(&genesis, "0").unwrap()),
            rules: Rules::V038,
            own_key: None,
            last_commit: LastCommit::None,
            last_header_app_hash: None,
        };
        let now = Now {
            instant,
            time: genesis.genesis_time,
        };
        let mut core = Consensus::new(now, ConsensusConfig::default(), start).unwrap();
        core.start(now);
        while core.poll_effect().is_some() {}
        core.handle_deadline(Now {
            instant: instant + Duration::from_secs(1),
            ..now
        });
        assert_eq!(core.step(), Step::Propose);
        View::of(&core, Height::ZERO, None).with_stay(Stay {
            since: instant.checked_sub(Duration::from_secs(3_600)),
            patience: STANDS_AFTER,
            silence: Some("not signed: for this test".into()),
            own_address: None,
        })
    }

    fn seconds(lines: &[(u64, String)]) -> Vec<u64> {
        lines.iter().map(|(second, _)| *second).collect()
    }

    /// As `status` shows it, which has the same from `/sync_status`.
    #[test]
    fn a_target_that_nobody_claims_is_none() {
        let mut alone = progress(Mode::BlockSync, 1277, None);
        alone.target = Height::new(1277);
        assert!(line(&alone).format().contains("1277/?"));
        alone.target_source = TargetSource::OnePeer;
        assert!(line(&alone).format().contains("1277/1277"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_peers_each_ten_seconds_with_the_reason() {
        let none = progress(
            Mode::WaitForPeers,
            0,
            Some(StallReason::NoPeers { failure: None }),
        );
        let lines = said(&vec![none; 6]).await;
        assert_eq!(seconds(&lines), [10, 20, 30, 40, 50, 60]);
        for (_, line) in lines {
            assert!(line.ends_with("stalled: no peers"), "{line}");
        }
    }

    /// A reason is told once as a warning, however its numbers go on, and again when it comes back.
    #[tokio::test(start_paused = true)]
    async fn a_new_reason_is_a_warning() {
        let busy = |seconds| {
            Some(StallReason::Application {
                height: Height::new(8),
                call: "FinalizeBlock".to_owned(),
                seconds,
            })
        };
        let none = || Some(StallReason::NoPeers { failure: None });
        let stalls = [busy(12), busy(22), None, busy(5), none(), none()];
        let states = stalls.map(|stalled| progress(Mode::BlockSync, 7, stalled));
        let warnings: Vec<bool> = told(&states).await.into_iter().map(|line| line.2).collect();
        assert_eq!(warnings, [true, false, false, true, true, false]);
    }

    /// Height and round are of one moment, though the rest is told of a block a little later.
    #[test]
    fn the_height_is_the_one_below_what_is_decided() {
        for stale in [0, 4] {
            let shown = Shown {
                progress: watch::channel(progress(Mode::Consensus, stale, None)).1,
                view: watch::channel(Some(Arc::new(standing()))).1,
            };
            let look = shown.look();
            assert_eq!(look.height, Height::ZERO, "told {stale}");
            let line = look.line.format();
            let expected =
                "consensus 0, deciding 1 at round 0, propose, 0.0 blocks/s 0 peers, stalled";
            assert!(line.starts_with(expected), "{line}");
        }
    }

    /// Why consensus does not go on is a warning once, and then told once a minute.
    #[tokio::test(start_paused = true)]
    async fn consensus_that_stands_still_says_why() {
        let states = vec![progress(Mode::Consensus, 0, None); 15];
        let lines = told_beside(Some(standing()), &states).await;
        let at: Vec<_> = lines
            .iter()
            .map(|(at, _, is_news)| (*at, *is_news))
            .collect();
        assert_eq!(at, [(10, true), (70, false), (130, false)]);
        for (_, line, _) in lines {
            for part in [
                "stalled: height 1 round 0 waits (3600 s): no proposal of ",
                ", the validator stays silent: not signed: for this test",
            ] {
                assert!(line.contains(part), "no {part:?} in {line}");
            }
        }
    }

    /// The clock is no metronome: a look that comes a little early still ends a minute of silence.
    #[test]
    fn a_minute_of_silence_is_a_minute() {
        let at = |time| Said {
            at: time,
            mode: Mode::Consensus,
            moves: false,
        };
        let start = Instant::now();
        let last = at(start);
        let after = |millis| at(start + Duration::from_millis(millis)).adds_nothing_to(&last);
        assert!(after(50_001));
        assert!(!after(59_999));
    }

    #[tokio::test(start_paused = true)]
    async fn in_consensus_once_a_minute_and_when_blocks_stay_out() {
        let deciding = |height| progress(Mode::Consensus, height, None);
        let mut states = vec![progress(Mode::BlockSync, 7, None)];
        states.extend((8..16).map(deciding));
        states.extend(vec![deciding(15); 8]);
        let lines = said(&states).await;
        assert_eq!(seconds(&lines), [10, 20, 80, 100, 160]);
    }
}
