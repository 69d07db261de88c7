//! Everything compared with everything.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::compare::{Compare, Unequal};
use super::{OnProgress, TimerFold, decode, open, recorded};
use crate::connections::Transaction;
use crate::database::{Database, Location, OpenError};
use crate::envelope_columns;
use crate::error::StoreError;
use crate::event::{Envelope, Event, EventId, Position};
use crate::event_store::{EventStore, OWNER, StoredEvent, link};
use crate::limits;
use crate::migrate::{self, Migrations};
use crate::outbox::{self, OutboxEvent};
use crate::service::Service;
use crate::sql::{self, Connection};
use crate::tables::Tables;
use crate::timers::{self, StoredTimer};

/// What a walk over a history found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Everything agrees; how much was compared.
    Agrees {
        /// Events read.
        events: i64,
        /// Rows compared.
        rows: i64,
    },
    /// The first thing that does not.
    Differs(Difference),
}

/// Two places that should say the same and do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, such as `order: orders 01937b6e-…, column status`.
    pub place: String,
    /// What is there.
    pub found: String,
    /// What should be there, and why.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.place, self.found, self.expected)
    }
}

/// The event store as of one moment, to compare outboxes with.
///
/// Taken before the outboxes are read: what it holds, they must hold; what they hold beyond it is
/// backlog, not an error.
#[derive(Debug)]
pub struct EventStoreSnapshot {
    database: Database,
    snapshot: Transaction,
}

impl EventStoreSnapshot {
    /// Takes it.
    pub async fn take(location: &Location) -> Result<Self, OpenError> {
        let database =
            Database::open(location, OWNER, migrate::of_event_store, Migrations::Check).await?;
        let snapshot = database.snapshot().await?;
        Ok(Self { database, snapshot })
    }

    /// Whether its positions have no gaps, its times never decrease and its chain is whole.
    pub async fn verify_positions(&mut self) -> Result<Finding, StoreError> {
        let (count, head): (i64, i64) =
            sql::query("select count(*), coalesce(max(position), 0) from event")
                .fetch_one(&mut self.snapshot)
                .await?;
        if count != head {
            let gap: i64 = sql::query(
                "select coalesce(min(position), 0) from event as e where position <> 1 \
                 and not exists (select 1 from event as b where b.position = e.position - 1)",
            )
            .fetch_one(&mut self.snapshot)
            .await?;
            return Ok(differs(
                format!("event_store: position {}", (gap - 1).max(1)),
                "nothing".to_owned(),
                format!("an event: {count} events lie at positions up to {head}"),
            ));
        }
        let early: Option<i64> = sql::query(
            "select position from (select position, recorded_at, \
             lag(recorded_at) over (order by position) as before from event) as t \
             where recorded_at < before order by position limit 1",
        )
        .fetch_optional(&mut self.snapshot)
        .await?;
        if let Some(position) = early {
            return Ok(differs(
                format!("event_store: position {position}, column recorded_at"),
                "an earlier time than before it".to_owned(),
                "times that never decrease".to_owned(),
            ));
        }
        self.verify_chain(count).await
    }

    async fn verify_chain(&mut self, count: i64) -> Result<Finding, StoreError> {
        let mut chain: Arc<str> = Arc::from("");
        let mut after = 0;
        loop {
            let page: Vec<(i64, String, String)> = sql::query(
                "select position, id, chain from event where position > $1 and position <= $2 \
                 order by position",
            )
            .bind(after)
            .bind(Position(after).plus(limits::FOLD_PAGE).0)
            .fetch_all(&mut self.snapshot)
            .await?;
            let Some((last, _, _)) = page.last() else { break };
            after = *last;
            for (position, id, found) in page {
                chain = link(&chain, EventId(envelope_columns::parse_id(&id)?));
                if found != *chain {
                    let place = format!("event_store: position {position}, column chain");
                    return Ok(differs(place, found, format!("{chain} by the ids up to there")));
                }
            }
        }
        Ok(Finding::Agrees { events: count, rows: 0 })
    }

    /// The sources it holds events of.
    pub async fn sources(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(sql::query("select distinct source from event order by source")
            .fetch_all(&mut self.snapshot)
            .await?)
    }

    /// Lets go of it.
    pub async fn release(self) -> Result<(), StoreError> {
        self.snapshot.rollback().await?;
        self.database.close().await;
        Ok(())
    }
}

