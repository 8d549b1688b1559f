use perihelion_test_support::{Hex, load_lines};
use perihelion_types::{ConsensusParams, Genesis, GenesisDefaults, Time};
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Line {
    block: Hex,
}

/// Makes a signature of the last commit so long, and has the header name that commit.
fn lengthen(block: &mut Block, length: usize) {
    let commit = block.last_commit.as_mut().unwrap();
    let mut places = commit.signatures.iter_mut();
    let signed = places.find(|place| !place.signature.is_empty()).unwrap();
    signed.signature = vec![7; length].into();
    block.header.last_commit_hash = commit.hash();
}

fn encoded(block: Bytes) -> Encoded {
    Encoded {
        peer: PeerId::new([1; 20]),
        connection: ConnectionId(1),
        block,
        extended_commit: None,
        hold: None,
    }
}

fn decode_one(block: Bytes, rules: &RulesByHeight) -> Decoded {
    let [decoded] = <[_; 1]>::try_from(decode(vec![encoded(block)], rules)).unwrap();
    decoded
}

#[test]
fn a_block_is_decoded_by_the_rules_of_its_height() {
    let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
    let blocks: Vec<_> = lines[5..8]
        .iter()
        .map(|line| {
            let mut block = Block::decode(line.block.0.clone().into()).unwrap();
            lengthen(&mut block, 65);
            (block.header.height, block.encode())
        })
        .collect();
    let upgrade = blocks[1].0;
    let rules = RulesByHeight::new(vec![(upgrade, Rules::V040)]).unwrap();
    for (height, block) in blocks {
        let decoded = decode_one(block, &rules);
        assert_eq!(decoded.result.is_ok(), height >= upgrade, "{height}");
        let refused = decoded.result.err();
        assert!(refused.is_none_or(|it| it.fits_later_rules), "{height}");
    }
}

/// Only where the rules of the height are what is wrong is that said.
#[test]
fn no_later_rules_are_named_for_what_no_release_takes() {
    let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
    let block = Block::decode(lines[5].block.0.clone().into()).unwrap();
    let (mut of_another, mut too_long) = (block.clone(), block);
    let named = of_another.header.last_commit_hash;
    lengthen(&mut of_another, 65);
    of_another.header.last_commit_hash = named;
    lengthen(&mut too_long, Rules::STORED.max_signature_bytes() + 1);
    let blocks = [of_another.encode(), too_long.encode()];
    for block in blocks.into_iter().chain([Bytes::from_static(b"\xff")]) {
        let decoded = decode_one(block, &RulesByHeight::default());
        let refused = decoded.result.unwrap_err();
        assert!(!refused.fits_later_rules, "{}", refused.error);
    }
}

/// Each keeps its own result, and what it holds for as long as it is there.
#[test]
fn what_does_not_decode_costs_its_neighbours_nothing() {
    let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
    let good: Vec<Bytes> = lines.into_iter().map(|line| line.block.0.into()).collect();
    let mut held = Vec::new();
    let blocks: Vec<_> = (0..3 * good.len())
        .map(|at| {
            let block = &good[at / 3];
            let kept = Arc::new(());
            held.push(Arc::downgrade(&kept));
            Encoded {
                // Every third is cut short, the next one has a broken extended commit.
                extended_commit: (at % 3 == 1).then(|| Bytes::from_static(b"\xff")),
                hold: Some(Hold::new(kept)),
                ..encoded(block.slice(..block.len() - usize::from(at % 3 == 0)))
            }
        })
        .collect();
    let decoded = decode(blocks, &RulesByHeight::default());
    assert_eq!(decoded.len(), held.len());
    for (at, (decoded, held)) in decoded.into_iter().zip(held).enumerate() {
        assert_eq!(held.strong_count(), usize::from(at % 3 != 0), "{at}");
        let raw = decoded
            .result
            .as_ref()
            .ok()
            .map(|block| block.raw().clone());
        assert_eq!(raw, (at % 3 != 0).then(|| good[at / 3].clone()), "{at}");
        drop(decoded);
        assert_eq!(held.strong_count(), 0, "{at}");
    }
}

fn waiting(workers: usize, jobs: &[&[usize]]) -> Jobs {
    let job = |sizes: &&[usize]| -> Vec<_> {
        let blocks = sizes.iter().map(|size| encoded(vec![0; *size].into()));
        blocks.collect()
    };
    let (queue, ordinary) = bounded(QUEUE);
    jobs.iter()
        .for_each(|sizes| queue.send(job(sizes)).unwrap());
    Jobs {
        urgent: crossbeam_channel::never(),
        ordinary,
        workers: NonZero::new(workers).unwrap(),
        set_aside: None,
    }
}

/// Blocks in each job that a worker after the other takes.
fn taken(workers: usize, waiting_jobs: &[&[usize]]) -> Vec<usize> {
    let mut jobs = waiting(workers, waiting_jobs);
    let taken = std::iter::from_fn(|| match jobs.next() {
        Some(Job::Decode(blocks)) => Some(blocks.len()),
        _ => None,
    });
    taken.collect()
}

