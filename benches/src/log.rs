//! Long histories, made in bulk of what happened to a few real orders: the outboxes by statements of
//! our own, the event store by its own appends, the tables by `waybill rebuild`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sqlx::{AnyConnection, Connection as _};
use uuid::{Builder, Uuid};
use waybill_runtime::{
    Clock, Envelope, EventStore, Ids, ManualClock, Migrations, OutboxEvent, Position, Timestamp,
    Version,
};

use crate::bench::Bench;
use crate::place::{Commits, Place};
use crate::stopwatch;
use crate::template::{self, Filling, Step, Templates};

/// Orders that are on their way at the same time.
const WAVE: usize = 500;
/// Time between two events.
const APART: Duration = Duration::from_micros(100);
/// Rows of one statement.
const ROWS: usize = 1_000;

const SERVICES: [&str; 4] = ["inventory", "user", "order", "logistics"];

/// Whose events to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// All services', and the state in which they go on from there.
    All,
    /// The order service's alone.
    Order,
}

/// A history that grows.
struct Log {
    store: EventStore,
    hand: ManualClock,
    outboxes: HashMap<&'static str, Outbox>,
    /// Versions of the streams that go on over many orders.
    streams: HashMap<String, Version>,
    now: Timestamp,
    /// The same in every run.
    random: Rng,
}

struct Outbox {
    connection: AnyConnection,
    head: Position,
}

/// Fills an empty place with at least so many events; how many they are.
pub(crate) async fn make(
    bench: &Bench,
    place: &Place,
    templates: &Templates,
    of: Of,
    events: usize,
) -> anyhow::Result<usize> {
    bench.progress.tell(format!("making {events} events"));
    bench.waybill.run(&["migrate"], place)?;
    let services = if of == Of::All { &SERVICES[..] } else { &["order"] };
    let mut log = Log::begin(place, services, events).await?;
    let mut count = log.write_beginning(&templates.beginning).await?;
    let mut first = 0;
    while count < events {
        let steps = templates
            .orders
            .iter()
            .map(|steps| steps.iter().filter(|step| services.contains(&step.source())).count());
        let longest = steps.max().unwrap_or(1).max(1);
        let size = WAVE.min((events - count).div_ceil(longest));
        let wave: Vec<&[Step]> = (first..first + size)
            .map(|number| templates.orders[number % templates.orders.len()].as_slice())
            .collect();
        first += size;
        count += log.write_wave(&wave).await?;
        bench.progress.tell(format!("made {count} of {events} events"));
    }
    let heads = log.end().await?;
    if of == Of::All {
        for service in services {
            bench.progress.tell(format!("making the tables of {service}"));
            bench.waybill.run(&["rebuild", service], place)?;
            go_on_from_here(place, service, &heads).await?;
        }
    }
    place.settle().await?;
    Ok(count)
}

