//! A pipeline as a competent team writes it in a week: four services with a schema each, one
//! transaction of five round trips per event, outboxes that relays poll, no batches of effects.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use waybill_runtime::Ids;

use crate::bench::Bench;
use crate::figure::number;
use crate::place::{Database, Kind, Place};
use crate::stopwatch::Stopwatch;

const CONNECTIONS: u32 = 32;
/// Clients that place orders.
const CLIENTS: usize = 32;
/// Orders on their way at a time.
const IN_FLIGHT: usize = 512;
/// Events that a relay takes at a time, and handles at a time.
const PAGE: i64 = 100;
const HANDLERS: usize = 8;
/// What a relay that found nothing waits for.
const POLL: Duration = Duration::from_millis(10);
const PAYLOAD: &str = r#"{"customer":"ada","lines":[{"sku":"TEA-500","quantity":2,"price":1290},{"sku":"CUP-BLUE","quantity":1,"price":890}],"total":3470,"ship_to":{"line1":"12 St James's Square","city":"London","country":"GB"}}"#;

/// The statements of one service.
#[derive(Debug)]
struct Stage {
    inbox: &'static str,
    state: &'static str,
    outbox: &'static str,
    page: &'static str,
    published: &'static str,
}

macro_rules! stage {
    ($schema:literal) => {
        Stage {
            inbox: concat!(
                "insert into ",
                $schema,
                ".inbox (event_id) values ($1) on conflict do nothing"
            ),
            state: concat!(
                "insert into ",
                $schema,
                ".state (order_id, status, payload) values ($1, 'done', $2) \
                 on conflict (order_id) do update set status = excluded.status, \
                 updated_at = now()"
            ),
            outbox: concat!(
                "insert into ",
                $schema,
                ".outbox (event_id, order_id, payload) values ($1, $2, $3)"
            ),
            page: concat!(
                "select event_id, order_id, payload from ",
                $schema,
                ".outbox where not published \
                 order by id limit $1 for update skip locked"
            ),
            published: concat!(
                "update ",
                $schema,
                ".outbox set published = true where event_id = any($1)"
            ),
        }
    };
}

static STAGES: [Stage; 4] =
    [stage!("naive_1"), stage!("naive_2"), stage!("naive_3"), stage!("naive_4")];

const TABLES: &str = "do $$ begin for n in 1 .. 4 loop \
     execute format('create schema naive_%s', n); \
     execute format('create table naive_%s.inbox (event_id text primary key)', n); \
     execute format('create table naive_%s.state (order_id text primary key, status text not null, \
         payload text not null, updated_at timestamptz not null default now())', n); \
     execute format('create table naive_%s.outbox (id bigserial primary key, \
         event_id text not null unique, order_id text not null, payload text not null, \
         published boolean not null default false)', n); \
     execute format('create index on naive_%s.outbox (id) where not published', n); \
     end loop; end $$";

/// Events per second, one for each service that an order passes.
pub(crate) async fn events_per_second(bench: &Bench) -> anyhow::Result<f64> {
    let place = Place::fresh(bench, Kind::Postgres).await?;
    let Some(Database { url, .. }) = place.database() else { anyhow::bail!("no Postgres") };
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let orders = bench.scale.orders_naive;
    let (in_flight, ended) = (Arc::new(Semaphore::new(IN_FLIGHT)), CancellationToken::new());
    let watch = Stopwatch::start();
    let mut relays = JoinSet::new();
    for (next, (from, to)) in STAGES.iter().zip(&STAGES[1..]).enumerate() {
        let is_last = next + 2 == STAGES.len();
        let done = is_last.then(|| Arc::clone(&in_flight));
        relays.spawn(relay(pool.clone(), from, to, done, ended.clone()));
    }
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let share = orders / CLIENTS + usize::from(number < orders % CLIENTS);
        clients.spawn(place_orders(pool.clone(), share, Arc::clone(&in_flight)));
    }
    for placed in clients.join_all().await {
        placed?;
    }
    // All are back when no order is on its way any more.
    drop(in_flight.acquire_many(u32::try_from(IN_FLIGHT)?).await?);
    let seconds = watch.elapsed().as_secs_f64();
    ended.cancel();
    for relayed in relays.join_all().await {
        relayed?;
    }
    pool.close().await;
    place.remove().await?;
    Ok(number(orders * STAGES.len()) / seconds)
}

async fn place_orders(
    pool: PgPool,
    orders: usize,
    in_flight: Arc<Semaphore>,
) -> anyhow::Result<()> {
    let ids = Ids::system();
    for _ in 0..orders {
        in_flight.acquire().await?.forget();
        let (event, order) = (ids.next().to_string(), ids.next().to_string());
        handle(&pool, &STAGES[0], &event, &order, PAYLOAD).await?;
    }
    Ok(())
}

/// Hands what one service said to the next, until it is told to end.
async fn relay(
    pool: PgPool,
    from: &'static Stage,
    to: &'static Stage,
    done: Option<Arc<Semaphore>>,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    while !ended.is_cancelled() {
        let mut marking = pool.begin().await?;
        let page: Vec<(String, String, String)> =
            sqlx::query_as(from.page).bind(PAGE).fetch_all(&mut *marking).await?;
        if page.is_empty() {
            marking.rollback().await?;
            tokio::time::sleep(POLL).await;
            continue;
        }
        let events: Vec<String> = page.iter().map(|(event, ..)| event.clone()).collect();
        let count = page.len();
        let mut handlers = JoinSet::new();
        for part in page.chunks(count.div_ceil(HANDLERS)) {
            handlers.spawn(handle_all(pool.clone(), to, part.to_vec()));
        }
        for handled in handlers.join_all().await {
            handled?;
        }
        sqlx::query(from.published).bind(&events).execute(&mut *marking).await?;
        marking.commit().await?;
        if let Some(in_flight) = &done {
            in_flight.add_permits(count);
        }
    }
    Ok(())
}

async fn handle_all(
    pool: PgPool,
    stage: &'static Stage,
    events: Vec<(String, String, String)>,
) -> anyhow::Result<()> {
    for (event, order, payload) in events {
        handle(&pool, stage, &event, &order, &payload).await?;
    }
    Ok(())
}

/// One event: marked as seen, its effect, and what follows, in a transaction.
async fn handle(
    pool: &PgPool,
    stage: &Stage,
    event: &str,
    order: &str,
    payload: &str,
) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let seen = sqlx::query(stage.inbox).bind(event).execute(&mut *transaction).await?;
    if seen.rows_affected() == 0 {
        return Ok(transaction.rollback().await?);
    }
    sqlx::query(stage.state).bind(order).bind(payload).execute(&mut *transaction).await?;
    let next = Ids::system().next().to_string();
    let outbox = sqlx::query(stage.outbox).bind(next).bind(order).bind(payload);
    outbox.execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
