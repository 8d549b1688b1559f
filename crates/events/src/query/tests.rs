#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn complaint(query: &str) -> String {
    Query::parse(query).unwrap_err().to_string()
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let mut attributes = Attributes::default();
    for (key, value) in pairs {
        attributes.add(*key, value.to_string());
    }
    attributes
}

/// A query, attributes, and whether it matches them.
type Case = (&'static str, &'static [(&'static str, &'static str)], bool);

fn matches(query: &str, pairs: &[(&str, &str)]) -> bool {
    Query::parse(query).unwrap().matches(&attributes(pairs))
}

/// What CometBFT v0.38.25 says of bad queries.
#[test]
fn complains_as_cometbft_does() {
    let operators = "<= operator, >= operator, < operator, > operator, = operator, \
                     CONTAINS operator or EXISTS operator";
    let table = [
        ("", "offset 0: EOF".to_owned()),
        ("   ", "offset 3: EOF".to_owned()),
        ("tx.height=", "offset 10: EOF".to_owned()),
        ("nonsense", "offset 8: EOF".to_owned()),
        ("'a'", "offset 0: got string, wanted tag".to_owned()),
        ("5 = 5", "offset 0: got number, wanted tag".to_owned()),
        ("a b", format!("offset 2: got tag, wanted {operators}")),
        (
            "a = b",
            "offset 4: got tag, wanted number, timestamp, datestamp or string".to_owned(),
        ),
        (
            "a < 'b'",
            "offset 4: got string, wanted number, timestamp or datestamp".to_owned(),
        ),
        (
            "a CONTAINS 5",
            "offset 11: got number, wanted string".to_owned(),
        ),
        ("a = 'b", "offset 4: EOF".to_owned()),
        ("a = 5 b", "offset 6: got tag, want 6".to_owned()),
        ("a = 5 !", "offset 6: got invalid token, want 6".to_owned()),
        ("a = 5 AND", "offset 9: EOF".to_owned()),
        (
            "a = 5 AND ?",
            "offset 10: invalid input ? at offset 11".to_owned(),
        ),
        ("é ü", "offset 3: got tag, wanted ".to_owned() + operators),
        ("=", "offset 0: got = operator, wanted tag".to_owned()),
        (
            "a = TIME 2013",
            "offset 4: invalid TIME value: parsing time \"2013\" as \
             \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"-\""
                .to_owned(),
        ),
        (
            "a = DATE 1899-12-31",
            "offset 4: datestamp year 1899 out of range".to_owned(),
        ),
        (
            "a = TIME 3000-01-01T00:00:00Z",
            "offset 4: timestamp year 3000 out of range".to_owned(),
        ),
        ("a = -5", "offset 4: invalid input - at offset 5".to_owned()),
    ];
    for (query, expected) in table {
        assert_eq!(complaint(query), expected, "{query}");
    }
}

#[test]
fn text_without_a_closing_quote_behind_a_condition_is_the_end() {
    assert_eq!(
        Query::parse("a = 5 'x").unwrap(),
        Query::parse("a=5").unwrap()
    );
}

#[test]
fn a_query_has_one_form() {
    let table = [
        ("tm.event='Tx'", "tm.event = 'Tx'"),
        (
            "a<1 AND b<=2.50 AND c>3 AND d>=4. AND e EXISTS",
            "a < 1 AND b <= 2.50 AND c > 3 AND d >= 4. AND e EXISTS",
        ),
        (
            " x.y_z-0 CONTAINS 'it is'\tAND t = TIME 2013-05-03T14:45:00Z AND u > DATE 2013-05-03",
            "x.y_z-0 CONTAINS 'it is' AND t = TIME 2013-05-03T14:45:00Z AND u > DATE 2013-05-03",
        ),
        ("TIME = 1 AND DATE EXISTS", "TIME = 1"),
    ];
    for (query, form) in &table[..3] {
        assert_eq!(Query::parse(query).unwrap().to_string(), *form);
    }
    // A label with a space behind it wants a moment.
    assert_eq!(
        complaint(table[3].0),
        "offset 0: invalid TIME value: parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": \
         cannot parse \"\" as \"2006\""
    );
    assert_eq!(Query::parse("TIME=1").unwrap().to_string(), "TIME = 1");
    let tx = Query::for_tx("AB");
    assert_eq!(tx.to_string(), "tm.event = 'Tx' AND tx.hash = 'AB'");
    assert_eq!(Query::parse(&tx.to_string()).unwrap(), tx);
}

