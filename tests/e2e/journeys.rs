//! The ways of an order, each to its end.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, Kind, Options, PATIENCE, Stack, World, make, until};

on_every_deployment!(
    an_order_that_can_be_met_is_completed,
    without_stock_an_order_is_rejected_and_its_money_comes_back,
    without_money_an_order_is_rejected_and_its_stock_comes_back,
    without_stock_and_money_the_first_no_rejects_an_order,
    an_order_of_an_unknown_customer_is_taken_and_then_rejected,
    an_order_in_another_currency_than_the_wallet_is_rejected,
    a_placed_order_is_cancelled_at_once_and_late_answers_are_settled,
    a_cancel_while_packing_is_a_request_that_logistics_grants,
    a_cancel_in_a_race_with_dispatch_ends_in_all_or_nothing,
    an_order_that_waits_for_money_too_long_expires,
    an_order_that_waits_for_stock_too_long_expires,
    a_parcel_that_fails_is_refunded_and_returned,
    a_parcel_of_a_manual_carrier_moves_by_its_reports_only,
);

/// One product at 2.50 of which there are 10, and Ada with 20.00.
async fn tea_and_ada(client: &Client) -> String {
    client.product("TEA", 250, 10).await;
    client.user(2_000).await
}

/// Everything is as [`tea_and_ada`] left it.
async fn all_is_back(client: &Client, ada: &str) {
    client.quiet().await;
    assert_eq!(client.stock("TEA").await, (10, 0));
    assert_eq!(client.balance(ada).await, (2_000, 0));
}

fn codes(order: &Value) -> Vec<&str> {
    let reasons = order["reasons"].as_array().expect("reasons");
    reasons.iter().map(|reason| reason["code"].as_str().expect("a code")).collect()
}

/// Checks an order's history: exactly these events (with `optional` ones as they may have come),
/// each once, and each after what caused it. Ends in the given order of events of its own stream.
async fn history_is(client: &Client, order_id: &str, required: &[&str], optional: &[&str]) {
    let history = client.get(&format!("/v1/audit/orders/{order_id}")).await.expect(200).body;
    let timeline = history["timeline"].as_array().expect("a timeline");
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut steps = Vec::new();
    let mut last = 0;
    for item in timeline {
        let (position, event) = (item["position"].as_u64().expect("a position"), &item["event"]);
        assert!(position > last, "positions grow: {history:#}");
        last = position;
        assert_eq!(event["correlationid"], *order_id, "{event:#}");
        let cause = event["causationid"].as_str().expect("a cause");
        let by_command = matches!(
            event["type"].as_str().expect("a type"),
            "order.placed" | "order.cancelled" | "order.cancel_requested"
        ) || event["actor"] == "http";
        assert!(by_command || seen.contains_key(cause), "a cause comes first: {event:#}");
        let id = event["id"].as_str().expect("an id");
        assert!(seen.insert(id, position).is_none(), "{id} is there twice");
        steps.push(step(event));
    }
    let mut expected: Vec<String> = required.iter().map(|&step| step.to_owned()).collect();
    expected.extend(steps.iter().filter(|step| optional.contains(&step.as_str())).cloned());
    expected.sort();
    steps.sort();
    assert_eq!(steps, expected, "{history:#}");
    let nodes = history["graph"]["nodes"].as_array().expect("nodes").len();
    assert_eq!(nodes, timeline.len());
}

/// An event's name, and of what users are told also about what.
fn step(event: &Value) -> String {
    let name = event["type"].as_str().expect("a type");
    match event["data"]["kind"].as_str() {
        Some(kind) => format!("{name} {kind}"),
        None => name.to_owned(),
    }
}

const COMPLETED: [&str; 15] = [
    "order.placed",
    "stock.reserved",
    "payment.authorized",
    "order.confirmed",
    "user.notified confirmed",
    "shipment.created",
    "shipment.dispatched",
    "order.dispatched",
    "stock.shipped",
    "payment.captured",
    "user.notified dispatched",
    "shipment.delivered",
    "order.delivered",
    "user.notified delivered",
    "order.completed",
];
/// One of them comes first.
const FIRST_YES: [&str; 2] = ["order.stock_secured", "order.payment_secured"];

