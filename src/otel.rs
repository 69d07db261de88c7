//! Traces, sent to an OpenTelemetry collector where one is named: in `OTEL_EXPORTER_OTLP_ENDPOINT`
//! or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. Without them nothing of this exists.
//!
//! All else is as the standard's variables say: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*` and their like.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tracing::warn;
use waybill_runtime::trace::Tracer;
use waybill_runtime::{Clock, Timestamp};

use crate::cli::{Cli, Command};
use crate::services::Name;

/// How long the last spans may take to be sent when the program ends.
const FLUSH: Duration = Duration::from_secs(2);
/// How often it is said that spans cannot be sent.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Traces cannot be sent as the environment says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotTrace {
    /// A protocol that this build does not speak.
    #[error(
        "{variable} is {found:?}; traces are sent by http/protobuf only \
         (a collector takes that on port 4318)"
    )]
    Protocol {
        /// Where it is said.
        variable: &'static str,
        /// What is said.
        found: String,
    },
    /// Something else that a variable says cannot be done.
    #[error("traces cannot be sent")]
    Exporter(#[from] ExporterBuildError),
}

/// What sends traces, if anything does.
pub(crate) struct Traces {
    provider: Option<SdkTracerProvider>,
    clock: Clock,
}

impl Traces {
    /// Begins to send what is traced, if the environment says where to.
    ///
    /// To be called outside of the async runtime, which the client of the exporter must not be in.
    pub(crate) fn start(cli: &Cli) -> Result<Self, CannotTrace> {
        let clock = Clock::system();
        let provider = match served(cli) {
            Some(names) if is_wanted() => Some(provider(names, clock.clone())?),
            _ => None,
        };
        Ok(Self { provider, clock })
    }

    /// What spans are made with.
    pub(crate) fn tracer(&self) -> Tracer {
        self.provider.as_ref().map_or_else(Tracer::default, |provider| {
            let tracer = provider.tracer("waybill");
            Tracer::new(BoxedTracer::new(Box::new(tracer)), self.clock.clone())
        })
    }

    /// Sends what is left. A collector that is away delays the end by [`FLUSH`] and no more.
    pub(crate) fn stop(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
            warn!(%error, "the last traces may be lost");
        }
    }
}

/// The services that the command serves; nothing if it serves none.
fn served(cli: &Cli) -> Option<&[Name]> {
    match &cli.command {
        None => Some(&cli.serve.services),
        Some(Command::Serve(options)) => Some(&options.services),
        Some(Command::Demo(_)) => Some(&[]),
        Some(_) => None,
    }
}

/// A variable that is empty counts as one that is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_wanted() -> bool {
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let elsewhere = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    endpoints.into_iter().any(|name| variable(name).is_some()) && !disabled && !elsewhere
}

fn provider(names: &[Name], clock: Clock) -> Result<SdkTracerProvider, CannotTrace> {
    let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let said = protocols.into_iter().find_map(|name| Some((name, variable(name)?)));
    if let Some((variable, found)) = said.filter(|(_, protocol)| protocol != "http/protobuf") {
        return Err(CannotTrace::Protocol { variable, found });
    }
    // The first of its kind in the process counts; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().build()?;
    let exporter = Telling { exporter, clock, lost: Mutex::default() };
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(names))
        .build())
}

/// What the environment says of this process. Where it does not say so, its name is `waybill`, or
/// `waybill-order` if it runs one service alone, and its version that of this build.
fn resource(names: &[Name]) -> Resource {
    let told = Resource::builder().build();
    let of = |key| told.get(&Key::from_static_str(key)).map(|value| value.as_str().into_owned());
    let mut resource = Resource::builder();
    // The SDK has a name of its own for what has none.
    if of("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        resource = resource.with_service_name(match names {
            [one] => format!("waybill-{}", one.as_str()),
            _ => "waybill".to_owned(),
        });
    }
    if of("service.version").is_none() {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        resource = resource.with_attribute(version);
    }
    resource.build()
}

/// An exporter that says when spans cannot be sent, now and then, and goes on.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    clock: Clock,
    lost: Mutex<Lost>,
}

/// Spans that could not be sent since that was last said.
#[derive(Debug, Default)]
struct Lost {
    spans: usize,
    said_at: Timestamp,
}

impl Telling {
    fn lost(&self, spans: usize, error: &dyn std::error::Error) {
        let now = self.clock.now();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.spans += spans;
        if now.since(lost.said_at) >= SAID_EVERY {
            warn!(spans = lost.spans, %error, "the collector does not take traces");
            *lost = Lost { spans: 0, said_at: now };
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        if let Err(error) = self.exporter.export(batch).await {
            self.lost(spans, &error);
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
