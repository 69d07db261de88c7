//! What a long log could slow down: appends, the pipeline, an order's history, and the first page of
//! a filtered list; each against the shortest log.

use std::collections::HashMap;

use anyhow::ensure;
use sqlx::{AnyConnection, Connection as _};

use crate::bench::Bench;
use crate::figure::{Figure, Latencies};
use crate::http::Client;
use crate::log::{self, Of};
use crate::place::{Commits, Kind, Place};
use crate::process::Server;
use crate::stopwatch::Stopwatch;
use crate::template::Templates;
use crate::world::World;
use crate::{pipeline, store, template};

/// Requests of each kind.
const REQUESTS: usize = 500;
/// Producers that append.
const PRODUCERS: usize = 32;

pub(crate) async fn measure(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let templates = template::record(bench).await?;
    let mut shortest: HashMap<String, f64> = HashMap::new();
    let mut figures = Vec::new();
    for events in &bench.growth {
        let measured = on_a_log_of(bench, kind, &templates, *events).await?;
        for (detail, value, unit) in measured {
            let figure = Figure::new(format!("{kind}/growth/{events}/{detail}"), value, unit);
            figures.push(match shortest.get(&detail) {
                Some(short) => figure.against(*short),
                None => figure,
            });
            shortest.entry(detail).or_insert(value);
        }
    }
    Ok(figures)
}

/// Detail, value and unit of each figure.
type Measured = Vec<(String, f64, &'static str)>;

async fn on_a_log_of(
    bench: &Bench,
    kind: Kind,
    templates: &Templates,
    events: usize,
) -> anyhow::Result<Measured> {
    let place = Place::fresh(bench, kind).await?;
    log::make(bench, &place, templates, Of::All, events).await?;
    let orders = some_orders(&place).await?;
    let server = bench.waybill.serve(&[], &place).await?;
    bench.progress.tell(format!("on {events} events"));
    let audit =
        ask(&server, |number| format!("/v1/audit/orders/{}", orders[number % orders.len()]))
            .await?;
    let world = &templates.world;
    let list = ask(&server, |number| {
        format!("/v1/orders?customer_id={}&status=completed", world.customer(number))
    })
    .await?;
    let run = pipeline(bench, &place, &server, world).await?;
    server.stop()?;
    let appended = store::by_producers(&place, PRODUCERS, bench.scale.run).await?;
    place.remove().await?;
    Ok(vec![
        ("append".to_owned(), appended.rate, "events/s"),
        ("pipeline".to_owned(), run.events_per_second, "events/s"),
        ("audit/p50".to_owned(), audit.percentile(50.0), "ms"),
        ("audit/p99".to_owned(), audit.percentile(99.0), "ms"),
        ("list/p50".to_owned(), list.percentile(50.0), "ms"),
        ("list/p99".to_owned(), list.percentile(99.0), "ms"),
    ])
}

async fn pipeline(
    bench: &Bench,
    place: &Place,
    server: &Server,
    world: &World,
) -> anyhow::Result<pipeline::Run> {
    let orders = bench.scale.orders / 2;
    pipeline::saturated(bench, place, server, world.clone(), orders).await
}

/// Orders from the whole length of the history.
async fn some_orders(place: &Place) -> anyhow::Result<Vec<String>> {
    let mut connection: AnyConnection = place.connect("order", Commits::Durable).await?;
    let head: i64 =
        sqlx::query_scalar("select max(position) from outbox").fetch_one(&mut connection).await?;
    let requests = i64::try_from(REQUESTS)?;
    let mut orders = Vec::new();
    for part in 1..=requests {
        let order: Option<String> = sqlx::query_scalar(
            "select correlation_id from outbox where position >= $1 and type = 'order.placed' \
             order by position limit 1",
        )
        .bind(head * part / (requests + 1))
        .fetch_optional(&mut connection)
        .await?;
        orders.extend(order);
    }
    connection.close().await?;
    ensure!(!orders.is_empty(), "there are no orders");
    Ok(orders)
}

/// How long answers take that are asked for one after the other.
async fn ask(server: &Server, path: impl Fn(usize) -> String) -> anyhow::Result<Latencies> {
    let mut client = Client::connect(server.address).await?;
    let mut times = Latencies::new()?;
    for number in 0..REQUESTS {
        let watch = Stopwatch::start();
        let status = client.get(&path(number)).await?.status;
        times.record(u64::try_from(watch.elapsed().as_micros())?);
        ensure!(status == 200, "{}: {status}", path(number));
    }
    Ok(times)
}
