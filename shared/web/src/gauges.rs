//! The gauges of a process: read when somebody asks for them, from everything that runs in it.
//!
//! What could not be learnt in time is left out: a number from before would be a lie, and
//! `waybill_ready` says that something is wrong.

use std::fmt::{self, Display, Write as _};

use futures_util::future::{BoxFuture, join_all};
use waybill_runtime::{EventStore, Handle, Health, Position, Progress, Readings, Service};

use crate::limits;

type Read<T> = Box<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>;

/// What the gauges are read from.
pub(crate) struct Gauges {
    health: Health,
    event_store: Option<EventStore>,
    services: Vec<(&'static str, Read<Readings>)>,
}

impl Gauges {
    /// Only whether loops are ready, so far.
    pub(crate) fn new(health: Health) -> Self {
        Self { health, event_store: None, services: Vec::new() }
    }

    pub(crate) fn read_event_store(&mut self, event_store: EventStore) {
        self.event_store = Some(event_store);
    }

    pub(crate) fn read_service<S: Service>(&mut self, handle: Handle<S>) {
        let read = move || -> BoxFuture<'static, Readings> {
            let handle = handle.clone();
            Box::pin(async move { handle.readings(limits::SCRAPE).await })
        };
        self.services.push((S::NAME, Box::new(read)));
    }

    /// All gauges as Prometheus text. Everything is asked at once, so that this takes no longer
    /// than its slowest part may.
    pub(crate) async fn read(&self) -> String {
        let services = self.services.iter().map(|(name, read)| async { (*name, read().await) });
        let (services, head) = tokio::join!(join_all(services), self.event_store_head());
        let mut text = Text::default();
        self.readiness(&mut text);
        if let Some(head) = head {
            let help = "The newest position of the event store.";
            text.family("waybill_event_store_position", help, [(String::new(), head.0)]);
        }
        progress(&mut text, &services);
        dead_letters(&mut text, &services);
        counts(&mut text, &services);
        text.0
    }

    async fn event_store_head(&self) -> Option<Position> {
        let head = self.event_store.as_ref()?.head();
        tokio::time::timeout(limits::SCRAPE, head).await.ok()?.ok()
    }

    fn readiness(&self, text: &mut Text) {
        let loops = self.health.report().into_iter();
        let samples = loops.map(|one| (label("loop", &one.name), i32::from(one.ready)));
        let help = "Whether a background loop can do its work: 1 or 0.";
        text.family("waybill_ready", help, samples);
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|(name, _)| name).collect();
        f.debug_struct("Gauges").field("services", &services).finish_non_exhaustive()
    }
}

type Services = [(&'static str, Readings)];

fn progress(text: &mut Text, services: &Services) {
    let mut both = |part: &str, told: &str, of: fn(&Readings) -> Option<&Progress>| {
        let read = || {
            let known = services.iter().filter_map(|(name, all)| Some((*name, of(all)?)));
            known.map(|(name, progress)| (label("service", name), progress))
        };
        let help = format!("Events {told}.");
        let samples = read().map(|(labels, progress)| (labels, progress.lag));
        text.family(&format!("waybill_{part}_events"), &help, samples);
        let help = format!("Age in seconds of the oldest event {told}.");
        let samples = read().map(|(labels, progress)| (labels, progress.oldest_waiting_seconds));
        text.family(&format!("waybill_{part}_seconds"), &help, samples);
    };
    let backlog = "in the outbox that the event store does not have yet";
    both("outbox_backlog", backlog, |readings| readings.outbox.as_ref());
    let lag = "in the event store that the service has not read yet";
    both("consumer_lag", lag, |readings| readings.consumer.as_ref());
}

fn dead_letters(text: &mut Text, services: &Services) {
    let known = services.iter().filter_map(|(name, all)| Some((name, all.dead_letters.as_ref()?)));
    let samples = known.flat_map(|(name, letters)| {
        letters.iter().map(move |(status, count)| {
            let labels = format!("{},{}", label("service", name), label("status", status));
            (labels, *count)
        })
    });
    let help = "Messages that could not be handled, or that wait behind such a one.";
    text.family("waybill_dead_letters", help, samples);
}

fn counts(text: &mut Text, services: &Services) {
    let known = services.iter().filter_map(|(_, all)| all.counts.as_ref());
    for counted in known.flat_map(|counts| counts.iter()) {
        let (table, column) = (counted.table, counted.column);
        let often = waybill_runtime::limits::COUNTS_KEPT.as_secs();
        let help = format!("How many {table} there are by {column}, counted every {often} s.");
        let samples = counted.rows.iter().map(|(value, count)| (label(column, value), *count));
        text.family(&format!("waybill_{table}"), &help, samples);
    }
}

/// One label. Names and values are ours, without anything that would have to be escaped.
fn label(name: &str, value: impl Display) -> String {
    format!("{name}=\"{value}\"")
}

/// Prometheus text.
#[derive(Default)]
struct Text(String);

impl Text {
    /// One gauge with its samples, each with its labels; nothing at all where there are none.
    fn family<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
        self.0.push('\n');
    }
}
