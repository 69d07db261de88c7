//! The event store alone: producers that wait until their event is on the disk, and pages read with
//! their payloads decoded; against the raw insert and the raw select.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use waybill_contract::{InventoryEvent, LogisticsEvent, OrderEvent, UserEvent};
use waybill_runtime::{
    Clock, Envelope, Event as _, EventId, EventStore, Filter, Ids, Migrations, OutboxEvent,
    Position, StoredEvent, Version,
};

use crate::bench::Bench;
use crate::figure::{Figure, Latencies, number};
use crate::log::{self, Of};
use crate::place::{Kind, Place};
use crate::stopwatch::{self, Stopwatch};
use crate::{raw, template};

const PRODUCERS: [usize; 2] = [1, 32];
/// Events that one append takes at most.
const BATCH: usize = 500;
const PAGES: [usize; 2] = [500, 2_000];
/// Names the source of what is appended here: no service's.
const SOURCE: &str = "bench";
const DATA: &str = r#"{"order_id":"01932a7e-5c1b-7f3e-9d2a-8b4c6e0f1a2b","number":"W-1","customer_id":"01932a7e-5c1b-7f3e-9d2a-8b4c6e0f1a2c","lines":[{"sku":"TEA-500","name":"Assam tea, 500 g","quantity":2,"unit_price":{"amount":1290,"currency":"EUR"}}],"total":{"amount":2580,"currency":"EUR"}}"#;

/// What producers reached.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Events per second.
    pub(crate) rate: f64,
    times: Latencies,
}

pub(crate) async fn append(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for producers in PRODUCERS {
        bench.progress.tell(format!("raw inserts, {producers} clients"));
        let raw = match kind {
            Kind::Sqlite => raw::on_sqlite(bench).await?,
            Kind::Postgres => raw::on_postgres(bench, producers).await?.pgbench,
        };
        bench.progress.tell(format!("{producers} producers"));
        let place = Place::fresh(bench, kind).await?;
        let appended = by_producers(&place, producers, bench.scale.run).await?;
        place.remove().await?;
        let name = format!("{kind}/append/{producers}");
        figures.push(Figure::new(name.clone(), appended.rate, "events/s").against(raw.rate));
        for percent in [50.0, 99.0] {
            let of = |times: &Latencies| times.percentile(percent);
            let figure = Figure::new(format!("{name}/p{percent}"), of(&appended.times), "ms");
            figures.push(figure.against(raw.times.as_ref().map(of)));
        }
    }
    bench.progress.tell(format!("pages of {BATCH}"));
    let place = Place::fresh(bench, kind).await?;
    let rate = in_pages(&place, bench.scale.run).await?;
    place.remove().await?;
    figures.push(Figure::new(format!("{kind}/append/pages-of-{BATCH}"), rate, "events/s"));
    Ok(figures)
}

/// Appends events of this many producers, each of which waits for the last one's commit. As in a
/// service's relay, one append takes what waits.
pub(crate) async fn by_producers(
    place: &Place,
    producers: usize,
    run: Duration,
) -> anyhow::Result<Appended> {
    let store = open(place).await?;
    let first = store.cursor(SOURCE).await?.position;
    let (queue, waiting) = mpsc::channel(producers);
    let appending = tokio::spawn(gather(store, first, waiting));
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    for _ in 0..producers {
        let queue = queue.clone();
        running.spawn(async move {
            let mut times = Latencies::new()?;
            while watch.elapsed() < run {
                let (done, committed) = oneshot::channel();
                let began = Stopwatch::start();
                queue.send(done).await.context("the appending task ended")?;
                committed.await.context("an append failed")?;
                times.record(u64::try_from(began.elapsed().as_micros())?);
            }
            anyhow::Ok(times)
        });
    }
    drop(queue);
    let mut times = Latencies::new()?;
    for own in running.join_all().await {
        times.add(&own?)?;
    }
    let elapsed = watch.elapsed();
    appending.await??;
    let count = number(usize::try_from(times.count())?);
    Ok(Appended { rate: count / elapsed.as_secs_f64(), times })
}

async fn gather(
    store: EventStore,
    mut head: Position,
    mut waiting: mpsc::Receiver<oneshot::Sender<()>>,
) -> anyhow::Result<()> {
    let ids = Ids::system();
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let events = events(&ids, head, batch.len());
        head = head.plus(events.len());
        store.append(&events).await?;
        for done in batch.drain(..) {
            // A producer that is gone needs no answer.
            let _ = done.send(());
        }
    }
    store.close().await;
    Ok(())
}

