//! JSON-RPC 2.0 as CometBFT speaks it: requests read, answers written. Pure.

use std::fmt;

use perihelion_types::json;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{
    arguments::Arguments,
    go_json::{self, Complaint},
    routes::Route,
};

/// What identifies a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Id {
    Int(i64),
    Text(String),
}

/// The id of the answers to calls by URI.
pub(crate) const URI_ID: Id = Id::Int(-1);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(id) => serializer.serialize_i64(*id),
            Self::Text(id) => serializer.serialize_str(id),
        }
    }
}

/// A call to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: Id,
    pub(crate) method: String,
    /// Raw JSON; `None` when there are none.
    pub(crate) params: Option<String>,
}

/// What a body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Requests {
    /// Calls in order; `None` for a notification, which is never answered.
    Calls(Vec<Option<Request>>),
    /// A batch of so many requests, which is too many.
    TooMany,
}

/// Go's name for the type that a request is read into: it is part of an error's text.
const REQUEST_TYPE: &str = r#"struct { JSONRPC string "json:\"jsonrpc\""; ID interface {} "json:\"id,omitempty\""; Method string "json:\"method\""; Params json.RawMessage "json:\"params\"" }"#;

/// Reads a body: one request, or a batch of at most `max_batch` (0: any number).
///
/// # Errors
/// What CometBFT says of it, for a parse error.
pub(crate) fn parse(body: &[u8], max_batch: usize) -> Result<Requests, Complaint> {
    go_json::check(body)?;
    let body = String::from_utf8_lossy(body);
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(&body) {
        if max_batch > 0 && items.len() > max_batch {
            return Ok(Requests::TooMany);
        }
        let calls: Result<Vec<_>, _> = items.iter().map(|item| parse_one(item.get())).collect();
        if let Ok(calls) = calls {
            return Ok(Requests::Calls(calls));
        }
    }
    parse_one(&body).map(|call| Requests::Calls(vec![call]))
}

/// Reads the first request of a text that comes over a WebSocket; `None` for a notification.
///
/// # Errors
/// What CometBFT says of it, for a parse error.
pub(crate) fn parse_first(text: &[u8]) -> Result<Option<Request>, Complaint> {
    let first = go_json::first(text)?;
    parse_one(&String::from_utf8_lossy(first))
}

fn parse_one(text: &str) -> Result<Option<Request>, Complaint> {
    match go_json::kind(text) {
        None => return Ok(None),
        Some("object") => {}
        Some(kind) => {
            return Err(format!(
                "json: cannot unmarshal {kind} into Go value of type {REQUEST_TYPE}"
            ));
        }
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    fields.text("jsonrpc")?;
    let method = fields.text("method")?;
    let Some(id) = fields.id()? else {
        return Ok(None);
    };
    Ok(Some(Request {
        id,
        method,
        params: fields.get("params").map(|raw| raw.get().to_owned()),
    }))
}

/// The fields of an object in order; of those with one name the last one counts.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Names fit in any case, as in Go.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        let mut fields = self.0.iter().rev();
        fields
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Result<String, Complaint> {
        let Some(raw) = self.get(name) else {
            return Ok(String::new());
        };
        match go_json::kind(raw.get()) {
            None => Ok(String::new()),
            Some("string") => serde_json::from_str(raw.get()).map_err(|error| error.to_string()),
            Some(kind) => Err(format!(
                "json: cannot unmarshal {kind} into Go struct field .{name} of type string"
            )),
        }
    }

    fn id(&self) -> Result<Option<Id>, Complaint> {
        let Some(raw) = self.get("id") else {
            return Ok(None);
        };
        if go_json::kind(raw.get()) == Some("number") {
            let number: f64 = raw.get().parse().unwrap_or(f64::INFINITY);
            if !number.is_finite() {
                return Err(format!(
                    "json: cannot unmarshal number {} into Go struct field .id of type float64",
                    raw.get()
                ));
            }
            #[allow(clippy::cast_possible_truncation, reason = "a fraction is cut off")]
            return Ok(Some(Id::Int(number as i64)));
        }
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let kind = match &value {
            Value::Null => return Ok(None),
            Value::String(text) => return Ok(Some(Id::Text(text.clone()))),
            Value::Bool(_) => "bool",
            Value::Array(_) => "[]interface {}",
            Value::Object(_) | Value::Number(_) => "map[string]interface {}",
        };
        let shown = GoValue(&value);
        Err(format!("json-rpc ID ({shown}) is of unknown type ({kind})"))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Reader).map(Self)
    }
}

