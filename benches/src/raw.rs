//! The raw baselines: one event inserted per transaction, without any logic.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, SqliteConnection};

use crate::bench::Bench;
use crate::figure::{Latencies, number};
use crate::place::{Database, Kind, Place};
use crate::postgres::{self, Raw};
use crate::stopwatch::Stopwatch;

/// An event as event stores commonly keep it.
const TABLE: &str = "create table event (position bigserial primary key, stream uuid not null, \
     version int not null, type text not null, payload jsonb not null, metadata jsonb not null, \
     recorded_at timestamptz not null default now(), unique (stream, version))";
const PAYLOAD: &str = r#"{"order_id":"01932a7e-5c1b-7f3e-9d2a-8b4c6e0f1a2b","customer_id":"01932a7e-5c1b-7f3e-9d2a-8b4c6e0f1a2c","lines":[{"sku":"TEA-500","quantity":2,"unit_price":{"amount":1290,"currency":"EUR"}},{"sku":"CUP-BLUE","quantity":4,"unit_price":{"amount":890,"currency":"EUR"}}],"total":{"amount":6140,"currency":"EUR"},"country":"GB"}"#;
const METADATA: &str = r#"{"correlation_id":"01932a7e-5c1b-7f3e-9d2a-8b4c6e0f1a2b","causation_id":"","actor":"customer"}"#;

/// The same insert through `pgbench` and through sqlx, at the same number of clients.
#[derive(Clone, Debug)]
pub(crate) struct Inserts {
    pub(crate) pgbench: Raw,
    /// Per second.
    pub(crate) sqlx: f64,
}

/// One event per transaction on Postgres.
pub(crate) async fn on_postgres(bench: &Bench, clients: usize) -> anyhow::Result<Inserts> {
    let place = Place::fresh(bench, Kind::Postgres).await?;
    let mut inserts = None;
    if let Some(Database { url, .. }) = place.database() {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        sqlx::raw_sql(TABLE).execute(&mut connection).await?;
        connection.close().await?;
        let script = "insert into event (stream, version, type, payload, metadata) \
             values (gen_random_uuid(), 1, 'order.placed', :payload, :metadata);\n";
        let variables = [("payload", PAYLOAD), ("metadata", METADATA)];
        let (database, run) = (url.clone(), bench.scale.run);
        let raw = tokio::task::spawn_blocking(move || {
            postgres::pgbench(&database, script, &variables, clients, run)
        });
        inserts =
            Some(Inserts { pgbench: raw.await??, sqlx: through_sqlx(url, clients, run).await? });
    }
    place.remove().await?;
    inserts.ok_or_else(|| anyhow::anyhow!("there is no Postgres"))
}

async fn through_sqlx(url: &str, clients: usize, run: Duration) -> anyhow::Result<f64> {
    let size = u32::try_from(clients)?;
    let pool = PgPoolOptions::new().max_connections(size).test_before_acquire(false);
    let pool = pool.connect_with(url.parse::<PgConnectOptions>()?).await?;
    let watch = Stopwatch::start();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let pool = pool.clone();
        running.spawn(async move {
            let mut count = 0;
            while watch.elapsed() < run {
                sqlx::query(
                    "insert into event (stream, version, type, payload, metadata) values \
                     (gen_random_uuid(), 1, 'order.placed', cast($1 as jsonb), cast($2 as jsonb))",
                )
                .bind(PAYLOAD)
                .bind(METADATA)
                .execute(&pool)
                .await?;
                count += 1;
            }
            Ok::<usize, sqlx::Error>(count)
        });
    }
    let counts: Result<Vec<usize>, _> = running.join_all().await.into_iter().collect();
    let elapsed = watch.elapsed();
    pool.close().await;
    Ok(number(counts?.into_iter().sum()) / elapsed.as_secs_f64())
}

/// One event per transaction on SQLite, each on the disk before the next.
pub(crate) async fn on_sqlite(bench: &Bench) -> anyhow::Result<Raw> {
    let place = Place::fresh(bench, Kind::Sqlite).await?;
    let file = place.file("raw").unwrap_or_default();
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let mut connection = SqliteConnection::connect(&url).await?;
    sqlx::raw_sql(
        "pragma journal_mode = wal; pragma synchronous = full; \
         create table event (position integer primary key, stream text not null, \
         version integer not null, type text not null, payload text not null, \
         metadata text not null, recorded_at integer not null, unique (stream, version))",
    )
    .execute(&mut connection)
    .await?;
    let mut times = Latencies::new()?;
    let (watch, run) = (Stopwatch::start(), bench.scale.run);
    let mut count = 0;
    while watch.elapsed() < run {
        let began = Stopwatch::start();
        sqlx::query(
            "insert into event (stream, version, type, payload, metadata, recorded_at) \
             values (hex(randomblob(16)), 1, 'order.placed', $1, $2, 0)",
        )
        .bind(PAYLOAD)
        .bind(METADATA)
        .execute(&mut connection)
        .await?;
        times.record(u64::try_from(began.elapsed().as_micros())?);
        count += 1;
    }
    let rate = number(count) / watch.elapsed().as_secs_f64();
    connection.close().await?;
    place.remove().await?;
    Ok(Raw { rate, times: Some(times) })
}