/// Folds a service's outbox and compares it with its tables, its timers and the event store.
pub async fn verify<S: Service>(
    location: &Location,
    event_store: &mut EventStoreSnapshot,
    progress: OnProgress<'_>,
) -> Result<Finding, OpenError> {
    let database = open::<S>(location).await?;
    let mut snapshot = database.snapshot().await?;
    let total = outbox::head(&mut snapshot).await?;
    let (stretches, arriving) = mpsc::channel(limits::PAGES_AHEAD);
    let folding = tokio::spawn(Walk::<S>::new().take_all(arriving));
    let read =
        read_all(S::NAME, &mut snapshot, &mut event_store.snapshot, &stretches, |position| {
            progress(position.0, total.0);
        });
    let read = read.await;
    drop(stretches);
    let folded = folding.await.unwrap_or_else(|died| resume_unwind(died.into_panic()));
    read?;
    let walk = match folded? {
        ControlFlow::Continue(walk) => walk,
        ControlFlow::Break(difference) => return Ok(Finding::Differs(difference)),
    };
    let beyond: i64 = sql::query("select count(*) from outbox where position > $1")
        .bind(walk.position.0)
        .fetch_one(&mut snapshot)
        .await
        .map_err(StoreError::from)?;
    if beyond > 0 {
        return Ok(differs(
            format!("{}: outbox position {}", S::NAME, walk.position.next()),
            "nothing".to_owned(),
            format!("an event: {beyond} lie after it"),
        ));
    }
    let finding = walk.compare(&mut snapshot).await?;
    snapshot.rollback().await.map_err(StoreError::from)?;
    database.close().await;
    Ok(finding)
}

/// A stretch of a service's outbox, and what the event store holds of it.
struct Stretch {
    first: Position,
    outbox: Vec<OutboxEvent>,
    stored: Vec<StoredEvent>,
}

/// Reads both logs to the end of the outbox, or until nobody takes what is read any more. What was
/// read is compared and folded meanwhile, by another thread: together it takes half the time.
async fn read_all(
    service: &str,
    outbox: &mut Connection,
    event_store: &mut Connection,
    stretches: &mpsc::Sender<Stretch>,
    progress: impl Fn(Position),
) -> Result<(), StoreError> {
    let mut first = Position(1);
    loop {
        let (outbox, stored) = tokio::try_join!(
            outbox::page(outbox, service, first, limits::FOLD_PAGE),
            EventStore::of_source(event_store, service, first, limits::FOLD_PAGE),
        )?;
        let end = outbox.last().map(|event| event.position);
        if stretches.send(Stretch { first, outbox, stored }).await.is_err() {
            return Ok(());
        }
        let Some(end) = end else { return Ok(()) };
        progress(end);
        first = end.next();
    }
}

fn differs(place: String, found: String, expected: String) -> Finding {
    Finding::Differs(Difference { place, found, expected })
}

/// A fold of a whole outbox in memory.
struct Walk<S: Service> {
    position: Position,
    streams: HashMap<String, i64>,
    tables: S::Tables,
    timers: TimerFold,
}

impl<S: Service> Walk<S> {
    fn new() -> Self {
        Self {
            position: Position(0),
            streams: HashMap::new(),
            tables: S::Tables::default(),
            timers: TimerFold::default(),
        }
    }

    /// Compares and folds stretch after stretch; what was folded, or the first difference.
    async fn take_all(
        mut self,
        mut stretches: mpsc::Receiver<Stretch>,
    ) -> Result<ControlFlow<Difference, Self>, StoreError> {
        let mut relayed = true;
        while let Some(Stretch { first, outbox, stored }) = stretches.recv().await {
            if let Some(difference) = compare_logs(S::NAME, first, &outbox, &stored) {
                return Ok(ControlFlow::Break(difference));
            }
            if let (false, Some(event)) = (relayed, stored.first()) {
                return Ok(ControlFlow::Break(Difference {
                    place: format!("event_store: position {}", event.position),
                    found: format!("{}'s event {}", S::NAME, event.source_position),
                    expected: format!("{}'s events before it, which are not there", S::NAME),
                }));
            }
            // What is missing from here on can only be backlog, at the very end.
            relayed &= stored.len() == outbox.len();
            if let Some(difference) = self.take(&outbox)? {
                return Ok(ControlFlow::Break(difference));
            }
        }
        Ok(ControlFlow::Continue(self))
    }

