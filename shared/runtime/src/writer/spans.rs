//! What is told of the messages that a writer handles: a span each, from the begin of the unit
//! that handles it to its commit. Names follow OpenTelemetry's conventions for messaging.

use std::borrow::Cow;

use crate::dead_letters::Kept;
use crate::event_store::StoredEvent;
use crate::service::Service;
use crate::timers::StoredTimer;
use crate::trace::SpanKind;
use crate::unit::{Cause, Unit};

/// Begins to tell of a command; the cause that its events are to name.
pub(super) fn command<'c, S: Service>(unit: &mut Unit<'_, S>, cause: &'c Cause) -> Cow<'c, Cause> {
    let name = || format!("{} command", S::NAME).into();
    let span = unit.begin_span(SpanKind::Internal, &cause.traceparent, name);
    span.describe(|| {
        [
            ("waybill.service", S::NAME.into()),
            ("waybill.command.id", cause.causation.clone().into()),
        ]
    });
    below(cause, span.traceparent())
}

/// Begins to tell of an event or a timer; the cause that its events are to name.
pub(super) fn kept<'c, S: Service>(
    unit: &mut Unit<'_, S>,
    kept: &Kept,
    cause: &'c Cause,
) -> Cow<'c, Cause> {
    let traceparent = match kept {
        Kept::Event(stored) => event(unit, stored, cause),
        Kept::Timer(stored) => timer(unit, stored, cause),
    };
    below(cause, traceparent)
}

fn event<S: Service>(unit: &mut Unit<'_, S>, event: &StoredEvent, cause: &Cause) -> Option<String> {
    let envelope = &event.envelope;
    let name = || format!("{} handle {}", S::NAME, envelope.kind).into();
    let span = unit.begin_span(SpanKind::Consumer, &cause.traceparent, name);
    span.describe(|| {
        [
            ("messaging.system", "waybill".into()),
            ("messaging.operation.name", "handle".into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.destination.name", "event_store".into()),
            ("messaging.message.id", envelope.id.to_string().into()),
            ("waybill.service", S::NAME.into()),
            ("waybill.event.type", envelope.kind.clone().into()),
            ("waybill.event.id", envelope.id.to_string().into()),
            ("waybill.correlation.id", envelope.correlation.clone().into()),
            ("waybill.stream", envelope.stream.clone().into()),
            ("waybill.position", event.position.0.into()),
        ]
    });
    span.traceparent()
}

fn timer<S: Service>(unit: &mut Unit<'_, S>, timer: &StoredTimer, cause: &Cause) -> Option<String> {
    let name = || format!("{} timer", S::NAME).into();
    let span = unit.begin_span(SpanKind::Internal, &cause.traceparent, name);
    span.describe(|| {
        [
            ("waybill.service", S::NAME.into()),
            ("waybill.timer.key", timer.key.clone().into()),
            ("waybill.event.id", timer.event_id.clone().into()),
            ("waybill.correlation.id", timer.correlation.clone().into()),
        ]
    });
    span.traceparent()
}

/// What follows is below the span, where there is one; otherwise below what the message is below.
fn below(cause: &Cause, traceparent: Option<String>) -> Cow<'_, Cause> {
    match traceparent {
        None => Cow::Borrowed(cause),
        Some(traceparent) => Cow::Owned(Cause { traceparent, ..cause.clone() }),
    }
}
