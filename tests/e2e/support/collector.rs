//! A collector of traces: takes what OpenTelemetry's exporters send, and keeps it to be looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Verdict;
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A span that was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty if it is a root.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: span::SpanKind,
    /// Whether it is marked as an error, and why.
    pub(crate) error: Option<String>,
    /// When it began and ended, in nanoseconds since 1970-01-01 UTC.
    pub(crate) times: (u64, u64),
    pub(crate) attributes: BTreeMap<String, String>,
    /// What is said of the process that told it.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Told {
    /// The value of an attribute; empty if it has none of the name.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// What was sent, each time with its headers.
type Taken = Arc<Mutex<(Vec<Told>, Vec<HeaderMap>)>>;

/// Takes traces until it goes out of scope.
#[derive(Debug)]
pub(crate) struct Collector {
    /// Its address, as exporters are told it.
    pub(crate) url: String,
    taken: Taken,
    serving: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let taken = Taken::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves to the end");
        });
        Self { url, taken, serving }
    }

    /// Every span told so far.
    pub(crate) fn spans(&self) -> Vec<Told> {
        self.taken.lock().expect("no thread panics with it").0.clone()
    }

    /// The headers of every request so far.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.taken.lock().expect("no thread panics with it").1.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).expect("what exporters send");
    let mut taken = taken.lock().expect("no thread panics with it");
    taken.1.push(headers);
    for of_process in request.resource_spans {
        let resource = of_process.resource.map(|resource| resource.attributes);
        let resource = named(resource.unwrap_or_default());
        let spans = of_process.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        taken.0.extend(spans.map(|span| told(span, resource.clone())));
    }
    StatusCode::OK
}

fn told(span: Span, resource: BTreeMap<String, String>) -> Told {
    let kind = span.kind();
    let failed = span.status.filter(|status| status.code() == Verdict::Error);
    Told {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        kind,
        error: failed.map(|status| status.message),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: named(span.attributes),
        resource,
    }
}

fn named(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let before = all.insert(key.clone(), text(value.as_ref()));
        assert_eq!(before, None, "{key} is said once");
    }
    all
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
