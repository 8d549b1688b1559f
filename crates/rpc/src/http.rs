//! Calls over HTTP.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    RpcConfig,
    arguments::{Arguments, form_value},
    calls::{Caller, Calls},
    context::Backend,
    go_json::Complaint,
    jsonrpc::{self, ErrorKind, Requests, URI_ID},
    routes::{self, Route, SUBSCRIBE, UNSUBSCRIBE, UNSUBSCRIBE_ALL},
    websocket,
};

/// What all connections share.
pub(crate) struct Server {
    pub(crate) calls: Arc<Calls>,
    pub(crate) websocket: websocket::Settings,
    max_body_bytes: usize,
    max_batch: usize,
    read_timeout: Duration,
}

/// The connection that a request came on.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) caller: Caller,
    /// The connection's place among those that there may be; a WebSocket keeps it.
    pub(crate) _place: Arc<OwnedSemaphorePermit>,
    /// What is waited for when the server stops.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Everything that the server answers, cross-origin rules included.
pub(crate) fn router(backend: Arc<Backend>, config: &RpcConfig) -> Router {
    let server = Arc::new(Server {
        calls: Arc::new(Calls::new(backend, config)),
        websocket: websocket::Settings::of(config),
        max_body_bytes: config.max_body_bytes,
        max_batch: config.max_request_batch_size,
        read_timeout: config.read_timeout,
    });
    let router = Router::new().fallback(answer).with_state(server);
    match cors(config) {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// The rules for browsers; names that are no methods or headers are passed over.
fn cors(config: &RpcConfig) -> Option<CorsLayer> {
    if config.cors_allowed_origins.is_empty() {
        return None;
    }
    let origins = config.cors_allowed_origins.clone();
    let allow = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::predicate(move |origin, _| {
            let origin = origin.to_str().unwrap_or_default();
            origins.iter().any(|allowed| origin_fits(allowed, origin))
        })
    };
    let methods = config.cors_allowed_methods.iter();
    let methods: Vec<Method> = methods.filter_map(|name| name.parse().ok()).collect();
    let headers = config.cors_allowed_headers.iter();
    let headers: Vec<HeaderName> = headers.filter_map(|name| name.parse().ok()).collect();
    let cors = CorsLayer::new().allow_origin(allow).allow_methods(methods);
    Some(cors.allow_headers(headers))
}

/// Whether an origin is the allowed one, in which an asterisk stands for any text.
fn origin_fits(allowed: &str, origin: &str) -> bool {
    let (allowed, origin) = (allowed.to_ascii_lowercase(), origin.to_ascii_lowercase());
    match allowed.split_once('*') {
        None => allowed == origin,
        Some((front, back)) => {
            origin.len() >= front.len() + back.len()
                && origin.starts_with(front)
                && origin.ends_with(back)
        }
    }
}

async fn answer(
    State(server): State<Arc<Server>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/websocket" {
        return websocket::upgrade(&server, connection, request);
    }
    let (head, body) = request.into_parts();
    let reading = axum::body::to_bytes(body, server.max_body_bytes);
    let body = match tokio::time::timeout(server.read_timeout, reading).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refused("http: request body too large"),
        Err(_) => return refused("i/o timeout"),
    };
    let caller = &connection.caller;
    if path == "/" {
        if body.is_empty() {
            return endpoints(server.calls.routes(), &head.headers);
        }
        return server.json_rpc(caller, &body).await;
    }
    let name = path.strip_prefix('/').unwrap_or_default();
    if routes::find_subscription(name).is_some() {
        let text = jsonrpc::error(Some(&URI_ID), ErrorKind::MethodNotFound, "");
        return json(StatusCode::NOT_FOUND, text, false);
    }
    let Some(route) = server.calls.find(name) else {
        return plain(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "404 page not found\n".to_owned(),
        );
    };
    let form = if is_form(&head.headers) {
        &body[..]
    } else {
        &[]
    };
    let form = String::from_utf8_lossy(form);
    let query = head.uri.query().unwrap_or_default();
    server.uri(caller, route, query, &form).await
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|byte| *byte == b';').next();
        kind.is_some_and(|kind| {
            kind.trim_ascii()
                .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        })
    })
}

/// A body that could not be read.
fn refused(why: &str) -> Response {
    let data = format!("error reading request body: {why}");
    let text = jsonrpc::error(None, ErrorKind::InvalidRequest, &data);
    json(StatusCode::BAD_REQUEST, text, false)
}

