//! The smallest service that uses everything the runtime offers: counters that are raised by
//! commands and by what another service says, and that ring when their timer comes due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Event, Evolve, Message, Migration, Recorded, Service,
    TimerChange, Timestamp, Version, row, tables, text_columns,
};

/// Names a counter; the id of an "order" for the runtime, so that it is a lane of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct CounterId(pub(crate) Uuid);

impl fmt::Display for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CounterId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

text_columns!(CounterId);

/// A counter was raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raised {
    pub(crate) counter: CounterId,
    pub(crate) by: i64,
    /// When it rings, if it is to ring.
    pub(crate) rings_at: Option<Timestamp>,
    /// The events it leads the other service to, for tests of failures over there.
    pub(crate) note: String,
}

/// What counters say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CounterEvent {
    Raised(Raised),
    /// The follower's word for the same.
    Copied(Raised),
    Rang(CounterId),
}

impl Event for CounterEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Raised(_) => "counter.raised",
            Self::Copied(_) => "counter.copied",
            Self::Rang(_) => "counter.rang",
        }
    }
    fn schema(&self) -> i64 {
        1
    }
    fn stream(&self) -> String {
        match self {
            Self::Raised(raised) | Self::Copied(raised) => format!("counter-{}", raised.counter),
            Self::Rang(counter) => format!("counter-{counter}"),
        }
    }
    fn order(&self) -> Option<Uuid> {
        match self {
            Self::Raised(raised) | Self::Copied(raised) => Some(raised.counter.0),
            Self::Rang(counter) => Some(counter.0),
        }
    }
    fn encode(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Raised(raised) if raised.note == "no JSON form" => {
                Err(serde::ser::Error::custom("this event has no JSON form"))
            }
            Self::Raised(raised) | Self::Copied(raised) => serde_json::to_string(raised),
            Self::Rang(counter) => serde_json::to_string(counter),
        }
    }
    fn decode(kind: &str, schema: i64, data: &str) -> Result<Self, DecodeError> {
        let malformed = |cause| DecodeError::Malformed { kind: kind.to_owned(), cause };
        match (kind, schema) {
            ("counter.raised", 1) => {
                serde_json::from_str(data).map(Self::Raised).map_err(malformed)
            }
            ("counter.copied", 1) => {
                serde_json::from_str(data).map(Self::Copied).map_err(malformed)
            }
            ("counter.rang", 1) => serde_json::from_str(data).map(Self::Rang).map_err(malformed),
            _ => Err(DecodeError::Unknown { kind: kind.to_owned(), schema }),
        }
    }
}

row! {
    /// A counter.
    pub(crate) struct Counter in counters for CounterEvent {
        /// Its name.
        id: text CounterId,
        /// What it counted to; the table refuses 13.
        total: bigint i64,
        /// How often it rang.
        rings: bigint i64,
    }
    list newest by id where [];
}

impl Evolve for Counter {
    fn changed_by(event: &CounterEvent) -> Vec<CounterId> {
        match event {
            CounterEvent::Raised(raised) | CounterEvent::Copied(raised) => vec![raised.counter],
            CounterEvent::Rang(counter) => vec![*counter],
        }
    }
    fn evolve(
        row: Option<Self>,
        key: &CounterId,
        recorded: &Recorded<'_, CounterEvent>,
    ) -> Option<Self> {
        let new = || Self { id: *key, total: 0, rings: 0, version: Version(0) };
        let mut counter = row.unwrap_or_else(new);
        match recorded.event {
            CounterEvent::Raised(raised) | CounterEvent::Copied(raised) => {
                counter.total += raised.by;
                assert!(raised.note != "panic in evolve", "evolve was told to panic");
            }
            CounterEvent::Rang(_) => counter.rings += 1,
        }
        Some(counter)
    }
}

tables! {
    /// The counters of one service.
    pub(crate) struct Counters for CounterEvent {
        /// Every counter.
        counters: Counter,
    }
}

/// Raise a counter.
#[derive(Clone, Debug)]
pub(crate) struct Raise {
    pub(crate) counter: CounterId,
    pub(crate) by: i64,
    pub(crate) rings_in: Option<Duration>,
    pub(crate) note: String,
}

/// With what a process ends that a message ends.
pub(crate) const ENDED: i32 = 86;

/// The only refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("counters only go up")]
pub(crate) struct OnlyUp;

/// Whether the copying counter does what it is told to: tests mend it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Notes on which hearing fails.
    pub(crate) fails_on: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

/// The counter that is raised by commands; hears nothing.
#[derive(Debug)]
pub(crate) struct Leader;
/// The leader's next version.
#[derive(Debug)]
pub(crate) struct NextLeader;
/// The counter that copies what the leader says.
#[derive(Debug)]
pub(crate) struct Follower;

const MIGRATION: Migration = Migration {
    version: 2001,
    name: "counters",
    sql: "create table counters (
              id      text   not null primary key,
              total   bigint not null check (total <> 13),
              rings   bigint not null,
              version bigint not null
          );",
};

/// What the leader's next version adds.
const NEXT_MIGRATION: Migration = Migration {
    version: 2002,
    name: "colours",
    sql: "alter table counters add column colour text not null default 'red';",
};