/// A value as Go prints it.
struct GoValue<'a>(&'a Value);

impl fmt::Display for GoValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::String(value) => f.write_str(value),
            Value::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{}", GoValue(value))?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => {
                f.write_str("map[")?;
                let mut names: Vec<_> = fields.keys().collect();
                names.sort();
                for (index, name) in names.into_iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{name}:{}", GoValue(&fields[name]))?;
                }
                f.write_str("]")
            }
        }
    }
}

/// The arguments of a request.
///
/// # Errors
/// What CometBFT says of them.
pub(crate) fn arguments_of(route: &Route, request: &Request) -> Result<Arguments, Complaint> {
    match &request.params {
        None => Ok(Arguments::default()),
        Some(params) => arguments(route, params),
    }
}

/// Reads a call's params: an object by name, or a list with exactly the route's arguments.
///
/// # Errors
/// What CometBFT says of them.
pub(crate) fn arguments(route: &Route, params: &str) -> Result<Arguments, Complaint> {
    match go_json::kind(params) {
        None => Ok(Arguments::default()),
        Some("object") => {
            let fields: Fields<'_> =
                serde_json::from_str(params).map_err(|error| error.to_string())?;
            let read = |&(name, kind): &(&str, crate::arguments::Kind)| {
                let mut fields = fields.0.iter().rev();
                let raw = fields.find(|(field, _)| field == name);
                raw.map_or(Ok(None), |(_, raw)| kind.read_json(raw.get().as_bytes()))
            };
            let values = route.arguments.iter().map(read).collect::<Result<_, _>>()?;
            Ok(Arguments(values))
        }
        Some("array") => {
            let items: Vec<&RawValue> =
                serde_json::from_str(params).map_err(|error| error.to_string())?;
            if items.len() != route.arguments.len() {
                return Err(wrong_count(route, &items));
            }
            let pairs = route.arguments.iter().zip(&items);
            let values = pairs.map(|((_, kind), raw)| kind.read_json(raw.get().as_bytes()));
            values.collect::<Result<_, _>>().map(Arguments)
        }
        Some(kind) => Err(format!(
            "unknown type for JSON params: json: cannot unmarshal {kind} into Go value of type \
             []json.RawMessage. Expected map or array"
        )),
    }
}

/// Bytes of wrong params that an error repeats at most: CometBFT repeats them all, each byte as a
/// decimal number, which makes the answer four times as large as the request.
const SHOWN_BYTES: usize = 1024;

fn wrong_count(route: &Route, items: &[&RawValue]) -> Complaint {
    let names: Vec<_> = route.arguments.iter().map(|(name, _)| *name).collect();
    let mut left = SHOWN_BYTES;
    let mut shown = Vec::new();
    for item in items {
        let bytes = item.get().as_bytes();
        let part = &bytes[..bytes.len().min(left)];
        let numbers: Vec<_> = part.iter().map(u8::to_string).collect();
        shown.push(format!("[{}]", numbers.join(" ")));
        left -= part.len();
        if left == 0 {
            break;
        }
    }
    format!(
        "expected {} parameters ([{}]), got {} ([{}])",
        names.len(),
        names.join(" "),
        items.len(),
        shown.join(" ")
    )
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    Parse,
    InvalidRequest,
    MethodNotFound,
    InvalidParams,
    Internal,
    /// A subscription has ended.
    Server,
}

impl ErrorKind {
    const fn code_and_message(self) -> (i32, &'static str) {
        match self {
            Self::Parse => (-32700, "Parse error. Invalid JSON"),
            Self::InvalidRequest => (-32600, "Invalid Request"),
            Self::MethodNotFound => (-32601, "Method not found"),
            Self::InvalidParams => (-32602, "Invalid params"),
            Self::Internal => (-32603, "Internal error"),
            Self::Server => (-32000, "Server error"),
        }
    }
}