impl Log {
    async fn begin(
        place: &Place,
        services: &[&'static str],
        events: usize,
    ) -> anyhow::Result<Self> {
        let age = APART * u32::try_from(events)?;
        let now = stopwatch::now().minus(age);
        let (clock, hand) = Clock::manual(now);
        let (location, ids) = (place.location(), Ids::system());
        let store = EventStore::open(&location, clock, &ids, Migrations::Check).await?;
        let mut outboxes = HashMap::new();
        for service in services {
            let connection = place.connect(service, Commits::Loose).await?;
            outboxes.insert(*service, Outbox { connection, head: Position(0) });
        }
        let (streams, random) = (HashMap::new(), Rng::with_seed(1));
        Ok(Self { store, hand, outboxes, streams, now, random })
    }

    /// What happened before the first order, as it was.
    async fn write_beginning(&mut self, events: &[Envelope]) -> anyhow::Result<usize> {
        let mut all = Vec::new();
        for envelope in events {
            if let Some(position) = self.next_position(&envelope.source) {
                self.streams.insert(envelope.stream.clone(), envelope.version);
                all.push(OutboxEvent { position, envelope: Arc::new(envelope.clone()) });
            }
        }
        self.write(&all).await
    }

    /// Many orders, event by event, as when all of them are under way at once.
    async fn write_wave(&mut self, wave: &[&[Step]]) -> anyhow::Result<usize> {
        let mut fillings: Vec<Filling> = wave.iter().map(|steps| self.filling(steps)).collect();
        let longest = wave.iter().map(|steps| steps.len()).max().unwrap_or(0);
        let mut all = Vec::new();
        for place in 0..longest {
            // By source: what one service says of many orders comes in together.
            for source in SERVICES {
                for (steps, filling) in wave.iter().zip(&mut fillings) {
                    let Some(step) = steps.get(place).filter(|step| step.source() == source) else {
                        continue;
                    };
                    let Some(position) = self.next_position(source) else { continue };
                    if step.gives_number {
                        filling.number = format!("W-{position}");
                    }
                    let version = self.shared_version(step, filling);
                    let envelope = step.of(filling, version, self.now);
                    self.now = self.now.plus(APART);
                    all.push(OutboxEvent { position, envelope: Arc::new(envelope) });
                }
            }
        }
        self.write(&all).await
    }

    fn filling(&mut self, steps: &[Step]) -> Filling {
        let ids = (0..template::ids(steps)).map(|_| id(&mut self.random, self.now)).collect();
        Filling { ids, number: String::new() }
    }

    fn next_position(&mut self, source: &str) -> Option<Position> {
        let outbox = self.outboxes.get_mut(source)?;
        outbox.head = outbox.head.next();
        Some(outbox.head)
    }

    fn shared_version(&mut self, step: &Step, filling: &Filling) -> Option<Version> {
        if !step.in_shared_stream {
            return None;
        }
        let version = self.streams.entry(step.stream(filling)).or_insert(Version(0));
        *version = Version(version.0 + 1);
        Some(*version)
    }

    /// Writes events to their outboxes and, beside that, to the event store.
    async fn write(&mut self, events: &[OutboxEvent]) -> anyhow::Result<usize> {
        self.hand.advance(APART * u32::try_from(events.len())?);
        let outboxes = &mut self.outboxes;
        let write_outboxes = async {
            for (service, outbox) in outboxes {
                let own: Vec<&OutboxEvent> =
                    events.iter().filter(|event| event.envelope.source == *service).collect();
                for rows in own.chunks(ROWS) {
                    insert(&mut outbox.connection, rows).await?;
                }
            }
            Ok(())
        };
        let store = &self.store;
        let append = async {
            let by_source =
                |a: &OutboxEvent, b: &OutboxEvent| a.envelope.source == b.envelope.source;
            for run in events.chunk_by(by_source) {
                store.append(run).await?;
            }
            Ok::<(), anyhow::Error>(())
        };
        tokio::try_join!(write_outboxes, append)?;
        Ok(events.len())
    }

    /// Where each outbox ends.
    async fn end(self) -> anyhow::Result<BTreeMap<&'static str, Position>> {
        let mut heads = BTreeMap::new();
        for (service, outbox) in self.outboxes {
            heads.insert(service, outbox.head);
            outbox.connection.close().await?;
        }
        self.store.close().await;
        Ok(heads)
    }
}

async fn insert(connection: &mut AnyConnection, events: &[&OutboxEvent]) -> anyhow::Result<()> {
    let row = |event: &&OutboxEvent| {
        let OutboxEvent { position, envelope: e } = event;
        let own = (position.0, e.id, e.kind.clone(), e.schema, e.stream.clone(), e.version.0);
        let rest = (e.time.0, e.correlation.clone(), e.causation.clone(), e.actor.clone());
        (own, rest, e.traceparent.clone(), e.data.clone())
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    sqlx::query(
        "insert into outbox (position, id, type, schema_version, stream, stream_version, \
         occurred_at, correlation_id, causation_id, actor, traceparent, data) \
         select cast(value -> 0 ->> 0 as bigint), value -> 0 ->> 1, value -> 0 ->> 2, \
         cast(value -> 0 ->> 3 as bigint), value -> 0 ->> 4, cast(value -> 0 ->> 5 as bigint), \
         cast(value -> 1 ->> 0 as bigint), value -> 1 ->> 1, value -> 1 ->> 2, value -> 1 ->> 3, \
         value ->> 2, value ->> 3 from jsonb_each($1)",
    )
    .bind(serde_json::to_string(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// A service's checkpoint at the end of the event store: it has handled everything.
async fn go_on_from_here(
    place: &Place,
    service: &str,
    heads: &BTreeMap<&'static str, Position>,
) -> anyhow::Result<()> {
    let mut store = place.connect("event_store", Commits::Durable).await?;
    let (log, position, event, chain): (String, i64, String, String) = sqlx::query_as(
        "select (select id from log), position, id, chain from event order by position desc limit 1",
    )
    .fetch_one(&mut store)
    .await?;
    store.close().await?;
    let mut connection = place.connect(service, Commits::Durable).await?;
    sqlx::query(
        "insert into checkpoints (sequence, log_id, position, event_id, chain, sources, saved_at) \
         values ((select coalesce(max(sequence), 0) + 1 from checkpoints), $1, $2, $3, $4, $5, $6)",
    )
    .bind(log)
    .bind(position)
    .bind(event)
    .bind(chain)
    .bind(serde_json::to_string(heads)?)
    .bind(stopwatch::now().0)
    .execute(&mut connection)
    .await?;
    Ok(connection.close().await?)
}

/// An id of that time, `UUIDv7`.
fn id(random: &mut Rng, time: Timestamp) -> Uuid {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(time.0 / 1_000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}
