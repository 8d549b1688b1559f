use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{ready::HELD_BYTES, *};

/// Blocks of 100,000 bytes, behind a gate.
#[derive(Default)]
struct Blocks {
    headers: AtomicUsize,
    loads: Mutex<Vec<Height>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    shut: Mutex<bool>,
    moved: Condvar,
}

/// There is no block here.
const NOT_THERE: Height = Height::new(100);

fn parts(height: Height) -> Arc<PartSet> {
    let mut bytes = vec![0; 100_000];
    bytes[..8].copy_from_slice(&height.get().to_le_bytes());
    Arc::new(PartSet::from_data(bytes.into()))
}

impl Blocks {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.moved.notify_all();
    }

    fn loads(&self) -> Vec<i64> {
        let loads = self.loads.lock().unwrap();
        loads.iter().map(|height| height.get()).collect()
    }
}

impl Source for Blocks {
    fn header(&self, height: Height) -> Option<PartSetHeader> {
        self.headers.fetch_add(1, Ordering::SeqCst);
        Some(parts(height).header())
    }

    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let shut = self.shut.lock().unwrap();
        drop(self.moved.wait_while(shut, |shut| *shut).unwrap());
        self.loads.lock().unwrap().push(height);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        (height != NOT_THERE).then(|| parts(height))
    }

    fn commit(&self, _: Height) -> Option<Arc<VotesView>> {
        None
    }
}

fn ready(source: &Arc<Blocks>) -> Arc<Ready> {
    let source = Arc::clone(source);
    Ready::new(source)
}

/// As a peer's task does it: a look, and where it misses something a load.
async fn wait_for(ready: &Arc<Ready>, height: Height) -> Option<Arc<PartSet>> {
    let look = Look::at(ready, None);
    if let Some(parts) = look.parts(height) {
        assert_eq!(look.missed().count(), 0);
        return Some(parts);
    }
    let missed: Vec<_> = look.missed().collect();
    assert_eq!(missed, [Wanted::Parts(height)]);
    let mut load = ready.load(missed[0]);
    while load.changed().await.is_ok() {}
    Look::at(ready, None).parts(height)
}

fn heights(range: std::ops::Range<i64>) -> impl Iterator<Item = Height> {
    range.map(Height::new)
}

#[tokio::test]
async fn laggards_at_many_heights_have_each_block_loaded_once() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    for _ in 0..20 {
        for height in heights(1..8) {
            let parts = wait_for(&ready, height).await.unwrap();
            assert_eq!(parts.header(), self::parts(height).header());
        }
    }
    assert_eq!(source.loads(), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_loaded_once_for_all_who_want_it_and_no_two_at_once() {
    let source = Arc::new(Blocks::default());
    source.shut(true);
    let ready = ready(&source);
    let ask = |height| {
        let mut load = ready.load(Wanted::Parts(Height::new(height)));
        async move { while load.changed().await.is_ok() {} }
    };
    let asked = [ask(3), ask(3), ask(4), ask(3), ask(4)];
    source.shut(false);
    for load in asked {
        load.await;
    }
    let mut loads = source.loads();
    loads.sort_unstable();
    assert_eq!(loads, [3, 4]);
    assert_eq!(source.most_at_once.load(Ordering::SeqCst), 1);
    // What is there is not loaded again, even when it is asked for.
    ask(3).await;
    assert_eq!(source.loads().len(), 2);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_loaded() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    // On one thread its task does not run before the end of this line.
    drop(ready.load(Wanted::Parts(Height::new(5))));
    assert!(wait_for(&ready, Height::new(6)).await.is_some());
    assert_eq!(source.loads(), [6]);
}

#[tokio::test]
async fn what_is_not_there_ends_the_wait() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    assert!(wait_for(&ready, NOT_THERE).await.is_none());
    let look = Look::at(&ready, None);
    assert!(look.commit(Height::new(1)).is_none());
    assert!(look.parts(Height::new(2)).is_none());
    let missed: Vec<_> = look.missed().collect();
    assert_eq!(
        missed,
        [
            Wanted::Commit(Height::new(1)),
            Wanted::Parts(Height::new(2))
        ]
    );
}

/// As many as are kept, and one more.
async fn others_are_loaded(ready: &Arc<Ready>) {
    for height in heights(1_001..1_258) {
        assert!(wait_for(ready, height).await.is_some());
    }
}

#[tokio::test]
async fn a_block_that_is_being_sent_stays_whatever_others_ask_for() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    let height = Height::new(1);
    wait_for(&ready, height).await.unwrap();
    let look = Look::at(&ready, None);
    assert!(look.parts(height).is_some());
    let held = look.into_held();
    others_are_loaded(&ready).await;
    assert!(ready.parts(height).is_none());
    let look = Look::at(&ready, held);
    assert_eq!(look.parts(height).unwrap().header(), parts(height).header());
    assert_eq!(look.missed().count(), 0);
    // One is held for a peer: the one that it collects.
    assert!(look.parts(Height::new(1_257)).is_some());
    let look = Look::at(&ready, look.into_held());
    assert!(look.parts(height).is_none());
    assert_eq!(look.missed().next(), Some(Wanted::Parts(height)));
    assert!(look.into_held().is_none());
    assert_eq!(ready.holds.available_permits(), HELD_BYTES);
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    let height = Height::new(1);
    wait_for(&ready, height).await.unwrap();
    let others = u32::try_from(HELD_BYTES - 1).unwrap();
    let others = ready.holds.try_acquire_many(others).unwrap();
    let look = Look::at(&ready, None);
    assert!(look.parts(height).is_some());
    assert!(look.into_held().is_none());
    drop(others);
    let look = Look::at(&ready, None);
    assert!(look.parts(height).is_some());
    assert!(look.into_held().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_does_not_queue_behind_blocks() {
    let source = Arc::new(Blocks::default());
    source.shut(true);
    let ready = ready(&source);
    let _blocks = [1, 2].map(|height| ready.load(Wanted::Parts(Height::new(height))));
    let mut load = ready.load(Wanted::Commit(Height::new(3)));
    let loaded = async { while load.changed().await.is_ok() {} };
    let ended = tokio::time::timeout(Duration::from_secs(60), loaded).await;
    source.shut(false);
    ended.expect("the commit is loaded");
}

#[tokio::test]
async fn headers_are_told_without_a_load() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    let header = parts(Height::new(9)).header();
    assert_eq!(Look::at(&ready, None).header(Height::new(9)), Some(header));
    assert_eq!(source.headers.load(Ordering::SeqCst), 1);
    ready.keep_decided(Height::new(9), parts(Height::new(9)));
    assert_eq!(Look::at(&ready, None).header(Height::new(9)), Some(header));
    assert_eq!(source.headers.load(Ordering::SeqCst), 1);
    assert!(source.loads().is_empty());
}

#[tokio::test]
async fn blocks_that_nobody_asks_for_are_few_and_displace_none_that_was_loaded() {
    let source = Arc::new(Blocks::default());
    let ready = ready(&source);
    assert!(wait_for(&ready, Height::new(1)).await.is_some());
    for height in heights(2..22) {
        ready.keep_decided(height, parts(height));
    }
    let at_hand: Vec<_> = heights(1..22)
        .filter(|height| ready.parts(*height).is_some())
        .map(Height::get)
        .collect();
    assert_eq!(at_hand, [1, 18, 19, 20, 21]);
}
