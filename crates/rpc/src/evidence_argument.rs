//! Evidence that a client reports. Pure.

use perihelion_types::{Evidence, Vote};
use serde::{Deserialize, Deserializer};
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
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
}

/// A value that is there, `null` too.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

#[derive(Deserialize, Default)]
struct Votes {
    #[serde(default)]
    vote_a: Option<Vote>,
    #[serde(default)]
    vote_b: Option<Vote>,
}

#[derive(Deserialize, Default)]
struct Attack<'a> {
    #[serde(borrow, default, rename = "ConflictingBlock")]
    block: Option<&'a RawValue>,
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
        let votes: Option<Votes> =
            serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        let votes = votes.unwrap_or_default();
        if votes.vote_a.is_none() || votes.vote_b.is_none() {
            let (a, b) = (
                vote_text(votes.vote_a.as_ref()),
                vote_text(votes.vote_b.as_ref()),
            );
            let why = format!("one or both of the votes are empty {a}, {b}");
            return Ok(Some(Reported::Lacking(why)));
        }
    } else if wrapper.kind == LIGHT_CLIENT_ATTACK {
        let attack: Option<Attack<'_>> =
            serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        if attack.unwrap_or_default().block.is_none() {
            let why = "conflicting block is nil".to_owned();
            return Ok(Some(Reported::Lacking(why)));
        }
    } else {
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
        let no_votes = "one or both of the votes are empty nil-Vote, nil-Vote";
        for (kind, why) in [
            (DUPLICATE_VOTE, no_votes),
            (LIGHT_CLIENT_ATTACK, "conflicting block is nil"),
        ] {
            for value in ["{}", "null"] {
                let json = format!("{{\"type\":\"{kind}\",\"value\":{value}}}");
                let lacking = Reported::Lacking(why.to_owned());
                assert_eq!(read(json.as_bytes()), Ok(Some(lacking)), "{json}");
            }
            let json = format!("{{\"type\":\"{kind}\",\"value\":5}}");
            assert!(read(json.as_bytes()).is_err());
        }
        let json = format!(
            "{{\"type\":\"{LIGHT_CLIENT_ATTACK}\",\"value\":{{\"ConflictingBlock\":{{}}}}}}"
        );
        assert!(read(json.as_bytes()).is_err());
    }
}
