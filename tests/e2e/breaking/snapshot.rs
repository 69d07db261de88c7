//! A snapshot that is held open beside full load, as `pg_dump` holds one: it slows nobody down.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AnyConnection, Connection as _};
use waybill_runtime::Timestamp;

use super::share::is_long;
use super::tally;
use crate::load::{Answered, Load, each_exists_once};
use crate::support::{Kind, Stack, World};

breaking_both!(a_snapshot_that_is_held_open_slows_nobody_down);

const CLIENTS: usize = 6;
/// How long a client waits before its next order where delays are measured.
const UNHURRIED: Duration = Duration::from_secs(1);
/// How long both are at work before they are compared.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long both are compared before there is a snapshot, and again when it is gone: even then one is
/// some percent ahead of the other.
const WITHOUT: Duration = Duration::from_secs(20);
/// How long it is held open in a long run, and in another.
const HELD_LONG: Duration = Duration::from_mins(10);
const HELD: Duration = Duration::from_secs(50);
/// What the snapshot may cost.
const LEAST_CAPACITY: f64 = 0.9;
const MOST_DELAY: f64 = 0.050;
/// By which part of itself a delay differs between two houses on a busy machine.
const NOISE: f64 = 0.1;
const OWNERS: [&str; 5] = ["order", "inventory", "logistics", "user", "event_store"];

/// Two houses at work at the same moments, so that whatever else the machine does slows both; only
/// beside the first is a snapshot held.
struct Pair([House; 2]);

struct House {
    stack: Stack,
    world: World,
    answered: Vec<Answered>,
}

impl House {
    async fn open(kind: Kind) -> Self {
        let stack = Stack::start(kind).await;
        let products = [(100, 1_000_000), (250, 1_000_000)];
        let world = World::make(&stack, &products, &[1_000_000_000; 4]).await;
        Self { stack, world, answered: Vec::new() }
    }

    /// Every order, all of which are well.
    async fn orders(&self) -> BTreeMap<String, Value> {
        let orders = self.world.balances(&self.stack).await;
        assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough");
        each_exists_once(&self.stack, &self.answered, &orders).await;
        orders
    }
}

impl Pair {
    /// Orders that each house answered within this time, given at this pace.
    async fn at_work(&mut self, time: Duration, pause: Duration) -> [usize; 2] {
        let loads =
            self.0.each_ref().map(|house| Load::steady(&house.stack, &house.world, CLIENTS, pause));
        tokio::time::sleep(time).await;
        let answered = loads.each_ref().map(Load::answers);
        for (house, load) in self.0.iter_mut().zip(loads) {
            house.answered.extend(load.stop().await);
            house.stack.quiet().await;
        }
        answered
    }
}

/// One moment of everything that a house has, as a backup keeps it open.
async fn snapshot(stack: &Stack, kind: Kind) -> Vec<AnyConnection> {
    let mut connections = Vec::new();
    for owner in OWNERS {
        let (url, begin) = match kind {
            Kind::Postgres => (
                stack.store().database().0.to_owned(),
                "begin isolation level repeatable read read only",
            ),
            _ => (format!("sqlite://{}/{owner}.db", stack.store().folder().display()), "begin"),
        };
        let mut connection = AnyConnection::connect(&url).await.expect("the database answers");
        sqlx::raw_sql(begin).execute(&mut connection).await.expect("a transaction begins");
        let path = if kind == Kind::Postgres { format!("\"{owner}\".") } else { String::new() };
        let look = sqlx::AssertSqlSafe(format!("select owner from {path}turn"));
        sqlx::raw_sql(look).execute(&mut connection).await.expect("a row");
        connections.push(connection);
    }
    connections
}

async fn a_snapshot_that_is_held_open_slows_nobody_down(kind: Kind) {
    let held = if is_long() { HELD_LONG } else { HELD };
    let mut pair = Pair([House::open(kind).await, House::open(kind).await]);
    pair.at_work(WARM_UP, Duration::ZERO).await;
    let before = ratio(pair.at_work(WITHOUT, Duration::ZERO).await);
    let snapshot = snapshot(&pair.0[0].stack, kind).await;
    let known = pair.0.each_ref().map(|house| house.answered.len());
    pair.at_work(held / 2, UNHURRIED).await;
    let unhurried = pair.0.each_ref().map(|house| house.answered.len());
    let answered = pair.at_work(held / 2, Duration::ZERO).await;
    for connection in snapshot {
        connection.close().await.expect("nobody has ended it");
    }
    let after = ratio(pair.at_work(WITHOUT, Duration::ZERO).await);
    let capacity = ratio(answered) / (before * after).sqrt();
    let mut delays = [0.0; 2];
    for (index, house) in pair.0.iter().enumerate() {
        let orders = house.orders().await;
        delays[index] = delay(&house.answered[known[index]..unhurried[index]], &orders);
    }
    let added = delays[0] - delays[1];
    eprintln!(
        "{kind:?}: a snapshot held for {} s: {:.0} % of the capacity ({answered:?} orders, beside \
         {:.0} % before and {:.0} % after it); placed to completed {:.0} ms, without it {:.0} ms \
         (medians)",
        held.as_secs(),
        capacity * 100.0,
        before * 100.0,
        after * 100.0,
        delays[0] * 1e3,
        delays[1] * 1e3,
    );
    tally::count(kind, &format!("snapshot held for {} s", held.as_secs()), 1);
    assert!(capacity >= LEAST_CAPACITY, "{:.0} % of the capacity is left", capacity * 100.0);
    assert!(added <= MOST_DELAY + NOISE * delays[1], "it adds {:.0} ms", added * 1e3);
    for House { stack, .. } in pair.0 {
        stack.ends_well().await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "these are some thousands")]
fn ratio([beside, alone]: [usize; 2]) -> f64 {
    beside as f64 / alone as f64
}

/// The median of the seconds from placed to completed.
fn delay(answered: &[Answered], orders: &BTreeMap<String, Value>) -> f64 {
    let mut delays: Vec<f64> = answered.iter().map(|one| seconds(&orders[id(one)])).collect();
    delays.sort_by(f64::total_cmp);
    delays[delays.len() / 2]
}

fn id(answered: &Answered) -> &str {
    answered.order["id"].as_str().expect("an id")
}

fn seconds(order: &Value) -> f64 {
    let time =
        |name: &str| Timestamp::parse(order[name].as_str().expect("a time")).expect("RFC 3339");
    time("updated_at").since(time("placed_at")).as_secs_f64()
}