    /// Folds a page; the first event that does not follow the one before it.
    fn take(&mut self, page: &[OutboxEvent]) -> Result<Option<Difference>, StoreError> {
        for stored in page {
            let place = format!("{}: outbox position {}", S::NAME, self.position.next());
            if stored.position != self.position.next() {
                let (found, expected) =
                    ("nothing".to_owned(), "an event: positions have no gaps".to_owned());
                return Ok(Some(Difference { place, found, expected }));
            }
            self.position = stored.position;
            let envelope = &stored.envelope;
            let version = self.streams.entry(envelope.stream.clone()).or_default();
            *version += 1;
            if envelope.version.0 != *version {
                let found = format!("version {} of {}", envelope.version, envelope.stream);
                return Ok(Some(Difference {
                    place,
                    found,
                    expected: format!("version {version}"),
                }));
            }
            let event = match decode::<S>(stored) {
                Ok(event) => event,
                Err(cause) => {
                    let expected = "an event that this version can read".to_owned();
                    return Ok(Some(Difference { place, found: cause.to_string(), expected }));
                }
            };
            if event.stream() != envelope.stream {
                let expected = format!("stream {}", event.stream());
                let found = format!("stream {}", envelope.stream);
                return Ok(Some(Difference { place, found, expected }));
            }
            self.tables.evolve(&recorded(&event, stored));
            self.timers.take::<S>(&event, envelope)?;
            self.tables.keep();
        }
        Ok(None)
    }

    /// Compares the fold with the tables and the timers.
    async fn compare(mut self, snapshot: &mut Connection) -> Result<Finding, StoreError> {
        let mut compare = Compare { service: S::NAME, snapshot, rows: 0 };
        match self.tables.visit(&mut compare).await {
            Ok(()) => {}
            Err(Unequal::Row(difference)) => return Ok(Finding::Differs(difference)),
            Err(Unequal::Store(error)) => return Err(error),
        }
        let rows = compare.rows;
        let expected: BTreeMap<String, StoredTimer> =
            self.timers.0.into_iter().filter_map(|(key, timer)| Some((key, timer?))).collect();
        let found: BTreeMap<String, StoredTimer> =
            timers::all(snapshot).await?.into_iter().map(|t| (t.key.clone(), t)).collect();
        for key in expected.keys().chain(found.keys()) {
            if expected.get(key) != found.get(key) {
                let show = |timer: Option<&StoredTimer>| {
                    timer.map_or("nothing".to_owned(), |t| {
                        format!("due {} for {}", t.due_at, t.payload)
                    })
                };
                let place = format!("{}: timers {key}", S::NAME);
                let expected = format!("{} by the fold of the outbox", show(expected.get(key)));
                return Ok(differs(place, show(found.get(key)), expected));
            }
        }
        Ok(Finding::Agrees { events: self.position.0, rows })
    }
}

/// The first event of a stretch that the event store holds otherwise than the outbox.
fn compare_logs(
    service: &str,
    first: Position,
    outbox: &[OutboxEvent],
    stored: &[StoredEvent],
) -> Option<Difference> {
    for (index, event) in stored.iter().enumerate() {
        let place = format!("event_store: position {}", event.position);
        let expected_position = first.plus(index);
        if event.source_position != expected_position {
            return Some(Difference {
                place,
                found: format!("{service}'s event {}", event.source_position),
                expected: format!("{service}'s event {expected_position}"),
            });
        }
        let Some(own) = outbox.get(index) else {
            return Some(Difference {
                place,
                found: format!("{service}'s event {}", event.source_position),
                expected: format!("nothing: {service}'s outbox does not hold it"),
            });
        };
        if own.position == event.source_position && own.envelope != event.envelope {
            let what = unequal_part(&event.envelope, &own.envelope);
            return Some(Difference {
                place: format!("{place} ({} {})", event.envelope.kind, event.envelope.id),
                found: what.0,
                expected: format!("{} by {service}'s outbox", what.1),
            });
        }
    }
    None
}

/// The part in which two envelopes differ, of each.
fn unequal_part(found: &Envelope, expected: &Envelope) -> (String, String) {
    let parts = |e: &Envelope| {
        let id = |id: EventId| id.to_string();
        [
            ("id", id(e.id)),
            ("type", e.kind.clone()),
            ("schema_version", e.schema.to_string()),
            ("stream", e.stream.clone()),
            ("stream_version", e.version.to_string()),
            ("occurred_at", e.time.rfc3339()),
            ("correlation_id", e.correlation.clone()),
            ("causation_id", e.causation.clone()),
            ("actor", e.actor.clone()),
            ("traceparent", e.traceparent.clone()),
            ("data", e.data.clone()),
        ]
    };
    let pairs = parts(found).into_iter().zip(parts(expected));
    let unequal = pairs.into_iter().find(|(a, b)| a != b);
    unequal.map_or_else(
        || ("another event".to_owned(), "the same event".to_owned()),
        |((name, found), (_, expected))| (format!("{name} {found}"), format!("{name} {expected}")),
    )
}
