//! Counters and histograms of this process, as Prometheus reads them.

use std::sync::OnceLock;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use waybill_runtime::Clock;

/// Upper bounds of the buckets of every histogram of seconds.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Records the metrics of this process from now on; further calls change nothing.
///
/// A process that cannot be measured still does its work.
pub fn record_metrics() {
    RECORDER.get_or_init(|| {
        let installed = install();
        if let Err(error) = &installed {
            tracing::error!(%error, "metrics are not recorded");
        }
        installed.ok()
    });
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let matcher = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, SECONDS)?;
    let handle = builder.install_recorder()?;
    metrics::describe_counter!("http_requests_total", "HTTP requests by route and status");
    metrics::describe_histogram!("http_request_duration_seconds", "How long they took");
    Ok(handle)
}

/// Show the process's metrics.
#[utoipa::path(
    get, path = "/metrics", tag = "process",
    responses((status = 200, description = "Prometheus text.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn show_metrics() -> Response {
    let text = RECORDER.get().and_then(Option::as_ref).map(|recorder| {
        // Nothing else folds what histograms have gathered, and it grows until that is done.
        recorder.run_upkeep();
        recorder.render()
    });
    let version = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, version)], text.unwrap_or_default()).into_response()
}

/// Counts a request and how long it took.
pub(crate) async fn measure(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    let method = known_method(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let began = clock.now();
    let response = next.run(request).await;
    let seconds = clock.now().since(began).as_secs_f64();
    let status = response.status().as_u16().to_string();
    let labels = [("method", method.to_owned()), ("route", route), ("status", status)];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels[..2]).record(seconds);
    response
}

/// A client may invent methods, and each would be a series of its own.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