async fn an_order_that_can_be_met_is_completed(kind: Kind) {
    let stack = Stack::with(kind, Options::default().transit("200ms")).await;
    let ada = tea_and_ada(&stack).await;
    stack.product("CUP", 400, 5).await;
    let placed = make::order(&ada, &[("TEA", 3), ("CUP", 1)]);
    let placed = stack.post("/v1/orders", &placed).await.expect(201);
    let id = placed.body["id"].as_str().expect("an id");
    assert_eq!(placed.header("location"), format!("/v1/orders/{id}"));
    assert_eq!(placed.body["status"], "placed");
    assert_eq!(placed.body["total"], make::euros(1_150));
    assert_eq!(placed.body["shipment"], Value::Null);

    let order = stack.until_status(id, "completed").await;
    assert_eq!(order["number"], placed.body["number"]);
    assert_eq!(order["reasons"], json!([]));
    let shipments = stack.get(&format!("/v1/shipments?order_id={id}")).await.expect(200);
    let [shipment] = shipments.items() else { panic!("one parcel: {shipments:?}") };
    assert_eq!(shipment["status"], "delivered");
    for part in ["id", "carrier", "tracking_number"] {
        assert_eq!(order["shipment"][part], shipment[part], "{part}");
    }

    stack.quiet().await;
    assert_eq!(stack.stock("TEA").await, (7, 0));
    assert_eq!(stack.stock("CUP").await, (4, 0));
    assert_eq!(stack.balance(&ada).await, (2_000 - 1_150, 0));
    assert_eq!(stack.told(&ada, id).await, ["confirmed", "dispatched", "delivered"]);
    let required = [&COMPLETED[..], &["shipment.in_transit"]].concat();
    history_is(&stack, id, &required, &FIRST_YES).await;
    first_yes_is_one(&stack, id).await;
    every_event_names(&stack, id, &shipment["id"]).await;
    stack.ends_well().await;
}

async fn every_event_names(client: &Client, order_id: &str, shipment_id: &Value) {
    let events = client.all(&format!("/v1/audit/events?order_id={order_id}")).await;
    let named: Vec<&Value> =
        events.iter().filter_map(|item| item["event"]["data"].get("shipment_id")).collect();
    // Created, dispatched (by logistics and by order), in transit, delivered.
    assert_eq!(named.len(), 5);
    assert!(named.iter().all(|named| *named == shipment_id), "{named:?} are not {shipment_id}");
}

async fn first_yes_is_one(client: &Client, order_id: &str) {
    let path = format!("/v1/audit/events?stream=order-{order_id}");
    let events = client.all(&path).await;
    let of_type = |name: &&str| events.iter().any(|item| item["event"]["type"] == **name);
    assert_eq!(FIRST_YES.iter().filter(|name| of_type(name)).count(), 1);
}

