//! Spans: what was done, told to whoever collects traces. One order is one trace, since whatever
//! is done about a message names the span that sent it as its parent, through the `traceparent`
//! that every event and every timer carries (<https://www.w3.org/TR/trace-context/>).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};

pub use opentelemetry::Value;
pub use opentelemetry::trace::SpanKind;

use crate::clock::{Clock, Timestamp};

/// Makes spans. Handed to whoever needs it, as the clock and the source of ids are. By default it
/// makes none, and every traceparent is passed on as it came.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Making>>);

#[derive(Debug)]
struct Making {
    tracer: BoxedTracer,
    clock: Clock,
}

/// Something that is being done. It is told when it ends; one that is dropped before was given up,
/// and is told as an error.
#[derive(Debug)]
pub struct Span(Option<Open>);

#[derive(Debug)]
struct Open {
    span: BoxedSpan,
    clock: Clock,
}

impl Tracer {
    /// Makes spans with this tracer, which also deals their ids and chooses which are told.
    #[must_use]
    pub fn new(tracer: BoxedTracer, clock: Clock) -> Self {
        Self(Some(Arc::new(Making { tracer, clock })))
    }

    /// Whether it makes spans at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span below the one that `parent` names, a W3C traceparent; at the root of a trace
    /// of its own where that is empty.
    #[must_use]
    pub fn begin(
        &self,
        kind: SpanKind,
        parent: &str,
        began: Timestamp,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let Some(making) = &self.0 else { return Span(None) };
        let context = read(parent).map_or_else(Context::new, |parent| {
            // Not what the thread happens to be at: the parent is said, always.
            Context::new().with_remote_span_context(parent)
        });
        let builder = making.tracer.span_builder(name()).with_kind(kind);
        let builder = builder.with_start_time(system_time(began));
        let span = making.tracer.build_with_context(builder, &context);
        Span(Some(Open { span, clock: making.clock.clone() }))
    }
}

impl Span {
    /// What others name as their parent to be below this span; nothing if there is no span.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span.span_context();
        let (trace, span) = (context.trace_id(), context.span_id());
        context.is_valid().then(|| format!("00-{trace}-{span}-{:02x}", context.trace_flags()))
    }

    /// Says more about it, if it is to be told.
    pub fn describe<const N: usize>(
        &mut self,
        attributes: impl FnOnce() -> [(&'static str, Value); N],
    ) {
        if let Some(open) = self.recording() {
            open.set_attributes(attributes().map(|(key, value)| KeyValue::new(key, value)));
        }
    }

    /// Notes that something came of it at this moment.
    pub(crate) fn note<const N: usize>(
        &mut self,
        what: &'static str,
        at: Timestamp,
        attributes: impl FnOnce() -> [(&'static str, Value); N],
    ) {
        if let Some(open) = self.recording() {
            let attributes = attributes().map(|(key, value)| KeyValue::new(key, value));
            open.add_event_with_timestamp(what, system_time(at), attributes.into());
        }
    }

    /// It failed.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(open) = self.recording() {
            open.set_status(Status::error(why()));
        }
    }

    /// It is done.
    pub fn end(mut self, at: Timestamp) {
        if let Some(mut open) = self.0.take() {
            open.span.end_with_timestamp(system_time(at));
        }
    }

    fn recording(&mut self) -> Option<&mut BoxedSpan> {
        self.0.as_mut().map(|open| &mut open.span).filter(|span| span.is_recording())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(Open { span, clock }) = &mut self.0 {
            span.set_status(Status::error("given up before it was done"));
            span.end_with_timestamp(system_time(clock.now()));
        }
    }
}

/// The span that a traceparent names; nothing if it names none.
fn read(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(fields.next()?, 16).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(time.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_names_its_span() {
        let context = read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
        let unsampled = read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap();
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn what_names_no_span_is_no_parent() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for text in ["", "00", "00-4bf9-00f0", zero, "00-x-y-01"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn without_a_tracer_there_are_no_spans_and_nothing_is_put_together_for_them() {
        let mut span = Tracer::default().begin(SpanKind::Internal, "", Timestamp(0), || panic!());
        span.describe::<1>(|| panic!());
        span.fail(|| panic!());
        assert_eq!(span.traceparent(), None);
        span.end(Timestamp(1));
    }
}
