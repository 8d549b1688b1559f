//! Evidence that a client reports. Pure.

use perihelion_types::{Evidence, Vote};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    go_json::{self, Complaint},
    vote_text::vote_text,
};

/// What was given as evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Evidence, well-formed.
    Whole(Box<Evidence>),
    /// Two votes of which one or both are missing, and what CometBFT says of it.
    Lacking(String),
}

#[derive(Deserialize)]
struct Wrapper<'a> {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Votes {
    #[serde(default)]
    vote_a: Option<Vote>,
    #[serde(default)]
    vote_b: Option<Vote>,
}

const DUPLICATE_VOTE: &str = "tendermint/DuplicateVoteEvidence";
const LIGHT_CLIENT_ATTACK: &str = "tendermint/LightClientAttackEvidence";

/// Reads evidence as JSON; `None` for null.
///
/// # Errors
/// What CometBFT says of it, but for values that do not fit their fields.
pub(crate) fn read(json: &[u8]) -> Result<Option<Reported>, Complaint> {
    go_json::check(json)?;
    let text = String::from_utf8_lossy(json);
    match go_json::kind(&text) {
        None => return Ok(None),
        Some("object") => {}
        Some(kind) => {
            return Err(format!(
                "json: cannot unmarshal {kind} into Go value of type json.interfaceWrapper"
            ));
        }
    }
    let wrapper: Wrapper<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if wrapper.kind.is_empty() {
        return Err("interface type cannot be empty".to_owned());
    }
    let Some(value) = wrapper.value else {
        return Err("interface value cannot be empty".to_owned());
    };
    if wrapper.kind == DUPLICATE_VOTE {
        let votes: Votes = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        if votes.vote_a.is_none() || votes.vote_b.is_none() {
            let (a, b) = (
                vote_text(votes.vote_a.as_ref()),
                vote_text(votes.vote_b.as_ref()),
            );
            let why = format!("one or both of the votes are empty {a}, {b}");
            return Ok(Some(Reported::Lacking(why)));
        }
    } else if wrapper.kind != LIGHT_CLIENT_ATTACK {
        return Err(format!("unknown type {:?}", wrapper.kind));
    }
    let evidence: Evidence = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(Some(Reported::Whole(Box::new(evidence))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complains_as_cometbft_does() {
        let table = [
            ("{}", "interface type cannot be empty"),
            ("{\"type\":\"x\"}", "interface value cannot be empty"),
            ("{\"type\":\"x\",\"value\":{}}", "unknown type \"x\""),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type json.interfaceWrapper",
            ),
            ("x", "invalid character 'x' looking for beginning of value"),
        ];
        for (json, complaint) in table {
            assert_eq!(read(json.as_bytes()), Err(complaint.to_owned()), "{json}");
        }
        assert_eq!(read(b"null"), Ok(None));
        let json = format!("{{\"type\":\"{DUPLICATE_VOTE}\",\"value\":{{}}}}");
        let why = "one or both of the votes are empty nil-Vote, nil-Vote";
        assert_eq!(
            read(json.as_bytes()),
            Ok(Some(Reported::Lacking(why.to_owned())))
        );
        let json = format!("{{\"type\":\"{LIGHT_CLIENT_ATTACK}\",\"value\":{{}}}}");
        assert!(read(json.as_bytes()).is_err());
    }
}