async fn without_stock_an_order_is_rejected_and_its_money_comes_back(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = stack.user(10_000).await;
    stack.product("TEA", 250, 10).await;
    stack.product("CUP", 400, 5).await;
    let id = stack.order(&ada, &[("CUP", 5), ("TEA", 11)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "rejected");
    assert_eq!(codes(&order), ["out_of_stock"]);
    assert_eq!(order["reasons"][0]["detail"], "TEA: 11 ordered, 10 available");
    stack.quiet().await;
    // All lines or none: the cups that were there are not set aside either.
    assert_eq!(stack.stock("TEA").await, (10, 0));
    assert_eq!(stack.stock("CUP").await, (5, 0));
    assert_eq!(stack.balance(&ada).await, (10_000, 0));
    assert_eq!(stack.told(&ada, &id).await, ["rejected"]);
    let required = [
        "order.placed",
        "stock.rejected",
        "payment.authorized",
        "order.rejected",
        "payment.released",
        "user.notified rejected",
    ];
    history_is(&stack, &id, &required, &["order.payment_secured"]).await;
    stack.ends_well().await;
}

async fn without_money_an_order_is_rejected_and_its_stock_comes_back(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = tea_and_ada(&stack).await;
    let id = stack.order(&ada, &[("TEA", 9)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "rejected");
    assert_eq!(codes(&order), ["insufficient_funds"]);
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.told(&ada, &id).await, ["rejected"]);
    let required = [
        "order.placed",
        "stock.reserved",
        "payment.declined",
        "order.rejected",
        "stock.released",
        "user.notified rejected",
    ];
    history_is(&stack, &id, &required, &["order.stock_secured"]).await;
    stack.ends_well().await;
}

async fn without_stock_and_money_the_first_no_rejects_an_order(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = tea_and_ada(&stack).await;
    let id = stack.order(&ada, &[("TEA", 11)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "rejected");
    let reasons = codes(&order);
    assert!(matches!(reasons[..], ["out_of_stock" | "insufficient_funds"]), "{reasons:?}");
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.told(&ada, &id).await, ["rejected"]);
    let required = [
        "order.placed",
        "stock.rejected",
        "payment.declined",
        "order.rejected",
        "user.notified rejected",
    ];
    history_is(&stack, &id, &required, &[]).await;
    stack.ends_well().await;
}

async fn an_order_of_an_unknown_customer_is_taken_and_then_rejected(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = tea_and_ada(&stack).await;
    let nobody = "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
    let id = stack.order(nobody, &[("TEA", 1)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "rejected");
    assert_eq!(codes(&order), ["unknown_customer"]);
    all_is_back(&stack, &ada).await;
    let required =
        ["order.placed", "stock.reserved", "payment.declined", "order.rejected", "stock.released"];
    history_is(&stack, &id, &required, &["order.stock_secured"]).await;
    stack.ends_well().await;
}

async fn an_order_in_another_currency_than_the_wallet_is_rejected(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = tea_and_ada(&stack).await;
    let grace = json!({ "name": "Grace", "email": "grace@example.com", "currency": "USD" });
    let grace = stack.post("/v1/users", &grace).await.expect(201);
    let grace = grace.body["id"].as_str().expect("an id");
    let dollars = json!({ "amount": { "amount": 50_000, "currency": "USD" } });
    stack.post(&format!("/v1/users/{grace}/deposits"), &dollars).await.expect(200);
    let id = stack.order(grace, &[("TEA", 1)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "rejected");
    assert_eq!(codes(&order), ["currency_mismatch"]);
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.balance(grace).await, (50_000, 0));
    assert_eq!(stack.told(grace, &id).await, ["rejected"]);
    stack.ends_well().await;
}

/// Everything but one service, on the data of a server that had them all.
async fn without(stack: &mut Stack, absent: &str) {
    let all = ["order", "inventory", "logistics", "user", "audit"];
    let present: Vec<&str> = all.into_iter().filter(|service| *service != absent).collect();
    stack.stop().await;
    stack.options = stack.options.clone().services(&present);
    stack.restart().await;
}

/// The absent service too.
async fn with_all(stack: &mut Stack) {
    stack.stop().await;
    stack.options = stack.options.clone().services(&[]);
    stack.restart().await;
}

async fn a_placed_order_is_cancelled_at_once_and_late_answers_are_settled(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    let ada = tea_and_ada(&stack).await;
    without(&mut stack, "user").await;
    let id = stack.order(&ada, &[("TEA", 4)]).await;
    let path = format!("/v1/orders/{id}");
    stack.until(&path, "has its stock", |order| order["version"] == 2).await;
    assert_eq!(stack.stock("TEA").await, (10, 4));
    let cancel = format!("/v1/orders/{id}/cancel");
    let cancelled = stack.post(&cancel, &json!({ "reason": "changed my mind" })).await.expect(200);
    assert_eq!(cancelled.body["status"], "cancelled");
    assert_eq!(codes(&cancelled.body), ["customer"]);
    assert_eq!(cancelled.body["reasons"][0]["detail"], "changed my mind");
    stack.post(&cancel, &json!({})).await.expect(409);
    stack.until("/v1/products/TEA", "is free again", |product| product["reserved"] == 0).await;

    with_all(&mut stack).await;
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.told(&ada, &id).await, ["cancelled"]);
    let required = [
        "order.placed",
        "stock.reserved",
        "order.stock_secured",
        "order.cancelled",
        "stock.released",
        "payment.authorized",
        "payment.released",
        "user.notified cancelled",
    ];
    history_is(&stack, &id, &required, &[]).await;
    stack.ends_well().await;
}

async fn a_cancel_while_packing_is_a_request_that_logistics_grants(kind: Kind) {
    let options = Options::default().packing("60s").manual_carrier();
    let stack = Stack::with(kind, options).await;
    let ada = tea_and_ada(&stack).await;
    let id = stack.order(&ada, &[("TEA", 4)]).await;
    stack.until_status(&id, "confirmed").await;
    let shipments = format!("/v1/shipments?order_id={id}");
    until("the parcel is being packed", PATIENCE, async || {
        let shipments = stack.get(&shipments).await.expect(200);
        shipments.items().first().map(|shipment| assert_eq!(shipment["status"], "created"))
    })
    .await;
    assert_eq!(stack.stock("TEA").await, (10, 4));
    assert_eq!(stack.balance(&ada).await, (1_000, 1_000));

    let cancel = format!("/v1/orders/{id}/cancel");
    let asked = stack.post(&cancel, &json!({ "reason": "too late" })).await.expect(200);
    assert_eq!(asked.body["status"], "cancelling");
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "cancelled");
    assert_eq!(codes(&order), ["customer"]);
    assert_eq!(order["reasons"][0]["detail"], "too late");
    stack.post(&cancel, &json!({})).await.expect(409);
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.get(&shipments).await.expect(200).items()[0]["status"], "cancelled");
    assert_eq!(stack.told(&ada, &id).await, ["confirmed", "cancelled"]);
    let required = [
        "order.placed",
        "stock.reserved",
        "payment.authorized",
        "order.confirmed",
        "user.notified confirmed",
        "shipment.created",
        "order.cancel_requested",
        "shipment.cancelled",
        "order.cancelled",
        "stock.released",
        "payment.released",
        "user.notified cancelled",
    ];
    history_is(&stack, &id, &required, &FIRST_YES).await;
    stack.ends_well().await;
}

