//! The one home of what the runtime counts and times: every name, and what it means.
//!
//! Recorded through the `metrics` facade, so whoever wants none installs no recorder.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};

const EVENTS_WRITTEN: &str = "waybill_events_written_total";
const EVENTS_APPENDED: &str = "waybill_events_appended_total";
const STEP_FAILURES: &str = "waybill_step_failures_total";
const UNIT_MESSAGES: &str = "waybill_unit_messages";
const UNIT_SECONDS: &str = "waybill_unit_seconds";
const COMMIT_SECONDS: &str = "waybill_commit_seconds";

/// Says what each of them means, to a recorder that is installed already.
pub fn describe_metrics() {
    describe_counter!(EVENTS_WRITTEN, "Events committed to a service's outbox, by their type.");
    describe_counter!(EVENTS_APPENDED, "Events of a service appended to the event store.");
    describe_counter!(STEP_FAILURES, "Steps of a background loop that failed, and its deaths.");
    describe_histogram!(UNIT_MESSAGES, "Messages of one unit of work.");
    describe_histogram!(UNIT_SECONDS, "Seconds for which a unit of work held its turn.");
    describe_histogram!(
        COMMIT_SECONDS,
        "Seconds that a unit of work or an append took to write everything and commit."
    );
}

/// A service's relay exists; what it counts begins at 0 and not with the first event.
pub(crate) fn relay_begins(service: &'static str) {
    appended(service, 0);
}

/// A loop exists; what it counts begins at 0 and not with the first failure.
pub(crate) fn loop_begins(name: &str) {
    counter!(STEP_FAILURES, "loop" => name.to_owned()).increment(0);
}

/// A step of a loop failed, or the loop died.
pub(crate) fn step_failed(name: &str) {
    counter!(STEP_FAILURES, "loop" => name.to_owned()).increment(1);
}

/// Events are in the event store.
pub(crate) fn appended(service: &'static str, events: usize) {
    counter!(EVENTS_APPENDED, "service" => service).increment(events as u64);
}

/// A unit of work is committed, or had nothing to commit.
pub(crate) fn unit_ended(
    service: &'static str,
    messages: usize,
    held: Duration,
    written: &BTreeMap<&'static str, u64>,
) {
    histogram!(UNIT_MESSAGES, "service" => service)
        .record(u32::try_from(messages).unwrap_or(u32::MAX));
    histogram!(UNIT_SECONDS, "service" => service).record(held);
    for (kind, count) in written {
        counter!(EVENTS_WRITTEN, "service" => service, "type" => *kind).increment(*count);
    }
}

/// A commit was sent and answered.
pub(crate) fn committed(owner: &'static str, took: Duration) {
    histogram!(COMMIT_SECONDS, "service" => owner).record(took);
}
