//! Calling routes, over HTTP and WebSockets alike: who may work at once, and space for answers.

use std::{sync::Arc, time::Duration};

use perihelion_events::Limits;
use tokio::sync::Semaphore;

use crate::{
    RpcConfig,
    arguments::Arguments,
    budget::{Admission, Budget, Share},
    context::Backend,
    jsonrpc::{self, ErrorKind},
    routes::{self, CallError, Lane, Route, Work},
    search::SearchError,
};

/// Searches that run at once. They are the costliest calls; more would slow down the sync.
const SEARCHES: usize = 2;
/// Evidence that is handed on, and transactions that the application alone is asked about, at once.
/// They wait for one another; more would only wait there.
const ORDERS: usize = 4;

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The connection, by which subscriptions are counted.
    pub(crate) remote: Arc<str>,
}

/// What all connections share.
pub(crate) struct Calls {
    pub(crate) backend: Arc<Backend>,
    pub(crate) budget: Budget,
    pub(crate) subscription_limits: Limits,
    /// How long a transaction may take to get into a block.
    pub(crate) commit_patience: Duration,
    /// Whether the unsafe routes exist.
    unsafe_routes: bool,
    lookups: Semaphore,
    searches: Semaphore,
    orders: Semaphore,
}

/// Threads that all calls together can take.
pub(crate) fn threads(config: &RpcConfig) -> usize {
    config.workers.max(1) + SEARCHES + ORDERS
}

impl Calls {
    pub(crate) fn new(backend: Arc<Backend>, config: &RpcConfig) -> Self {
        Self {
            backend,
            budget: Budget::new(config),
            subscription_limits: Limits {
                clients: config.max_subscription_clients,
                per_client: config.max_subscriptions_per_client,
            },
            commit_patience: config.timeout_broadcast_tx_commit,
            unsafe_routes: config.unsafe_routes,
            lookups: Semaphore::new(config.workers.max(1)),
            searches: Semaphore::new(SEARCHES),
            orders: Semaphore::new(ORDERS),
        }
    }

    /// The route of a name, where it exists.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Route> {
        let is_unsafe = || self.unsafe_routes.then(|| routes::find_unsafe(name));
        routes::find(name).or_else(|| is_unsafe().flatten())
    }

    /// Every route that exists.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &'static Route> {
        let of_operators = self.unsafe_routes.then_some(routes::UNSAFE_ROUTES);
        routes::ROUTES.iter().chain(of_operators.unwrap_or(&[]))
    }

    /// The answer to one request by JSON-RPC, and whether caches may keep it.
    pub(crate) async fn one(
        self: &Arc<Self>,
        share: &mut Share,
        caller: &Caller,
        request: &jsonrpc::Request,
        misfit: ErrorKind,
    ) -> (String, bool) {
        let id = Some(&request.id);
        let Some(route) = self.find(&request.method) else {
            return (jsonrpc::error(id, ErrorKind::MethodNotFound, ""), false);
        };
        let arguments = match jsonrpc::arguments_of(route, request) {
            Ok(arguments) => arguments,
            Err(complaint) => {
                let data = format!("error converting json params to arguments: {complaint}");
                return (jsonrpc::error(id, misfit, &data), false);
            }
        };
        let cacheable = route.is_cacheable(&arguments);
        let text = match self.call_within(share, caller, route, &arguments).await {
            Ok(result) => jsonrpc::success(&request.id, &result),
            Err(reason) => jsonrpc::error(id, ErrorKind::Internal, &reason),
        };
        (text, cacheable)
    }

    /// Calls a route, and keeps its answer once there is space for it.
    pub(crate) async fn call_within(
        self: &Arc<Self>,
        share: &mut Share,
        caller: &Caller,
        route: &'static Route,
        arguments: &Arguments,
    ) -> Result<String, String> {
        loop {
            let result = self.call(caller, route, arguments).await?;
            // An order is not given twice: its answer is small.
            if !route.can_be_repeated() {
                return Ok(result);
            }
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

    async fn call(
        self: &Arc<Self>,
        caller: &Caller,
        route: &'static Route,
        arguments: &Arguments,
    ) -> Result<String, String> {
        let answer = match route.work {
            Work::Blocking(lane, call) => {
                let arguments = arguments.clone();
                self.blocking(lane, move |backend| call(backend, &arguments))
                    .await
            }
            Work::AtOnce(call) => call(&self.backend, arguments),
            Work::Check => routes::broadcast_tx_sync(self, arguments).await,
            Work::Commit => routes::broadcast_tx_commit(self, caller, arguments).await,
        };
        answer.map_err(|error| {
            if let CallError::Store(error) | CallError::Search(SearchError::Store(error)) = &error {
                self.backend.context.store.report_unreadable(error);
            }
            tracing::debug!(route = route.name, %error, "a call failed");
            error.to_string()
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Backend) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let places = match lane {
            Lane::Lookup => &self.lookups,
            Lane::Search => &self.searches,
            Lane::Order => &self.orders,
        };
        let failed = |error: String| CallError::Unfinished(error);
        let _turn = places.acquire().await.map_err(|e| failed(e.to_string()))?;
        let backend = Arc::clone(&self.backend);
        match tokio::task::spawn_blocking(move || work(&backend)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a call did not end");
                Err(failed(error.to_string()))
            }
        }
    }
}