/// Cancels an order as soon as it is seen to be confirmed; what the cancel was answered.
async fn cancel_when_confirmed(client: Client, id: String) -> (String, u16) {
    let past_placing = |order: &Value| order["status"] != "placed";
    client.until(&format!("/v1/orders/{id}"), "is confirmed", past_placing).await;
    let cancel = client.ask(Method::POST, &format!("/v1/orders/{id}/cancel"));
    (id, cancel.send().await.status)
}

async fn a_cancel_in_a_race_with_dispatch_ends_in_all_or_nothing(kind: Kind) {
    let stack = Stack::with(kind, Options::default().transit("50ms")).await;
    let world = World::make(&stack, &[(100, 500)], &[50_000, 50_000]).await;
    let mut racing = JoinSet::new();
    for number in 0..40 {
        let (customer, _) = &world.customers[number % 2];
        let id = stack.order(customer, &[("P-0", 1)]).await;
        racing.spawn(cancel_when_confirmed(stack.client.clone(), id));
    }
    let answers = racing.join_all().await;
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), 40);
    let parcels = stack.all("/v1/shipments").await;
    let text = |parcel: &Value, part: &str| parcel[part].as_str().expect("a text").to_owned();
    let parcels: BTreeMap<String, String> =
        parcels.iter().map(|parcel| (text(parcel, "order_id"), text(parcel, "status"))).collect();
    let mut ends: BTreeMap<(u16, &str), usize> = BTreeMap::new();
    for (id, answer) in &answers {
        let end = orders[id]["status"].as_str().expect("a status");
        *ends.entry((*answer, end)).or_default() += 1;
        let possible =
            matches!((answer, end), (200, "cancelled" | "completed") | (409, "completed"));
        assert!(possible, "a cancel that was answered {answer} ended {end}");
        assert_eq!(parcels[id], if end == "completed" { "delivered" } else { "cancelled" });
        let told = stack.told(orders[id]["customer_id"].as_str().expect("an id"), id).await;
        let good: &[&[&str]] = match end {
            "cancelled" => &[&["confirmed", "cancelled"]],
            _ => &[&["confirmed", "dispatched", "delivered"]],
        };
        assert!(good.iter().any(|one| told == *one), "{end}: {told:?}");
    }
    eprintln!("{kind:?}: cancels in the race, by answer and end: {ends:?}");
    stack.ends_well().await;
}

async fn an_order_that_waits_for_money_too_long_expires(kind: Kind) {
    expires_without(kind, "user").await;
}

async fn an_order_that_waits_for_stock_too_long_expires(kind: Kind) {
    expires_without(kind, "inventory").await;
}

