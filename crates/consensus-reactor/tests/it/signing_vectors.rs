//! CometBFT's file signer, step by step.

use std::fs;

use perihelion_consensus_reactor::privval::{FilePrivval, ValidatorKey};
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{self as vectors, Hex, Verdict};
use perihelion_types::{Proposal, Vote};
use prost::Message as _;
use serde::Deserialize;

use crate::signing::{CHAIN, lease};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Hex,
    signed: Hex,
    state_file: String,
    verdict: Verdict,
}

/// Signs the request; what stands in the message then.
fn sign(signer: &mut FilePrivval, case: &Case) -> Result<Vec<u8>, String> {
    let (_executor, lease) = lease();
    // A proposal's type is 32.
    if case.request.starts_with(&[0x08, 0x20]) {
        let message = pb::Proposal::decode(&case.request[..]).unwrap();
        let mut proposal = Proposal::from_proto_unchecked(message).unwrap();
        signer
            .sign_proposal(&lease, CHAIN, &mut proposal)
            .map_err(|error| error.to_string())?;
        return Ok(pb::Proposal::from(&proposal).encode_to_vec());
    }
    let mut vote = Vote::try_from(pb::Vote::decode(&case.request[..]).unwrap()).unwrap();
    let before = vote.clone();
    let signed = signer.sign_vote(&lease, CHAIN, &mut vote);
    if let Err(error) = signed {
        assert_eq!(vote, before, "{}", case.name);
        return Err(error.to_string());
    }
    Ok(pb::Vote::from(&vote).encode_to_vec())
}

#[test]
fn vector_requests_are_signed_and_refused_as_cometbft_does() {
    let mut versions = 0;
    for entry in fs::read_dir(vectors::folder().join("config")).unwrap() {
        let version = entry.unwrap().file_name().into_string().unwrap();
        versions += 1;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, vectors::read(&format!("config/{version}/{name}"))).unwrap();
            path
        };
        let key = ValidatorKey::load(&file("priv_validator_key.json")).unwrap();
        let state = file("priv_validator_state.json");
        let open = || FilePrivval::open(key.clone(), &state).unwrap();
        let mut signer = Some(open());
        let cases: Vec<Case> = vectors::load(&format!("config/{version}/signing.json"));
        vectors::each(&version, &cases, |_, case| {
            let signed = sign(signer.as_mut().unwrap(), case);
            case.verdict.assert_agrees(&case.name, &signed);
            if let Ok(signed) = signed {
                assert_eq!(signed, case.signed[..], "{}", case.name);
            }
            let file = fs::read_to_string(&state).unwrap();
            assert_eq!(file, case.state_file, "{}", case.name);
            // A restart between any two changes nothing.
            drop(signer.take());
            signer = Some(open());
        });
    }
    assert!(versions > 0);
}
