//! Genesis documents.

use perihelion_test_support::{each, folder, read};
use perihelion_types::{ConsensusParams, Genesis, GenesisDefaults, Time};

use crate::replay::{names, read_genesis};

fn defaults() -> GenesisDefaults {
    GenesisDefaults {
        time: Time::new(1_700_000_000, 5),
        consensus_params: ConsensusParams::default_v038(),
    }
}

/// Every genesis file of the vectors.
fn files() -> Vec<String> {
    let mut files: Vec<String> = names()
        .iter()
        .map(|name| format!("{name}/genesis.json"))
        .collect();
    for entry in std::fs::read_dir(folder().join("config")).unwrap() {
        let version = entry.unwrap().file_name().into_string().unwrap();
        files.push(format!("config/{version}/genesis.json"));
    }
    files
}

#[test]
fn vector_genesis_files_are_written_as_read() {
    each("genesis files", &files(), |_, file| {
        let text = read(file);
        let genesis = read_genesis(&text);
        assert_eq!(genesis.to_json().unwrap(), text.trim_end(), "{file}");
    });
}

/// A fresh home's genesis has the default parameters of its version.
#[test]
fn vector_genesis_default_parameters() {
    let fresh: Vec<String> = files()
        .into_iter()
        .filter(|file| file.starts_with("config/"))
        .collect();
    each("fresh homes", &fresh, |_, file| {
        let params = read_genesis(&read(file)).consensus_params;
        let expected = match params.authority {
            None => ConsensusParams::default_v038(),
            Some(_) => ConsensusParams::default_v040(),
        };
        assert_eq!(params, expected, "{file}");
    });
}

fn parse(json: &str) -> Result<Genesis, perihelion_types::GenesisError> {
    Genesis::from_json(json.as_bytes(), &defaults())
}

#[test]
fn what_is_left_out_has_its_default() {
    let genesis = parse(r#"{"chain_id":"c","validators":null,"unknown":[1]}"#).unwrap();
    assert_eq!(genesis.genesis_time, Time::new(1_700_000_000, 5));
    assert_eq!(genesis.initial_height.get(), 1);
    assert_eq!(genesis.consensus_params, ConsensusParams::default_v038());
    assert!(genesis.validators.is_empty());
    assert!(genesis.app_hash.is_empty());
    assert!(genesis.app_state.is_empty());
    assert!(genesis.validator_set().unwrap().is_empty());

    let genesis = parse(r#"{"chain_id":"c","initial_height":"0","app_state":null}"#).unwrap();
    assert_eq!(genesis.initial_height.get(), 1);
    assert!(genesis.app_state.is_empty());
}

#[test]
fn app_state_is_kept_byte_for_byte_and_written_compact() {
    let genesis =
        parse("{\"chain_id\":\"c\",\"app_state\": { \"b\" : 1,\n \"a\":\"<x>\" } }").unwrap();
    assert_eq!(&genesis.app_state[..], b"{ \"b\" : 1,\n \"a\":\"<x>\" }");
    let text = perihelion_types::json::to_string(&genesis).unwrap();
    assert!(
        text.ends_with(r#""app_hash":"","app_state":{"b":1,"a":"\u003cx\u003e"}}"#),
        "{text}"
    );
}

#[test]
fn rules_of_a_genesis() {
    let key = r#"{"type":"tendermint/PubKeyEd25519","value":"xp3GsWXBJHU0qRp/vx14emowHyqCp/iWEgX0ux4gKA4="}"#;
    let long = "x".repeat(51);
    let refused = [
        "".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"chain_id":""}"#.to_owned(),
        format!(r#"{{"chain_id":"{long}"}}"#),
        r#"{"chain_id":"c","initial_height":"-1"}"#.to_owned(),
        r#"{"chain_id":"c","initial_height":1}"#.to_owned(),
        r#"{"chain_id":"c","initial_height":"+1"}"#.to_owned(),
        r#"{"chain_id":"c","initial_height":"01"}"#.to_owned(),
        r#"{"chain_id":"c","initial_height":"9223372036854775808"}"#.to_owned(),
        r#"{"chain_id":"c","genesis_time":"2024-02-29T23:59:59+01:00"}"#.to_owned(),
        r#"{"chain_id":"c","genesis_time":1}"#.to_owned(),
        r#"{"chain_id":"c","consensus_params":{}}"#.to_owned(),
        r#"{"chain_id":"c","app_hash":"0"}"#.to_owned(),
        r#"{"chain_id":"c"} x"#.to_owned(),
        format!(r#"{{"chain_id":"c","validators":[{{"pub_key":{key},"power":"0"}}]}}"#),
        format!(r#"{{"chain_id":"c","validators":[{{"pub_key":{key},"power":10}}]}}"#),
        r#"{"chain_id":"c","validators":[{"power":"10"}]}"#.to_owned(),
        format!(
            r#"{{"chain_id":"c","validators":[{{"address":"00","pub_key":{key},"power":"1"}}]}}"#
        ),
        format!(
            r#"{{"chain_id":"c","validators":[{{"address":"5071FB0ECA7D346246F419083AFBD14E8ECE4C7A","pub_key":{key},"power":"1"}}]}}"#
        ),
    ];
    for json in refused {
        assert!(parse(&json).is_err(), "{json}");
    }
    let validator = |more: &str| {
        format!(r#"{{"chain_id":"c","validators":[{{{more}"pub_key":{key},"power":"7"}}]}}"#)
    };
    for more in [
        "",
        r#""address":"","#,
        r#""address":"DA9C38A601306266149C2346710806768E1F4D8E","#,
    ] {
        let genesis = parse(&validator(more)).unwrap();
        let set = genesis.validator_set().unwrap();
        assert_eq!(set.total_voting_power(), 7);
        assert_eq!(genesis.validators[0].address, set.validators()[0].address);
    }
    let fifty = "x".repeat(50);
    assert!(parse(&format!(r#"{{"chain_id":"{fifty}"}}"#)).is_ok());
}