/// A service is away until the deadline has passed; what it answers late is settled.
async fn expires_without(kind: Kind, absent: &str) {
    let mut stack = Stack::with(kind, Options::default().deadline("1s")).await;
    let ada = tea_and_ada(&stack).await;
    without(&mut stack, absent).await;
    let id = stack.order(&ada, &[("TEA", 2)]).await;
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "cancelled");
    assert_eq!(codes(&order), ["expired"]);

    with_all(&mut stack).await;
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.told(&ada, &id).await, ["cancelled"]);
    let first_yes = if absent == "user" { FIRST_YES[0] } else { FIRST_YES[1] };
    let required = [
        "order.placed",
        "stock.reserved",
        "payment.authorized",
        "order.cancelled",
        "stock.released",
        "payment.released",
        "user.notified cancelled",
    ];
    history_is(&stack, &id, &required, &[first_yes]).await;
    stack.ends_well().await;
}

/// The parcel of an order that has left.
async fn dispatched(client: &Client, order_id: &str) -> String {
    let order = client.until_status(order_id, "dispatched").await;
    order["shipment"]["id"].as_str().expect("a parcel").to_owned()
}

async fn a_parcel_that_fails_is_refunded_and_returned(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    let ada = tea_and_ada(&stack).await;
    let id = stack.order(&ada, &[("TEA", 4)]).await;
    let shipment = dispatched(&stack, &id).await;
    stack.quiet().await;
    assert_eq!(stack.stock("TEA").await, (6, 0));
    assert_eq!(stack.balance(&ada).await, (1_000, 0));

    let tracking = format!("/v1/shipments/{shipment}/tracking");
    let failed = json!({ "status": "failed", "note": "lost at sea" });
    let failed = stack.post(&tracking, &failed).await.expect(200);
    assert_eq!(
        (&failed.body["status"], &failed.body["note"]),
        (&json!("failed"), &json!("lost at sea"))
    );
    let order = stack.until_ended(&id).await;
    assert_eq!(order["status"], "cancelled");
    assert_eq!(codes(&order), ["shipment_failed"]);
    assert_eq!(order["reasons"][0]["detail"], "lost at sea");
    all_is_back(&stack, &ada).await;
    assert_eq!(stack.told(&ada, &id).await, ["confirmed", "dispatched", "cancelled"]);
    let until_dispatched = &COMPLETED[..11];
    let then = [
        "shipment.failed",
        "order.cancelled",
        "stock.returned",
        "payment.refunded",
        "user.notified cancelled",
    ];
    history_is(&stack, &id, &[until_dispatched, &then].concat(), &FIRST_YES).await;
    stack.ends_well().await;
}

async fn a_parcel_of_a_manual_carrier_moves_by_its_reports_only(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    let ada = tea_and_ada(&stack).await;
    let id = stack.order(&ada, &[("TEA", 4)]).await;
    let shipment = dispatched(&stack, &id).await;
    stack.quiet().await;
    assert_eq!(stack.get(&format!("/v1/orders/{id}")).await.body["status"], "dispatched");

    let tracking = format!("/v1/shipments/{shipment}/tracking");
    for town in ["Calais", "Dover"] {
        let seen = json!({ "status": "in_transit", "location": town });
        let seen = stack.post(&tracking, &seen).await.expect(200);
        assert_eq!(seen.body["status"], "in_transit");
        assert_eq!(seen.body["location"], town);
    }
    stack.quiet().await;
    assert_eq!(stack.get(&format!("/v1/orders/{id}")).await.body["status"], "dispatched");
    stack.post(&format!("/v1/orders/{id}/cancel"), &json!({})).await.expect(409);
    stack.post(&tracking, &json!({ "status": "delivered" })).await.expect(200);
    stack.until_status(&id, "completed").await;
    stack.post(&tracking, &json!({ "status": "failed" })).await.expect(409);

    stack.quiet().await;
    assert_eq!(stack.stock("TEA").await, (6, 0));
    assert_eq!(stack.balance(&ada).await, (1_000, 0));
    assert_eq!(stack.told(&ada, &id).await, ["confirmed", "dispatched", "delivered"]);
    let required = [&COMPLETED[..], &["shipment.in_transit"; 2]].concat();
    history_is(&stack, &id, &required, &FIRST_YES).await;
    stack.ends_well().await;
}
