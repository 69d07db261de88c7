//! Whether the process lives, and whether it can do its work; where it answers for a deployment,
//! whether the others can too.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use waybill_runtime::{Health, LoopHealth, text_enum};

use crate::cursor::ByName;
use crate::document::QueryProblem;
use crate::list::{Filtered, Filters, QueryFields};
use crate::problem::shortened;
use crate::site::Process;

/// The other processes of a deployment, for which this one answers.
pub trait Peers: Send + Sync {
    /// Asks each whether it can do its work: a check for each. Must end in bounded time.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// What readiness is judged by.
pub(crate) struct Readiness {
    pub(crate) health: Health,
    pub(crate) stopping: CancellationToken,
    /// Nothing where the process answers for itself only.
    pub(crate) peers: Option<Arc<dyn Peers>>,
}

text_enum! {
    /// Whether it is so.
    pub(crate) enum HealthStatus {
        /// The process lives.
        Alive = "alive",
        /// It can do its work.
        Ready = "ready",
        /// It cannot, at the moment.
        NotReady = "not_ready",
        /// It is about to end.
        Stopping = "stopping",
    }
}

crate::text_schema!(HealthStatus as "HealthStatus");

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Liveness {
    /// Always `alive`.
    status: HealthStatus,
}

text_enum! {
    /// What is to be ready.
    pub(crate) enum Scope {
        /// All that this process answers for.
        Deployment = "deployment",
        /// This process alone.
        Process = "process",
    }
}

crate::text_schema!(Scope as "ReadinessScope");

/// What is asked about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScopeQuery {
    /// `process` asks for this process alone, `deployment` for the peers that it was given too.
    #[param(required = false, value_type = Scope, default = "deployment")]
    scope: Option<Scope>,
}

impl Filters for ScopeQuery {
    /// There are no pages.
    type Place = ByName;

    fn take(query: &mut QueryFields) -> Self {
        Self { scope: query.optional("scope") }
    }
}

/// Whether the process can do its work, and what each part of it says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadinessReport {
    /// The sum of the checks.
    status: HealthStatus,
    /// Every background loop, then every peer that the process answers for.
    checks: Vec<Check>,
}

/// One background loop of this process, or one peer: a service that other processes serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// Which loop, such as `order.writer`, or the service of the peer, such as `order`.
    name: String,
    /// Whether it works; of a peer, whether at least one of its replicas does.
    ready: bool,
    /// What is wrong; empty if nothing is.
    detail: String,
}

impl Check {
    /// It works.
    pub fn ready(name: impl Into<String>) -> Self {
        Self { name: name.into(), ready: true, detail: String::new() }
    }

    /// It does not, as this sentence says.
    pub fn not_ready(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ready: false, detail: shortened(detail.into()) }
    }
}

impl From<LoopHealth> for Check {
    fn from(LoopHealth { name, ready, detail }: LoopHealth) -> Self {
        Self { name, ready, detail }
    }
}

/// Show that the process lives.
#[utoipa::path(
    get, path = "/livez", tag = "process",
    responses((status = 200, description = "It lives.", body = Liveness)),
)]
pub(crate) async fn livez() -> Json<Liveness> {
    Json(Liveness { status: HealthStatus::Alive })
}

/// Show whether the process, and all it answers for, can do its work.
#[utoipa::path(
    get, path = "/readyz", tag = "process", params(ScopeQuery),
    responses(
        (status = 200, description = "It can.", body = ReadinessReport),
        (status = 503, description = "It cannot, or is about to end.", body = ReadinessReport),
        QueryProblem,
    ),
)]
pub(crate) async fn readyz(
    State(process): State<Arc<Process>>,
    Filtered(ScopeQuery { scope }): Filtered<ScopeQuery>,
) -> (StatusCode, Json<ReadinessReport>) {
    let readiness = &process.readiness;
    let of_peers = match (scope.unwrap_or(Scope::Deployment), &readiness.peers) {
        (Scope::Deployment, Some(peers)) => peers.checks().await,
        _ => Vec::new(),
    };
    let loops = readiness.health.report();
    let checks: Vec<Check> = loops.into_iter().map(Check::from).chain(of_peers).collect();
    let status = if readiness.stopping.is_cancelled() {
        HealthStatus::Stopping
    } else if checks.iter().all(|check| check.ready) {
        HealthStatus::Ready
    } else {
        HealthStatus::NotReady
    };
    let code = match status {
        HealthStatus::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(ReadinessReport { status, checks }))
}
