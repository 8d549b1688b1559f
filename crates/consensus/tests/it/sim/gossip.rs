//! What one node tells another that lacks it: a simple stand-in for the reactor.

use std::sync::Arc;

use perihelion_consensus::{BitArray, Consensus, Maj23, Message, Step, VoteSet};
use perihelion_types::{PartSet, Round, SignedMsgType};

use super::node::Node;

/// What crosses the network.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Message(Message),
    Claim(Maj23),
}

/// Most votes and parts of one kind told at once.
const AT_ONCE: usize = 4;

/// What `from` tells `to` now.
pub(crate) fn news(from: &Node, to: &Consensus) -> Vec<Payload> {
    let mut news = Vec::new();
    let Some(core) = &from.core else {
        return news;
    };
    let behind = to.height() < core.height();
    if behind {
        tell_decided(from, to, &mut news);
    } else if to.height() == core.height() {
        tell_round(core, to, &mut news);
    } else if to.height() == core.height().next() && to.step() == Step::NewHeight {
        let round = to.last_commit().map(VoteSet::round);
        let mine = round.and_then(|round| core.votes().precommits(round));
        if let (Some(mine), Some(theirs)) = (mine, to.last_commit()) {
            tell_votes(mine, Some(theirs), &mut news);
        }
    }
    news
}

fn tell_round(core: &Consensus, to: &Consensus, news: &mut Vec<Payload>) {
    if core.round() == to.round()
        && to.proposal().is_none()
        && let Some(proposal) = core.proposal()
    {
        news.push(Payload::Message(Message::Proposal(Arc::clone(proposal))));
    }
    if let Some(parts) = core.parts() {
        tell_parts(parts, to, news);
    }
    let pol = to.proposal().map(|proposal| proposal.pol_round);
    let mut rounds = vec![to.round(), core.round()];
    rounds.extend(pol.filter(|round| *round >= Round::ZERO));
    rounds.extend(core.commit_round());
    rounds.sort_unstable();
    rounds.dedup();
    for round in rounds {
        for vote_type in [SignedMsgType::Prevote, SignedMsgType::Precommit] {
            let mine = core.votes().votes(round, vote_type);
            let theirs = to.votes().votes(round, vote_type);
            if let Some(mine) = mine {
                tell_votes(mine, theirs, news);
                tell_majority(mine, theirs, news);
            }
        }
    }
}

fn tell_votes(mine: &VoteSet, theirs: Option<&VoteSet>, news: &mut Vec<Payload>) {
    let lacking = match theirs {
        Some(theirs) => mine.bits().minus(theirs.bits()),
        None => mine.bits().clone(),
    };
    let votes = lacking.iter().filter_map(|index| mine.vote(index));
    news.extend(
        votes
            .take(AT_ONCE)
            .map(|vote| Payload::Message(Message::Vote(Arc::clone(vote)))),
    );
}

/// A majority that the other does not see, and the votes for it.
fn tell_majority(mine: &VoteSet, theirs: Option<&VoteSet>, news: &mut Vec<Payload>) {
    let (Some(block_id), Some(theirs)) = (mine.maj23(), theirs) else {
        return;
    };
    if theirs.maj23().is_some() {
        return;
    }
    news.push(Payload::Claim(Maj23 {
        height: mine.height(),
        round: mine.round(),
        vote_type: mine.vote_type(),
        block_id,
    }));
    let empty = BitArray::new(0);
    let have = theirs.bits_for(&block_id).unwrap_or(empty);
    let lacking = mine.bits_for(&block_id).map(|bits| bits.minus(&have));
    for index in lacking.iter().flat_map(BitArray::iter).take(AT_ONCE) {
        if let Some(vote) = mine.vote_for(index, &block_id) {
            news.push(Payload::Message(Message::Vote(Arc::clone(vote))));
        }
    }
}

fn tell_parts(parts: &PartSet, to: &Consensus, news: &mut Vec<Payload>) {
    let Some(theirs) = to.parts() else {
        return;
    };
    if theirs.header() != parts.header() || theirs.is_complete() {
        return;
    }
    let lacking = (0..parts.header().total).filter(|index| theirs.part(*index).is_none());
    for part in lacking.filter_map(|index| parts.part(index)).take(AT_ONCE) {
        news.push(Payload::Message(Message::Part {
            height: to.height(),
            round: to.round(),
            part: Arc::new(part.clone()),
        }));
    }
}

/// The commit of a height that the other has not decided, and the parts of its block.
fn tell_decided(from: &Node, to: &Consensus, news: &mut Vec<Payload>) {
    let height = usize::try_from(to.height().get()).unwrap();
    let Some(block) = from.disk.blocks.get(height - 1) else {
        return;
    };
    let commit = match block.extended_commit() {
        Some(extended) => extended.clone(),
        None => crate::sim::without_extensions(block.commit().expect("stored with it")),
    };
    let theirs = to.votes().precommits(commit.round);
    let votes = (0..commit.extended_signatures.len()).filter(|index| {
        let has = theirs.and_then(|votes| votes.vote_for(*index, &commit.block_id));
        has.is_none()
    });
    for vote in votes
        .filter_map(|index| commit.vote(index))
        .take(2 * AT_ONCE)
    {
        news.push(Payload::Message(Message::Vote(Arc::new(vote))));
    }
    if let Some(theirs) = theirs
        && theirs.maj23().is_none()
    {
        news.push(Payload::Claim(Maj23 {
            height: to.height(),
            round: commit.round,
            vote_type: SignedMsgType::Precommit,
            block_id: commit.block_id,
        }));
    }
    tell_parts(&from.disk.parts[height - 1], to, news);
}
