//! Calls over HTTP.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    RpcConfig,
    arguments::{Arguments, form_value},
    budget::{Admission, Budget, Share},
    context::Backend,
    go_json::Complaint,
    jsonrpc::{self, ErrorKind, Requests, URI_ID},
    routes::{self, ROUTES, Route},
};

/// What all connections share.
pub(crate) struct Server {
    backend: Arc<Backend>,
    workers: Semaphore,
    budget: Budget,
    max_body_bytes: usize,
    max_batch: usize,
    read_timeout: Duration,
}

/// Everything that the server answers, cross-origin rules included.
pub(crate) fn router(backend: Arc<Backend>, config: &RpcConfig) -> Router {
    let server = Arc::new(Server {
        backend,
        workers: Semaphore::new(config.workers.max(1)),
        budget: Budget::new(config),
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

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let reading = axum::body::to_bytes(body, server.max_body_bytes);
    let body = match tokio::time::timeout(server.read_timeout, reading).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refused("http: request body too large"),
        Err(_) => return refused("i/o timeout"),
    };
    let path = head.uri.path();
    if path == "/" {
        if body.is_empty() {
            return endpoints(&head.headers);
        }
        return server.json_rpc(&body).await;
    }
    let Some(route) = path.strip_prefix('/').and_then(routes::find) else {
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
    server
        .uri(route, head.uri.query().unwrap_or_default(), &form)
        .await
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
    async fn uri(self: &Arc<Self>, route: &'static Route, query: &str, form: &str) -> Response {
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
                let mut share = self.budget.share(false);
                match self.call_within(&mut share, route, &arguments).await {
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

    async fn json_rpc(self: &Arc<Self>, body: &Bytes) -> Response {
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
        let mut share = self.budget.share(calls.len() > 1);
        let (mut text, mut answers) = (String::new(), 0);
        // Kept by caches when every call may be, whether it succeeds or fails.
        let mut cacheable = true;
        for request in calls.into_iter().flatten() {
            let (answer, kept) = self.one(&mut share, request).await;
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

    /// The answer to one request, and whether caches may keep it.
    async fn one(self: &Arc<Self>, share: &mut Share, request: jsonrpc::Request) -> (String, bool) {
        let id = Some(&request.id);
        let Some(route) = routes::find(&request.method) else {
            return (jsonrpc::error(id, ErrorKind::MethodNotFound, ""), false);
        };
        let arguments = match &request.params {
            None => Ok(Arguments::default()),
            Some(params) => jsonrpc::arguments(route, params),
        };
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(complaint) => {
                let data = format!("error converting json params to arguments: {complaint}");
                return (jsonrpc::error(id, ErrorKind::InvalidParams, &data), false);
            }
        };
        let cacheable = route.is_cacheable(&arguments);
        let text = match self.call_within(share, route, &arguments).await {
            Ok(result) => jsonrpc::success(&request.id, &result),
            Err(reason) => jsonrpc::error(id, ErrorKind::Internal, &reason),
        };
        (text, cacheable)
    }

    /// Calls a route, and keeps its answer once there is space for it.
    async fn call_within(
        self: &Arc<Self>,
        share: &mut Share,
        route: &'static Route,
        arguments: &Arguments,
    ) -> Result<String, String> {
        loop {
            let result = self.call(route, arguments.clone()).await?;
            let bytes = match self.budget.admit(share, result.len()) {
                Admission::Fits => return Ok(result),
                Admission::Later(bytes) => bytes,
                Admission::Beyond => {
                    let most = self.budget.batch();
                    return Err(format!("the batch's answers take more than {most} bytes"));
                }
            };
            drop(result);
            if self.budget.wait(share, bytes).await.is_err() {
                return Err("too many large answers are being sent".to_owned());
            }
        }
    }

    /// Calls a route on a thread that may block.
    async fn call(
        self: &Arc<Self>,
        route: &'static Route,
        arguments: Arguments,
    ) -> Result<String, String> {
        let _turn = self.workers.acquire().await.map_err(|e| e.to_string())?;
        let backend = Arc::clone(&self.backend);
        let work = tokio::task::spawn_blocking(move || route.call(&backend, &arguments));
        match work.await {
            Ok(answer) => answer.map_err(|error| {
                tracing::debug!(route = route.name, %error, "a call failed");
                error.to_string()
            }),
            Err(error) => {
                tracing::error!(route = route.name, %error, "a call did not end");
                Err(error.to_string())
            }
        }
    }
}

fn plain(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Response {
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
fn endpoints(headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = html_text(host);
    let mut page = String::from(
        "<html><body><br>Available endpoints:<br><br>Endpoints that require arguments:<br>",
    );
    for route in ROUTES {
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
        assert_eq!(endpoints(&headers).status(), StatusCode::OK);
    }
}