impl Server {
    async fn uri(
        &self,
        caller: &Caller,
        route: &'static Route,
        query: &str,
        form: &str,
    ) -> Response {
        let read = |&(name, kind): &(&str, crate::arguments::Kind)| {
            let value = form_value(query, name).or_else(|| form_value(form, name));
            value.map_or(Ok(None), |value| kind.read_uri(&value))
        };
        let arguments: Result<Vec<_>, Complaint> = route.arguments.iter().map(read).collect();
        let error = |kind, data: &str| {
            let text = jsonrpc::error(Some(&URI_ID), kind, data);
            json(StatusCode::INTERNAL_SERVER_ERROR, text, false)
        };
        match arguments.map(Arguments) {
            Err(complaint) => {
                let data = format!("error converting http params to arguments: {complaint}");
                error(ErrorKind::InvalidParams, &data)
            }
            Ok(arguments) => {
                let cacheable = route.is_cacheable(&arguments);
                let mut share = self.calls.budget.share(false);
                let called = self
                    .calls
                    .call_within(&mut share, caller, route, &arguments);
                match called.await {
                    Ok(result) => {
                        let text = jsonrpc::success(&URI_ID, &result);
                        drop(result);
                        json(StatusCode::OK, share.finish(text), cacheable)
                    }
                    Err(reason) => error(ErrorKind::Internal, &reason),
                }
            }
        }
    }

    async fn json_rpc(&self, caller: &Caller, body: &Bytes) -> Response {
        let calls = match jsonrpc::parse(body, self.max_batch) {
            Err(complaint) => {
                let data = format!("error unmarshaling request: {complaint}");
                let text = jsonrpc::error(None, ErrorKind::Parse, &data);
                return json(StatusCode::INTERNAL_SERVER_ERROR, text, false);
            }
            Ok(Requests::TooMany) => {
                let max = self.max_batch;
                let data =
                    format!("batch request exceeds maximum ({max}) allowed number of requests");
                let text = jsonrpc::error(None, ErrorKind::InvalidRequest, &data);
                return json(StatusCode::OK, text, false);
            }
            Ok(Requests::Calls(calls)) => calls,
        };
        let mut share = self.calls.budget.share(calls.len() > 1);
        let (mut text, mut answers) = (String::new(), 0);
        // Kept by caches when every call may be, whether it succeeds or fails.
        let mut cacheable = true;
        for request in calls.into_iter().flatten() {
            let misfit = ErrorKind::InvalidParams;
            let answered = self.calls.one(&mut share, caller, &request, misfit);
            let (answer, kept) = answered.await;
            cacheable &= kept;
            if answers == 0 {
                text = answer;
            } else {
                text.insert_str(0, if answers == 1 { "[" } else { "" });
                text.push(',');
                text.push_str(&answer);
            }
            answers += 1;
        }
        match answers {
            0 => return Response::new(Body::empty()),
            1 => {}
            _ => text.push(']'),
        }
        json(StatusCode::OK, share.finish(text), cacheable)
    }
}

pub(crate) fn plain(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    headers.insert("x-server-time", HeaderValue::from(seconds));
    response
}

fn json(status: StatusCode, text: impl Into<Body>, cacheable: bool) -> Response {
    let mut response = plain(status, "application/json", text);
    if cacheable {
        let day = HeaderValue::from_static("public, max-age=86400");
        response.headers_mut().insert(header::CACHE_CONTROL, day);
    }
    response
}

/// A page with a link to every route.
fn endpoints(routes: impl Iterator<Item = &'static Route>, headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = html_text(host);
    let mut page = String::from(
        "<html><body><br>Available endpoints:<br><br>Endpoints that require arguments:<br>",
    );
    let subscriptions = [&SUBSCRIBE, &UNSUBSCRIBE, &UNSUBSCRIBE_ALL];
    for route in routes.chain(subscriptions) {
        let name = route.name;
        let arguments = route.arguments.iter().map(|(name, _)| format!("{name}=_"));
        let arguments = arguments.collect::<Vec<_>>().join("&");
        let link = format!("//{host}/{name}?{arguments}");
        page += &format!("<a href=\"{link}\">{link}</a></br>");
    }
    page += "</body></html>";
    plain(StatusCode::OK, "text/html", page)
}

/// The host is the client's text: it must not become a part of the page.
fn html_text(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '<' | '>' | '"' | '\'' | '&'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_any_text() {
        assert!(origin_fits("https://a.com", "https://A.com"));
        assert!(!origin_fits("https://a.com", "https://a.com.evil.org"));
        assert!(origin_fits("https://*.a.com", "https://x.a.com"));
        assert!(!origin_fits("https://*.a.com", "https://a.com"));
        assert!(!origin_fits("ab*ba", "aba"));
    }

    #[test]
    fn a_host_does_not_become_html() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("\"><script>"));
        assert_eq!(html_text("\"><script>'&"), "script");
        let page = endpoints(routes::ROUTES.iter(), &headers);
        assert_eq!(page.status(), StatusCode::OK);
    }
}