/// An answer with a result, which is JSON already.
pub(crate) fn success(id: &Id, result: &str) -> String {
    let id = text_of(id);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

/// An answer with an error; `data` says more, and is left out when empty.
pub(crate) fn error(id: Option<&Id>, kind: ErrorKind, data: &str) -> String {
    let (code, message) = kind.code_and_message();
    let id = id.map_or(String::new(), |id| format!("\"id\":{},", text_of(id)));
    let data = if data.is_empty() {
        String::new()
    } else {
        format!(",\"data\":{}", text_of(data))
    };
    format!(
        "{{\"jsonrpc\":\"2.0\",{id}\"error\":{{\"code\":{code},\"message\":\"{message}\"{data}}}}}"
    )
}

pub(crate) fn text_of<T: Serialize + ?Sized>(value: &T) -> String {
    json::to_string(value).expect("integers and strings can be written")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routes;

    fn one(body: &str) -> Result<Option<Request>, Complaint> {
        match parse(body.as_bytes(), 10)? {
            Requests::Calls(mut calls) => {
                assert_eq!(calls.len(), 1);
                Ok(calls.remove(0))
            }
            Requests::TooMany => panic!("too many"),
        }
    }

    #[test]
    fn names_fit_in_any_case_and_the_last_one_counts() {
        let request = one(r#"{"ID":1,"id":2,"Method":"a","method":"b"}"#).unwrap();
        let request = request.unwrap();
        assert_eq!((request.id, request.method.as_str()), (Id::Int(2), "b"));
        assert_eq!(request.params, None);
    }

    #[test]
    fn ids_of_other_kinds_are_named_as_go_names_them() {
        let table = [
            ("true", "json-rpc ID (true) is of unknown type (bool)"),
            (
                "[1,\"a\"]",
                "json-rpc ID ([1 a]) is of unknown type ([]interface {})",
            ),
            (
                "{\"b\":null,\"a\":{}}",
                "json-rpc ID (map[a:map[] b:<nil>]) is of unknown type (map[string]interface {})",
            ),
        ];
        for (id, complaint) in table {
            let body = format!("{{\"id\":{id},\"method\":\"health\"}}");
            assert_eq!(one(&body).unwrap_err(), complaint);
        }
    }

    #[test]
    fn a_batch_is_bounded() {
        let batch = format!("[{}]", ["{\"id\":1}"; 11].join(","));
        assert_eq!(parse(batch.as_bytes(), 10), Ok(Requests::TooMany));
        assert!(
            matches!(parse(batch.as_bytes(), 0), Ok(Requests::Calls(calls)) if calls.len() == 11)
        );
        // Its items are not even looked at.
        let batch = format!("[{}]", ["{\"id\":true}"; 11].join(","));
        assert_eq!(parse(batch.as_bytes(), 10), Ok(Requests::TooMany));
    }

    #[test]
    fn an_error_does_not_repeat_large_params() {
        let params = format!("[\"{}\",1]", "x".repeat(100_000));
        let route = routes::find("health").unwrap();
        assert!(arguments(route, &params).unwrap_err().len() < 6 * SHOWN_BYTES);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, 3);
        }

        #[test]
        fn never_panics_on_what_looks_like_requests(
            text in r#"(\[|\{|"id"|"method"|"params"|:|,|1|-1e999|null|"a"|\}|\]| ){0,30}"#
        ) {
            let _ = parse(text.as_bytes(), 3);
            if go_json::check(text.as_bytes()).is_ok() {
                for route in routes::ROUTES {
                    let _ = arguments(route, &text);
                }
            }
        }

        /// Whatever the texts, an answer is valid JSON that holds them.
        #[test]
        fn answers_are_json(id in any::<String>(), data in ".{1,40}") {
            let text = error(Some(&Id::Text(id.clone())), ErrorKind::Internal, &data);
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["id"].as_str(), Some(id.as_str()));
            prop_assert_eq!(value["error"]["data"].as_str(), Some(data.as_str()));
        }
    }
}