async fn in_pages(place: &Place, run: Duration) -> anyhow::Result<f64> {
    let (store, ids) = (open(place).await?, Ids::system());
    let mut head = Position(0);
    let watch = Stopwatch::start();
    while watch.elapsed() < run {
        let page = events(&ids, head, BATCH);
        store.append(&page).await?;
        head = head.plus(page.len());
    }
    let rate = number(usize::try_from(head.0)?) / watch.elapsed().as_secs_f64();
    store.close().await;
    Ok(rate)
}

fn events(ids: &Ids, head: Position, count: usize) -> Vec<OutboxEvent> {
    let time = stopwatch::now();
    let event = |position: i64| {
        let id = EventId(ids.next());
        let envelope = Envelope {
            id,
            source: SOURCE.to_owned(),
            kind: "order.placed".to_owned(),
            schema: 1,
            version: Version(1),
            stream: format!("order-{id}"),
            time,
            correlation: id.to_string(),
            causation: id.to_string(),
            actor: "customer".to_owned(),
            traceparent: String::new(),
            data: DATA.to_owned(),
        };
        OutboxEvent { position: Position(position), envelope: Arc::new(envelope) }
    };
    (head.0 + 1..).take(count).map(event).collect()
}

pub(crate) async fn read(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let templates = template::record(bench).await?;
    let place = Place::fresh(bench, kind).await?;
    let count = log::make(bench, &place, &templates, Of::All, bench.scale.read).await?;
    let mut figures = Vec::new();
    for page in PAGES {
        bench.progress.tell(format!("pages of {page}"));
        let selected = select_raw(&place, page, count).await?;
        let store = open(&place).await?;
        let watch = Stopwatch::start();
        let mut read = 0;
        let mut pages = store.pages(Filter::default(), page);
        while let Some(events) = pages.next().await? {
            events.iter().try_for_each(decode)?;
            read += events.len();
        }
        let rate = number(read) / watch.elapsed().as_secs_f64();
        store.close().await;
        anyhow::ensure!(read == count, "{read} of {count} events were read");
        let name = format!("{kind}/read/{page}");
        figures.push(Figure::new(name, rate, "events/s").against(selected));
    }
    place.remove().await?;
    Ok(figures)
}

/// Reads the payload as its service's events.
fn decode(event: &StoredEvent) -> anyhow::Result<()> {
    let Envelope { source, kind, schema, data, .. } = &*event.envelope;
    let decoded = match source.as_str() {
        "order" => OrderEvent::decode(kind, *schema, data).map(drop),
        "inventory" => InventoryEvent::decode(kind, *schema, data).map(drop),
        "logistics" => LogisticsEvent::decode(kind, *schema, data).map(drop),
        "user" => UserEvent::decode(kind, *schema, data).map(drop),
        other => bail!("there is no service {other}"),
    };
    Ok(decoded?)
}

/// Rows per second of the same pages through the database's own driver, with nothing decoded.
async fn select_raw(place: &Place, page: usize, count: usize) -> anyhow::Result<f64> {
    macro_rules! select {
        ($Connection:ty, $url:expr, $table:literal) => {{
            let mut connection = <$Connection>::connect($url).await?;
            let watch = Stopwatch::start();
            let limit = i64::try_from(page)?;
            let mut read = 0;
            while read < count {
                let rows = sqlx::query(concat!(
                    "select * from ",
                    $table,
                    " where position > $1 order by position limit $2"
                ))
                .bind(i64::try_from(read)?)
                .bind(limit)
                .fetch_all(&mut connection)
                .await?;
                read += rows.len();
            }
            let elapsed = watch.elapsed();
            connection.close().await?;
            number(read) / elapsed.as_secs_f64()
        }};
    }
    if let Some(database) = place.database() {
        return Ok(select!(PgConnection, &database.url, "event_store.event"));
    }
    let file = place.file("event_store").unwrap_or_default();
    Ok(select!(SqliteConnection, &format!("sqlite://{}", file.display()), "event"))
}

async fn open(place: &Place) -> anyhow::Result<EventStore> {
    let (location, clock, ids) = (place.location(), Clock::system(), Ids::system());
    if let Some(file) = place.file("event_store")
        && let Some(folder) = file.parent()
    {
        std::fs::create_dir_all(folder)?;
    }
    Ok(EventStore::open(&location, clock, &ids, Migrations::Apply).await?)
}
