//! Many orders at once for what is not there for all of them.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::task::JoinSet;
use waybill_runtime::{Clock, Timestamp};

use crate::support::{Client, Kind, Stack, World};

on_every_deployment!(two_hundred_orders_over_scarce_stock_sell_what_there_is_and_no_more);

const ORDERS: usize = 200;
/// Each costs 1.00.
const PRODUCTS: [(i64, i64); 5] = [(100, 15); 5];

/// Every fourth of twenty customers can pay for three pieces only.
fn money(customer: usize) -> i64 {
    if customer.is_multiple_of(4) { 300 } else { 10_000 }
}

/// One or two products, one or two of each.
fn lines(world: &World, number: usize) -> Vec<(&str, i64)> {
    let sku = |number: usize| world.products[number % world.products.len()].0.as_str();
    let quantity = |odd: bool| if odd { 1 } else { 2 };
    let mut lines = vec![(sku(number), quantity(number.is_multiple_of(3)))];
    if number.is_multiple_of(2) {
        lines.push((sku(number / 2 + number + 1), quantity(number.is_multiple_of(5))));
    }
    lines.dedup_by_key(|line| line.0);
    lines
}

async fn two_hundred_orders_over_scarce_stock_sell_what_there_is_and_no_more(kind: Kind) {
    let stack = Stack::start(kind).await;
    let customers: Vec<i64> = (0..20).map(money).collect();
    let world = World::make(&stack, &PRODUCTS, &customers).await;
    let clock = Clock::system();
    let began = clock.now();
    let mut placing = JoinSet::new();
    for number in 0..ORDERS {
        let (client, world) = (stack.client.clone(), world.clone());
        placing.spawn(async move {
            let (customer, _) = &world.customers[number % world.customers.len()];
            client.order(customer, &lines(&world, number)).await
        });
    }
    let placed = placing.join_all().await;
    let all_placed = clock.now();
    for id in &placed {
        stack.until_ended(id).await;
    }
    let all_ended = clock.now();
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), ORDERS);
    assert!(placed.iter().all(|id| orders.contains_key(id)), "every answered order is there");
    let ends = each_end_has_its_reason(&orders, &world);
    let seconds = |from: Timestamp, to: Timestamp| to.since(from).as_secs_f64();
    eprintln!(
        "{kind:?}: {ORDERS} orders {ends:?}; {:.0} placed a second, {:.0} ended a second; {}",
        200.0 / seconds(began, all_placed),
        200.0 / seconds(began, all_ended),
        times_to_end(&orders),
    );
    told_of_its_end(&stack, &orders).await;
    stack.ends_well().await;
}

/// Counts the ends. Where little was left for anybody, somebody was refused for want of it.
fn each_end_has_its_reason(
    orders: &BTreeMap<String, Value>,
    world: &World,
) -> BTreeMap<String, usize> {
    let poor: Vec<&str> = world
        .customers
        .iter()
        .filter(|(_, money)| *money == 300)
        .map(|(id, _)| id.as_str())
        .collect();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for order in orders.values() {
        let status = order["status"].as_str().expect("a status");
        let reason = order["reasons"][0]["code"].as_str().unwrap_or_default();
        match (status, reason) {
            ("completed", "") | ("rejected", "out_of_stock") => {}
            ("rejected", "insufficient_funds") => {
                let customer = order["customer_id"].as_str().expect("a customer");
                assert!(poor.contains(&customer), "this customer can pay: {order:#}");
            }
            other => panic!("{other:?} is not an end of these orders: {order:#}"),
        }
        *ends.entry(format!("{status} {reason}").trim().to_owned()).or_default() += 1;
    }
    for end in ["completed", "rejected out_of_stock", "rejected insufficient_funds"] {
        assert!(ends.contains_key(end), "{ends:?}");
    }
    ends
}

/// The median and the longest time from placed to the last change.
fn times_to_end(orders: &BTreeMap<String, Value>) -> String {
    let time = |order: &Value, name: &str| {
        Timestamp::parse(order[name].as_str().expect("a time")).expect("RFC 3339")
    };
    let completed = orders.values().filter(|order| order["status"] == "completed");
    let mut times: Vec<f64> = completed
        .map(|order| time(order, "updated_at").since(time(order, "placed_at")).as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    format!("placed to completed {:.0} ms median, {:.0} ms longest", median * 1e3, longest * 1e3)
}

async fn told_of_its_end(client: &Client, orders: &BTreeMap<String, Value>) {
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for order in orders.values() {
        let customer = order["customer_id"].as_str().expect("a customer").to_owned();
        if !told.contains_key(&customer) {
            let path = format!("/v1/users/{customer}/notifications");
            told.insert(customer.clone(), client.all(&path).await);
        }
        let mine = told[&customer].iter().filter(|one| one["order_id"] == order["id"]);
        let mut kinds: Vec<&str> = mine.map(|one| one["kind"].as_str().expect("a kind")).collect();
        kinds.reverse();
        let good: &[&str] = match order["status"].as_str() {
            Some("completed") => &["confirmed", "dispatched", "delivered"],
            _ => &["rejected"],
        };
        assert_eq!(kinds, good, "{order:#}");
    }
}