macro_rules! counter_service {
    ($Service:ident, $name:literal, $hears:expr, $migrations:expr) => {
        impl Service for $Service {
            const NAME: &'static str = $name;
            const HEARS: &'static [&'static str] = $hears;
            const MIGRATIONS: &'static [Migration] = $migrations;
            type Tables = Counters;
            type Event = CounterEvent;
            type Heard = CounterEvent;
            type Command = Raise;
            type Timer = CounterId;
            type Refusal = OnlyUp;
            type Settings = Settings;

            fn hear(envelope: &Envelope) -> Result<CounterEvent, DecodeError> {
                CounterEvent::decode(&envelope.kind, envelope.schema, &envelope.data)
            }

            fn concerns(message: &Message<Self>, tables: &mut Counters) {
                match message {
                    Message::Command(raise) => tables.counters.want(&raise.counter),
                    Message::Heard(CounterEvent::Raised(raised) | CounterEvent::Copied(raised)) => {
                        tables.counters.want(&raised.counter);
                    }
                    Message::Heard(CounterEvent::Rang(counter)) | Message::Due(counter) => {
                        tables.counters.want(counter);
                    }
                }
            }

            fn decide(
                message: &Message<Self>,
                _: &Counters,
                context: &Context<'_, Self>,
            ) -> Result<Vec<CounterEvent>, OnlyUp> {
                match message {
                    Message::Command(raise) => raise.decide(context.now, context.fresh_id),
                    Message::Due(counter) => {
                        let failing = context.settings.fails_on.lock().expect("no panic holds it");
                        let does = failing.iter().find_map(|note| note.strip_prefix("ring: "));
                        match does {
                            None => Ok(vec![CounterEvent::Rang(*counter)]),
                            Some("nothing") => Ok(Vec::new()),
                            Some("refused") => Err(OnlyUp),
                            Some("end the process") => std::process::exit(ENDED),
                            Some(raise) => {
                                let (by, rings) = raise.split_once(" and ").unwrap_or((raise, ""));
                                let raised = CounterEvent::Raised(Raised {
                                    counter: *counter,
                                    by: by.parse().expect("what to raise it by"),
                                    rings_at: None,
                                    note: String::new(),
                                });
                                let rang =
                                    (!rings.is_empty()).then_some(CounterEvent::Rang(*counter));
                                Ok([raised].into_iter().chain(rang).collect())
                            }
                        }
                    }
                    Message::Heard(CounterEvent::Raised(raised)) => {
                        let failing = context.settings.fails_on.lock().expect("no panic holds it");
                        let fails = failing.contains(&raised.note);
                        drop(failing);
                        assert!(!fails, "hearing {:?} was told to panic", raised.note);
                        if raised.note == "end the process" {
                            std::process::exit(ENDED);
                        }
                        if raised.note == "nothing follows" {
                            return Ok(Vec::new());
                        }
                        let by = if raised.note == "thirteen" { 13 } else { raised.by };
                        let copied = Raised { by, rings_at: None, ..raised.clone() };
                        Ok(vec![CounterEvent::Copied(copied)])
                    }
                    Message::Heard(CounterEvent::Rang(_) | CounterEvent::Copied(_)) => {
                        Ok(Vec::new())
                    }
                }
            }

            fn timers(event: &CounterEvent) -> Vec<TimerChange<CounterId>> {
                match event {
                    CounterEvent::Raised(Raised { counter, note, .. }) if note == "hush" => {
                        vec![TimerChange::Clear { key: format!("ring-{counter}") }]
                    }
                    CounterEvent::Raised(Raised {
                        counter, rings_at: Some(due_at), note, ..
                    }) => {
                        let set = |key| TimerChange::Set { key, due_at: *due_at, timer: *counter };
                        let mut changes = vec![set(format!("ring-{counter}"))];
                        if note == "twice" {
                            changes.push(set(format!("ring-again-{counter}")));
                        }
                        changes
                    }
                    CounterEvent::Raised(_) | CounterEvent::Copied(_) => Vec::new(),
                    CounterEvent::Rang(counter) => {
                        let clear = |key| TimerChange::Clear { key };
                        let (once, again) = ("ring", "ring-again");
                        [once, again].map(|key| clear(format!("{key}-{counter}"))).into()
                    }
                }
            }

            fn version(raise: &Raise, tables: &Counters) -> Option<Version> {
                tables.counters.get(&raise.counter).map(|counter| counter.version)
            }

            fn answer(raise: &Raise, tables: &Counters, context: &Context<'_, Self>) -> Answer {
                let counter = tables.counters.get(&raise.raised(context.fresh_id));
                let counter = counter.expect("it was just raised");
                Answer::ok(counter.version, &counter.total)
            }
        }
    };
}

counter_service!(Leader, "leader", &[], &[MIGRATION]);
counter_service!(NextLeader, "leader", &[], &[MIGRATION, NEXT_MIGRATION]);
counter_service!(Follower, "follower", &["counter.raised"], &[MIGRATION]);

impl Raise {
    /// The counter that it says, or with the note "new" one that nobody has named before.
    fn raised(&self, fresh_id: Uuid) -> CounterId {
        if self.note == "new" { CounterId(fresh_id) } else { self.counter }
    }

    fn decide(&self, now: Timestamp, fresh_id: Uuid) -> Result<Vec<CounterEvent>, OnlyUp> {
        assert!(self.note != "panic", "deciding was told to panic");
        if self.by < 0 {
            return Err(OnlyUp);
        }
        Ok(vec![CounterEvent::Raised(Raised {
            counter: self.raised(fresh_id),
            by: self.by,
            rings_at: self.rings_in.map(|wait| now.plus(wait)),
            note: self.note.clone(),
        })])
    }
}