#[test]
fn a_worker_takes_its_share_of_the_blocks_that_wait() {
    let small: &[usize] = &[100];
    assert_eq!(taken(1, &[small; 40]), [16, 16, 8]);
    assert_eq!(taken(1, &[&[100; 5][..]; 5]), [20, 5]);
    assert_eq!(taken(1, &[&[100; 30][..], small]), [30, 1]);
    assert_eq!(taken(2, &[small; 2]), [1, 1]);
    assert_eq!(taken(2, &[small; 7]), [4, 2, 1]);
    assert_eq!(taken(2, &[small; 40]), [16, 12, 6, 3, 2, 1]);
    assert_eq!(taken(40, &[small; 40]), [1; 40]);
}

#[test]
fn a_worker_joins_no_long_job() {
    let large: &[usize] = &[DECODE_TOGETHER_BYTES];
    let half: &[usize] = &[DECODE_TOGETHER_BYTES / 2];
    assert_eq!(taken(1, &[large; 3]), [1, 1, 1]);
    assert_eq!(taken(1, &[half; 5]), [2, 2, 1]);
    assert_eq!(taken(1, &[half, large, half]), [1, 1, 1]);
    let longest: &[usize] = &[100 * DECODE_TOGETHER_BYTES];
    assert_eq!(taken(1, &[half, &[100], longest, half, &[100]]), [2, 1, 2]);
}

/// Peers choose how long extended commits are.
#[test]
fn extended_commits_count_as_blocks_do() {
    let mut jobs = waiting(1, &[]);
    let (queue, ordinary) = bounded(QUEUE);
    for _ in 0..4 {
        let mut block = encoded(Bytes::from_static(b"block"));
        block.extended_commit = Some(vec![0; DECODE_TOGETHER_BYTES / 2].into());
        queue.send(vec![block]).unwrap();
    }
    jobs.ordinary = ordinary;
    for _ in 0..4 {
        assert!(matches!(jobs.next(), Some(Job::Decode(blocks)) if blocks.len() == 1));
    }
}

/// What has to be certified goes before blocks that could be joined, and before one set aside.
#[test]
fn certification_comes_first() {
    let (queue, urgent) = bounded(QUEUE);
    let mut jobs = waiting(1, &[&[100], &[100], &[DECODE_TOGETHER_BYTES]]);
    jobs.urgent = urgent;
    // Any job will do.
    let certify = || queue.send(Job::Decode(Vec::new())).unwrap();
    certify();
    let blocks = jobs.ordinary.recv().unwrap();
    assert_eq!(jobs.with_waiting(blocks).len(), 1);
    let mut lengths = || match jobs.next() {
        Some(Job::Decode(blocks)) => blocks.len(),
        job => panic!("{job:?}"),
    };
    assert_eq!(lengths(), 0);
    assert_eq!(lengths(), 1);
    certify();
    assert_eq!(lengths(), 0, "before the one that was set aside");
    assert_eq!(lengths(), 1);
}

#[derive(Deserialize)]
struct ExtendedLine {
    block: Hex,
    extended_commit: Option<Hex>,
}

/// A wrong one among those that are verified together is found, and costs no other anything.
#[test]
fn each_extended_commit_of_a_job_gets_its_own_verdict() {
    let genesis = perihelion_test_support::read("chain_extensions/genesis.json");
    let defaults = GenesisDefaults {
        time: Time::ZERO,
        consensus_params: ConsensusParams::default_v038(),
    };
    let genesis = Genesis::from_json(genesis.as_bytes(), &defaults).unwrap();
    let set = Arc::new(genesis.validator_set().unwrap());
    let lines: Vec<ExtendedLine> = load_lines("chain_extensions/blocks.jsonl");
    let mut blocks = Vec::new();
    let mut expected = Vec::new();
    for line in lines {
        let Some(extended) = line.extended_commit else {
            continue;
        };
        let block = line.block.0.into();
        let fetched = FetchedBlock::decode(block, Some(extended.0.into())).unwrap();
        if fetched.block().header.validators_hash != set.hash() {
            continue;
        }
        let good = expected.len().is_multiple_of(2);
        let mut copy = fetched.clone();
        if !good {
            let mut bent = fetched.extended_commit().unwrap().clone();
            bent.extended_signatures[0].extension = Bytes::from_static(b"other");
            copy = copy.with_extended_commit(bent);
        }
        let from = PeerId::new([expected.len() as u8; 20]);
        expected.push((fetched.height(), from, good));
        let chain_id = &genesis.chain_id;
        let block = CertifiedBlock::decided_extended(Arc::new(fetched), &set, chain_id);
        let block = block.unwrap().with_extended_commit_of(Arc::new(copy));
        blocks.push(WithExtended {
            from,
            block: block.unwrap(),
            set: Arc::clone(&set),
        });
    }
    assert!(blocks.len() > 2, "there are wrong ones and right ones");
    let verdicts: Vec<_> = verify_extended(blocks, &genesis.chain_id)
        .into_iter()
        .map(|it| {
            let verified = it.result.map(|block| block.extended_commit().is_some());
            (it.height, it.from, verified == Ok(true))
        })
        .collect();
    assert_eq!(verdicts, expected);
}
