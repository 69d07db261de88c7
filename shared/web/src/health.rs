//! Whether the process lives, and whether it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use waybill_runtime::{Health, text_enum};

/// What readiness is judged by.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    pub(crate) health: Health,
    pub(crate) stopping: CancellationToken,
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

/// Whether the process can do its work, and what each part of it says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadinessReport {
    /// The sum of the checks.
    status: HealthStatus,
    /// Every background loop.
    checks: Vec<Check>,
}

/// One background loop.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Check {
    /// Which loop, such as `order.writer`.
    name: String,
    /// Whether it works.
    ready: bool,
    /// What is wrong; empty if nothing is.
    detail: String,
}

/// Show that the process lives.
#[utoipa::path(
    get, path = "/livez", tag = "process",
    responses((status = 200, description = "It lives.", body = Liveness)),
)]
pub(crate) async fn livez() -> Json<Liveness> {
    Json(Liveness { status: HealthStatus::Alive })
}

/// Show whether the process can do its work.
#[utoipa::path(
    get, path = "/readyz", tag = "process",
    responses(
        (status = 200, description = "It can.", body = ReadinessReport),
        (status = 503, description = "It cannot, or is about to end.", body = ReadinessReport),
    ),
)]
pub(crate) async fn readyz(
    State(readiness): State<Readiness>,
) -> (StatusCode, Json<ReadinessReport>) {
    let loops = readiness.health.report();
    let status = if readiness.stopping.is_cancelled() {
        HealthStatus::Stopping
    } else if loops.iter().all(|one| one.ready) {
        HealthStatus::Ready
    } else {
        HealthStatus::NotReady
    };
    let code = match status {
        HealthStatus::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let check = |one: waybill_runtime::LoopHealth| Check {
        name: one.name,
        ready: one.ready,
        detail: one.detail,
    };
    (code, Json(ReadinessReport { status, checks: loops.into_iter().map(check).collect() }))
}
