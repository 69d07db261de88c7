//! The metrics of this process, as Prometheus reads them: its counters and histograms, recorded
//! where things happen, and its gauges, read when somebody asks.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use waybill_runtime::{Clock, Timestamp};

use crate::site::Process;

/// Upper bounds of the buckets of every histogram of seconds.
const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds of the buckets of every histogram of messages.
const MESSAGES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0];

const REQUESTS: &str = "http_requests_total";
const DURATION: &str = "http_request_duration_seconds";

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
    let (seconds, messages) = ("_seconds".to_owned(), "_messages".to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(seconds), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix(messages), MESSAGES)?;
    let handle = builder.install_recorder()?;
    metrics::describe_counter!(REQUESTS, "HTTP requests answered, by route and status.");
    metrics::describe_histogram!(DURATION, "Seconds from a request to the head of its answer.");
    waybill_runtime::describe_metrics();
    Ok(handle)
}

/// Show the process's metrics.
#[utoipa::path(
    get, path = "/metrics", tag = "process",
    responses((status = 200, description = "Prometheus text.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn show_metrics(State(process): State<Arc<Process>>) -> Response {
    let gauges = process.gauges.read().await;
    let recorded = RECORDER.get().and_then(Option::as_ref).map(|recorder| {
        // Nothing else folds what histograms have gathered, and it grows until that is done.
        recorder.run_upkeep();
        recorder.render()
    });
    let version = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, version)], recorded.unwrap_or_default() + &gauges).into_response()
}

/// A request that is counted, and how long it takes.
pub(crate) struct Measured {
    method: &'static str,
    route: Option<MatchedPath>,
    began: Timestamp,
}

impl Measured {
    /// Begins with the request.
    pub(crate) fn begin(clock: &Clock, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { method: known_method(request.method()), route, began: clock.now() }
    }

    /// Ends with the head of its answer.
    pub(crate) fn end(self, clock: &Clock, response: &Response) {
        let Self { method, route, began } = self;
        let seconds = clock.now().since(began).as_secs_f64();
        let route = route.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
        let status = response.status().as_u16().to_string();
        let labels = [("method", method.to_owned()), ("route", route), ("status", status)];
        metrics::counter!(REQUESTS, &labels).increment(1);
        metrics::histogram!(DURATION, &labels[..2]).record(seconds);
    }
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