/// What CometBFT's own tests of matching name, and their like.
#[test]
fn matches_as_cometbft_does() {
    let table: &[Case] = &[
        (
            "tm.events.type='NewBlock'",
            &[("tm.events.type", "NewBlock")],
            true,
        ),
        ("tx.gas > 7", &[("tx.gas", "8")], true),
        ("tx.gas > 7 AND tx.gas < 9", &[("tx.gas", "8")], true),
        ("body.weight >= 3.5", &[("body.weight", "3.5")], true),
        (
            "account.balance < 1000.0",
            &[("account.balance", "900")],
            true,
        ),
        ("apples.kg <= 4", &[("apples.kg", "4.0")], true),
        ("body.weight >= 4.5", &[("body.weight", "4.5")], true),
        (
            "oranges.kg < 4 AND watermellons.kg > 10",
            &[("oranges.kg", "3"), ("watermellons.kg", "12")],
            true,
        ),
        ("peaches.kg < 4", &[("peaches.kg", "5")], false),
        (
            "tx.date > DATE 2017-01-01",
            &[("tx.date", "2026-11-21")],
            true,
        ),
        (
            "tx.date = DATE 2017-01-01",
            &[("tx.date", "2017-01-01")],
            true,
        ),
        (
            "tx.date = DATE 2018-01-01",
            &[("tx.date", "2017-01-01")],
            false,
        ),
        (
            "tx.time >= TIME 2013-05-03T14:45:00Z",
            &[("tx.time", "2013-05-03T16:45:00+02:00")],
            true,
        ),
        (
            "tx.time = TIME 2013-05-03T14:45:00Z",
            &[("tx.time", "then")],
            false,
        ),
        (
            "abci.owner.name CONTAINS 'Igor'",
            &[("abci.owner.name", "Igor,Ivan")],
            true,
        ),
        (
            "abci.owner.name CONTAINS 'Igor'",
            &[("abci.owner.name", "Pavel,Ivan")],
            false,
        ),
        (
            "abci.owner.name = 'Igor'",
            &[("abci.owner.name", "Igor"), ("abci.owner.name", "Ivan")],
            true,
        ),
        (
            "abci.owner.name CONTAINS 'Igor' AND abci.owner.name CONTAINS 'Ivan'",
            &[("abci.owner.name", "Igor"), ("abci.owner.name", "Ivan")],
            true,
        ),
        (
            "slash EXISTS",
            &[
                ("slash.reason", "missing_signature"),
                ("slash.power", "6000"),
            ],
            true,
        ),
        ("sl EXISTS", &[("slash.reason", "missing_signature")], false),
        ("slash.reason EXISTS", &[("slash.power", "6000")], false),
        ("transfer EXISTS", &[("transfer.sender.x", "a")], false),
        (
            "transfer.sender EXISTS",
            &[("transfer.sender.x", "a")],
            true,
        ),
        ("slash = ''", &[("slash.reason", "x")], true),
        ("slash CONTAINS ''", &[("slash.reason", "x")], true),
        ("slash = 0", &[("slash.reason", "x")], false),
        ("a.n > 5", &[("a.n", "10stake")], true),
        ("a.n > 5", &[("a.n", "-10")], false),
        ("a.n < 5", &[("a.n", "-10")], false),
    ];
    for (query, pairs, expected) in table {
        assert_eq!(matches(query, pairs), *expected, "{query} {pairs:?}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in r"[ a-zA-Z0-9.'<>=_\-:]{0,60}", any in ".{0,60}") {
        for query in [text, any] {
            if let Ok(parsed) = Query::parse(&query) {
                let again = Query::parse(&parsed.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&parsed));
                let _ = parsed.matches(&attributes(&[("a", &query)]));
            }
        }
    }

    #[test]
    fn what_looks_like_a_query_is_read_without_a_panic(
        text in r"((a|b\.c|_x)( |)(=|<|<=|>|>=|CONTAINS|EXISTS)( |)('v'|5|5\.5|TIME 2013-05-03T14:45:00Z|DATE 2013-05-03|)( AND |)){0,4}"
    ) {
        if let Ok(query) = Query::parse(&text) {
            prop_assert_eq!(Query::parse(&query.to_string()), Ok(query));
        }
    }
}
