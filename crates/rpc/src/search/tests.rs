#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perihelion_events::TX_HEIGHT_KEY;

use super::*;

/// Entries as key, value, height, event; an entry's id is its height.
struct Fake {
    entries: Vec<(&'static str, &'static str, i64, u32)>,
    heights: i64,
}

impl Index for Fake {
    type Id = Height;
    const HEIGHT_KEY: &'static str = TX_HEIGHT_KEY;

    fn visit(
        &self,
        tag: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(Entry<'_, Height>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let texts: Vec<String> = (1..=self.heights).map(|it| it.to_string()).collect();
        let heights = (1..).zip(&texts);
        let heights = heights.map(|(height, text)| (TX_HEIGHT_KEY, text.as_str(), height, 0));
        let all = self.entries.iter().copied().chain(heights);
        for (key, value, height, event) in all.filter(|entry| entry.0 == tag) {
            let height = Height::new(height);
            let is_wanted = match values {
                Values::All => true,
                Values::One(wanted, heights) => {
                    let is_bound = key == TX_HEIGHT_KEY && wanted.is_empty();
                    (is_bound || *wanted == value.as_bytes()) && heights.contains(&height)
                }
            };
            let entry = Entry {
                value: value.as_bytes(),
                height,
                id: height,
                event,
            };
            if is_wanted && visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    entries: 1_000,
    time: Duration::from_secs(3_600),
};

/// Five transactions, the first three of which have events.
fn fake() -> Fake {
    Fake {
        entries: vec![
            ("transfer.sender", "ada", 1, 1),
            ("transfer.amount", "5", 1, 1),
            ("transfer.sender", "bob", 1, 2),
            ("transfer.amount", "50", 1, 2),
            ("transfer.sender", "ada", 2, 1),
            ("transfer.amount", "7.5", 2, 1),
            ("transfer.sender", "ada", 3, 1),
            ("transfer.amount", "50stake", 3, 1),
            ("transfer.time", "2026-11-21T00:00:00Z", 3, 1),
        ],
        heights: 5,
    }
}

fn search(text: &str) -> Result<Vec<i64>, SearchError> {
    let query = Query::parse(text).unwrap();
    let plan = Plan::of(&query, TX_HEIGHT_KEY);
    let found = run(&fake(), &plan, &mut Budget::new(LIMITS))?;
    let heights: BTreeSet<i64> = found.into_iter().map(|(height, _)| height.get()).collect();
    Ok(heights.into_iter().collect())
}

#[test]
fn queries_mean_what_they_mean_to_cometbft() {
    let table: &[(&str, &[i64])] = &[
        ("transfer.sender = 'ada'", &[1, 2, 3]),
        ("transfer.sender = 'a'", &[]),
        ("transfer.sender CONTAINS 'd'", &[1, 2, 3]),
        ("transfer.sender EXISTS", &[1, 2, 3]),
        ("transfer EXISTS", &[]),
        // One event must meet all.
        ("transfer.sender = 'ada' AND transfer.amount = 50", &[]),
        ("transfer.sender = 'bob' AND transfer.amount = 50", &[1]),
        ("transfer.sender = 'ada' AND transfer.sender = 'bob'", &[]),
        // Equality is that of texts.
        ("transfer.amount = '50'", &[1]),
        ("transfer.amount = 50.0", &[]),
        ("transfer.amount = 7.5", &[2]),
        // Ranges are of numbers, and what is none is not in any.
        ("transfer.amount > 5", &[1, 2]),
        ("transfer.amount >= 5 AND transfer.amount < 7.5", &[1]),
        ("transfer.amount > 5 AND transfer.amount <= 7.5", &[2]),
        // The last bound counts, and that one of them was inclusive.
        ("transfer.amount >= 50 AND transfer.amount > 7.5", &[1, 2]),
        ("transfer.amount > 7.5 AND transfer.amount > 50", &[]),
        // Moments are in no range, and equal as texts.
        ("transfer.time > TIME 2020-01-01T00:00:00Z", &[]),
        ("transfer.time = TIME 2026-11-21T00:00:00Z", &[3]),
        // Heights.
        ("tx.height = 3", &[3]),
        ("tx.height = '3'", &[3]),
        ("tx.height = 3.0", &[]),
        ("tx.height = 0", &[]),
        ("tx.height = 9", &[]),
        ("tx.height = 'x'", &[]),
        ("tx.height = 3 AND tx.height = 4", &[3]),
        ("tx.height > 3", &[4, 5]),
        ("tx.height >= 3.5 AND tx.height < 5", &[4]),
        ("tx.height > TIME 2020-01-01T00:00:00Z", &[]),
        ("tx.height > 1 AND tx.height = 4", &[2, 3, 4, 5]),
        ("tx.height EXISTS", &[1, 2, 3, 4, 5]),
        ("tx.height CONTAINS '4'", &[4]),
        ("tx.height > 3 AND tx.height CONTAINS '4'", &[4]),
        // Heights and events: the height only bounds.
        ("transfer.sender = 'ada' AND tx.height = 2", &[2]),
        ("transfer.sender = 'ada' AND tx.height = 2.9", &[2]),
        ("transfer.sender = 'ada' AND tx.height = 0", &[1, 2, 3]),
        ("transfer.sender = 'ada' AND tx.height = 'x'", &[1, 2, 3]),
        ("transfer.sender EXISTS AND tx.height >= 2", &[2, 3]),
        ("transfer.sender CONTAINS 'a' AND tx.height < 2", &[1]),
        ("transfer.amount > 1 AND tx.height < 2", &[1]),
        (
            "transfer.sender = 'ada' AND tx.height > 1 AND tx.height < 3",
            &[2],
        ),
        // A height is no event.
        ("transfer.sender = 'ada' AND tx.height EXISTS", &[]),
        // The key of the other index bounds too, and has no entries.
        ("transfer.sender = 'ada' AND block.height < 2", &[]),
    ];
    for (query, expected) in table {
        assert_eq!(search(query).unwrap(), *expected, "{query}");
    }
}

#[test]
fn a_walk_that_is_too_long_ends() {
    let query = Query::parse("transfer.sender EXISTS").unwrap();
    let plan = Plan::of(&query, TX_HEIGHT_KEY);
    let limits = Limits {
        entries: 4,
        ..LIMITS
    };
    let error = run(&fake(), &plan, &mut Budget::new(limits)).unwrap_err();
    assert!(matches!(error, SearchError::TooWide(4)));
    // One for the walk, one for each entry.
    let limits = Limits {
        entries: 5,
        ..LIMITS
    };
    assert!(run(&fake(), &plan, &mut Budget::new(limits)).is_ok());
}

#[test]
fn time_that_is_over_ends_a_walk() {
    let limits = Limits {
        entries: 10_000,
        time: Duration::ZERO,
    };
    let mut budget = Budget::new(limits);
    let error = budget.spend(2 * CLOCK_EVERY).unwrap_err();
    assert!(matches!(error, SearchError::TooLong(_)));
}

#[test]
fn many_conditions_are_walks_too() {
    let text = vec!["a EXISTS"; 2_000].join(" AND ");
    assert!(
        search(&format!("transfer.sender EXISTS AND {text}"))
            .unwrap()
            .is_empty()
    );
    let text = vec!["transfer.sender EXISTS"; 2_000].join(" AND ");
    assert!(matches!(search(&text), Err(SearchError::TooWide(_))));
}

#[test]
fn a_range_of_heights_needs_no_walk() {
    let found = |text: &str, from: i64, to: i64| {
        let query = Query::parse(text).unwrap();
        let plan = Plan::of(&query, Blocks::HEIGHT_KEY);
        let range = plan.only_height_range().unwrap();
        let found = exactly(range, Height::new(from)..=Height::new(to));
        (found.start().get(), found.end().get())
    };
    assert_eq!(found("block.height > 3", 1, 10), (4, 10));
    assert_eq!(found("block.height >= 3", 1, 10), (3, 10));
    assert_eq!(
        found("block.height >= 3.5 AND block.height < 7.5", 1, 10),
        (4, 7)
    );
    assert_eq!(found("block.height < 7", 1, 10), (1, 6));
    assert_eq!(found("block.height <= 7", 5, 6), (5, 6));
    assert_eq!(
        found("block.height <= 99999999999999999999999", 5, 6),
        (5, 6)
    );
    for text in [
        "block.height > 10",
        "block.height > 99999999999999999999999",
        "block.height < 1",
        "block.height > 5 AND block.height < 4",
        "block.height > 5 AND block.height < 6",
        "block.height > TIME 2020-01-01T00:00:00Z",
        "block.height < 7 AND block.height > DATE 2020-01-01",
    ] {
        let (first, last) = found(text, 1, 10);
        assert!(first > last, "{text}: {first} {last}");
    }
}
