//! What happened, what led to what, and how an order stood at any moment.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Kind, Options, Stack, make};

on_every_deployment!(
    events_are_found_by_each_of_their_properties,
    events_are_paged_exactly_once_in_both_directions_while_more_come,
    an_event_is_a_cloud_event_and_can_be_read_by_its_id,
    a_history_is_all_that_followed_from_an_order_and_what_led_to_what,
    an_order_can_be_seen_as_it_stood_at_every_position_and_time,
    products_and_users_are_correlated_by_their_own_first_event,
);

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn text<'a>(item: &'a Value, pointer: &str) -> &'a str {
    item.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn position(item: &Value) -> i64 {
    item["position"].as_i64().unwrap()
}

/// A server on which two orders came to their end and one was rejected.
async fn with_three_orders(kind: Kind) -> (Stack, [String; 3]) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let mut orders = [const { String::new() }; 3];
    for (order, quantity) in orders.iter_mut().zip([1, 2, 90]) {
        *order = stack.order(&ada, &[("TEA", quantity)]).await;
        stack.until_ended(order).await;
    }
    stack.quiet().await;
    (stack, orders)
}

async fn events_are_found_by_each_of_their_properties(kind: Kind) {
    let (stack, [order, other, _]) = with_three_orders(kind).await;
    let all = stack.all("/v1/audit/events").await;
    assert!(all.iter().map(position).eq(1..=i64::try_from(all.len()).unwrap()));
    assert!(all.is_sorted_by_key(|item| text(item, "/recorded_at")), "times never decrease");

    let stream = format!("order-{order}");
    let time = text(&all[all.len() / 2], "/recorded_at").to_owned();
    let of_order = |item: &Value| text(item, "/event/correlationid") == order;
    let check = async |query: &str, fits: &dyn Fn(&Value) -> bool| {
        let expected: Vec<Value> = all.iter().filter(|item| fits(item)).cloned().collect();
        let found = stack.all(&format!("/v1/audit/events?{query}")).await;
        assert_eq!(found, expected, "{query}");
        let reversed = stack.all(&format!("/v1/audit/events?direction=desc&{query}")).await;
        assert!(reversed.iter().rev().eq(&expected), "desc {query}");
        found.len()
    };
    assert!(check(&format!("order_id={order}"), &of_order).await > 10);
    assert!(check(&format!("correlation_id={order}"), &of_order).await > 10);
    assert!(check(&format!("order_id={order}&correlation_id={order}"), &of_order).await > 10);
    let in_stream = |item: &Value| text(item, "/event/subject") == stream;
    assert_eq!(check(&format!("stream={stream}"), &in_stream).await, 6);
    let placed = |item: &Value| text(item, "/event/type") == "order.placed";
    assert_eq!(check("type=order.placed", &placed).await, 3);
    let by_user = |item: &Value| text(item, "/event/source") == "/services/user";
    assert!(check("source=/services/user", &by_user).await > 5);
    assert!(check("source=user", &by_user).await > 5);
    let since = |item: &Value| text(item, "/recorded_at") >= time.as_str();
    assert!(check(&format!("since={time}"), &since).await > 5);
    let until = |item: &Value| text(item, "/recorded_at") <= time.as_str();
    assert!(check(&format!("until={time}"), &until).await > 5);
    let then = |item: &Value| text(item, "/recorded_at") == time.as_str();
    assert!(check(&format!("since={time}&until={time}"), &then).await > 0);
    let elsewhere = time.replace('Z', "%2B00:00");
    assert!(check(&format!("until={elsewhere}"), &until).await > 5);
    let after = |item: &Value| position(item) > 9;
    assert_eq!(check("after=9", &after).await, all.len() - 9);
    assert_eq!(check("after=0", &|_| true).await, all.len());
    let several = |item: &Value| of_order(item) && by_user(item) && position(item) > 9;
    assert!(check(&format!("order_id={order}&source=user&after=9"), &several).await > 1);
    let of_both = format!("order_id={order}&correlation_id={other}");
    for nothing in ["type=order", "stream=order", "source=audit", "after=99999999", &of_both] {
        assert_eq!(check(nothing, &|_| false).await, 0);
    }
    assert_eq!(check("since=2999-01-01T00:00:00Z", &|_| false).await, 0);
    assert_eq!(check("until=2001-01-01T00:00:00Z", &|_| false).await, 0);
    stack.ends_well().await;
}

async fn walk(client: &Client, query: &str, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/audit/events?limit=7&{query}{cursor}");
        let page = client.get(&path).await.expect(200);
        assert!(page.items().len() <= 7);
        items.extend_from_slice(page.items());
        between().await;
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

async fn events_are_paged_exactly_once_in_both_directions_while_more_come(kind: Kind) {
    let (stack, [order, ..]) = with_three_orders(kind).await;
    let nothing = async || {};
    for query in [String::new(), format!("order_id={order}"), "source=user&after=3".to_owned()] {
        let all = stack.all(&format!("/v1/audit/events?{query}")).await;
        assert!(all.len() > 7, "more than a page");
        assert_eq!(walk(&stack, &query, nothing).await, all, "{query}");
        let descending = walk(&stack, &format!("direction=desc&{query}"), nothing).await;
        assert!(descending.iter().rev().eq(&all), "{query}");
    }
    let before = stack.all("/v1/audit/events").await;
    let grow = async || drop(stack.user(0).await);
    let descending = walk(&stack, "direction=desc", grow).await;
    assert!(descending.iter().rev().eq(&before), "what is new comes before the first page");
    let mut left = 3;
    let grow = async || {
        if left > 0 {
            left -= 1;
            stack.user(0).await;
        }
    };
    let ascending = walk(&stack, "", grow).await;
    let count = i64::try_from(ascending.len()).unwrap();
    assert!(ascending.iter().map(position).eq(1..=count), "each once, in order");
    assert!(ascending.len() > before.len(), "what is new comes at the end");
    stack.ends_well().await;
}

/// What every event has, besides `traceparent` where the request had one.
const ATTRIBUTES: [&str; 13] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "streamversion",
    "correlationid",
    "causationid",
    "actor",
];

async fn an_event_is_a_cloud_event_and_can_be_read_by_its_id(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let body = make::order(&ada, &[("TEA", 2)]);
    let place = async |trace: &str| {
        let ask = stack.ask(Method::POST, "/v1/orders").header("traceparent", trace).json(&body);
        ask.send().await.expect(201).body
    };
    let traced = place(TRACE).await;
    let untraced = place("00-malformed").await;
    for order in [&traced, &untraced] {
        stack.until_status(order["id"].as_str().unwrap(), "completed").await;
    }
    stack.quiet().await;
    let mut ids = BTreeSet::new();
    for item in stack.all("/v1/audit/events").await {
        let event = &item["event"];
        let mut names: BTreeSet<&str> =
            event.as_object().unwrap().keys().map(String::as_str).collect();
        let followed = event["correlationid"] == traced["id"];
        assert_eq!(names.remove("traceparent"), followed, "{event}");
        assert!(!followed || event["traceparent"] == TRACE, "{event}");
        assert_eq!(names, ATTRIBUTES.into_iter().collect(), "{event}");
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["datacontenttype"], "application/json");
        let id = uuid::Uuid::parse_str(text(event, "/id")).unwrap();
        assert_eq!(id.get_version_num(), 7);
        let service = text(event, "/source").strip_prefix("/services/").unwrap();
        assert!(["order", "inventory", "logistics", "user"].contains(&service), "{event}");
        let schema = text(event, "/dataschema");
        assert!(schema.contains(text(event, "/type")) && schema.ends_with(":1"), "{event}");
        assert!(text(event, "/time").ends_with('Z') && event["data"].is_object(), "{event}");
        assert!(event["streamversion"].as_i64().unwrap() >= 1, "{event}");
        assert!(!text(event, "/actor").is_empty() && !text(event, "/causationid").is_empty());
        assert!(ids.insert(id), "{event}");
        let alone = stack.get(&format!("/v1/audit/events/{id}")).await.expect(200);
        assert_eq!(alone.body, item);
    }
    let path = format!("/v1/audit/events?stream=order-{}", text(&traced, "/id"));
    let own = stack.all(&path).await;
    assert!(own.iter().map(|item| item["event"]["streamversion"].as_i64().unwrap()).eq(1..=6));
    let placed = &own[0]["event"];
    assert_eq!(placed["subject"], format!("order-{}", text(&traced, "/id")));
    assert_eq!((&placed["type"], &placed["actor"]), (&json!("order.placed"), &json!("http")));
    for field in ["number", "customer_id", "lines", "total", "ship_to"] {
        assert_eq!(placed["data"][field], traced[field], "{field}");
    }
    stack.ends_well().await;
}

async fn a_history_is_all_that_followed_from_an_order_and_what_led_to_what(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let order = stack.order(&ada, &[("TEA", 2)]).await;
    let sent = stack.until_status(&order, "dispatched").await;
    let tracking = format!("/v1/shipments/{}/tracking", text(&sent, "/shipment/id"));
    stack.post(&tracking, &json!({ "status": "delivered" })).await.expect(200);
    stack.until_status(&order, "completed").await;
    stack.quiet().await;

    let history = stack.get(&format!("/v1/audit/orders/{order}")).await.expect(200).body;
    assert_eq!(history["order_id"], order);
    let timeline = history["timeline"].as_array().unwrap();
    assert_eq!(*timeline, stack.all(&format!("/v1/audit/events?order_id={order}")).await);
    let types: BTreeSet<&str> = timeline.iter().map(|item| text(item, "/event/type")).collect();
    let happened = "order.placed stock.reserved payment.authorized order.confirmed \
                    shipment.created shipment.dispatched order.dispatched stock.shipped \
                    payment.captured shipment.delivered order.delivered user.notified \
                    order.completed";
    for kind in happened.split_whitespace() {
        assert!(types.contains(kind), "{kind} of {types:?}");
    }

    let graph = &history["graph"];
    let nodes = graph["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), timeline.len());
    for (node, item) in nodes.iter().zip(timeline) {
        let event = &item["event"];
        assert_eq!((&node["id"], &node["type"]), (&event["id"], &event["type"]));
        assert_eq!((&node["source"], &node["position"]), (&event["source"], &item["position"]));
    }
    let place = |id: &Value| timeline.iter().position(|item| item["event"]["id"] == *id);
    let edges = graph["edges"].as_array().unwrap();
    for edge in edges {
        let (from, to) = (place(&edge["from"]).unwrap(), place(&edge["to"]).unwrap());
        assert!(from < to, "a cause comes before its effect: {edge}");
        assert_eq!(timeline[to]["event"]["causationid"], edge["from"]);
    }
    let mut begun = Vec::new();
    for item in timeline {
        let causes = edges.iter().filter(|edge| edge["to"] == item["event"]["id"]).count();
        if text(item, "/event/actor") == "http" {
            assert_eq!(causes, 0, "a command's effect begins there: {item}");
            begun.push(text(item, "/event/type"));
        } else {
            assert_eq!(causes, 1, "it has its cause in the graph: {item}");
        }
    }
    assert_eq!(begun, ["order.placed", "shipment.delivered"]);
    stack.ends_well().await;
}

async fn an_order_can_be_seen_as_it_stood_at_every_position_and_time(kind: Kind) {
    let (stack, [order, _, rejected]) = with_three_orders(kind).await;
    for (order, statuses) in [
        (&order, "placed placed confirmed dispatched delivered completed"),
        (&rejected, "placed placed rejected"),
    ] {
        let statuses: Vec<&str> = statuses.split_whitespace().collect();
        let own = stack.all(&format!("/v1/audit/events?stream=order-{order}")).await;
        let now = stack.get(&format!("/v1/orders/{order}")).await.expect(200).body;
        let path = format!("/v1/audit/orders/{order}/state");
        let at = async |at: &str| stack.get(&format!("{path}?at={at}")).await;
        // A rejection may be the first answer, or the second.
        let last = own.len() - 1;
        assert!(last + 1 == statuses.len() || last == 1, "{own:?}");
        for (index, item) in own.iter().enumerate() {
            let state = at(&position(item).to_string()).await.expect(200).body;
            let expected = if index == last { statuses.last() } else { statuses.get(index) };
            assert_eq!(Some(&text(&state, "/status")), expected, "{state}");
            assert_eq!(state["version"], item["event"]["streamversion"]);
            assert_eq!(state["updated_at"], item["event"]["time"]);
            if let Some(next) = own.get(index + 1) {
                let between = (position(next) - 1).to_string();
                assert_eq!(at(&between).await.expect(200).body, state);
            }
            // By its time it is what had been recorded by then.
            let time = text(item, "/recorded_at");
            let by_then = own.iter().filter(|item| text(item, "/recorded_at") <= time).count();
            let then = at(time).await.expect(200).body;
            assert_eq!(then["version"], own[by_then - 1]["event"]["streamversion"]);
        }
        let first = position(&own[0]);
        at(&(first - 1).to_string()).await.problem(404);
        at("0").await.problem(404);
        at("2001-01-01T00:00:00Z").await.problem(404);
        for latest in ["9223372036854775807", "2999-01-01T00:00:00Z"] {
            assert_eq!(at(latest).await.expect(200).body, now);
        }
        assert_eq!(stack.get(&path).await.expect(200).body, now);
        for garbage in ["", "soon", "-1", "1.5", "2026-11-21", "9223372036854775808", "%00"] {
            at(garbage).await.invalid(&["/at"]);
        }
    }
    stack.ends_well().await;
}

async fn products_and_users_are_correlated_by_their_own_first_event(kind: Kind) {
    let stack = Stack::start(kind).await;
    for sku in ["TEA", "CUP"] {
        stack.product(sku, 250, 10).await;
        stack.post(&format!("/v1/products/{sku}/receipts"), &json!({ "quantity": 5 })).await;
        stack.patch(&format!("/v1/products/{sku}"), &json!({ "name": "New" })).await.expect(200);
    }
    let (ada, bob) = (stack.user(100).await, stack.user(200).await);
    stack.quiet().await;
    let check = async |stream: &str, types: &[&str]| {
        let own = stack.all(&format!("/v1/audit/events?stream={stream}")).await;
        let found: Vec<&str> = own.iter().map(|item| text(item, "/event/type")).collect();
        assert_eq!(found, types);
        let first = text(&own[0], "/event/id").to_owned();
        assert!(own.iter().all(|item| text(item, "/event/correlationid") == first), "{own:?}");
        stack.all(&format!("/v1/audit/events?correlation_id={first}")).await.len()
    };
    let product = ["product.listed", "stock.received", "product.changed"];
    let user = ["user.registered", "wallet.deposited"];
    for sku in ["TEA", "CUP"] {
        // The order service's copies of it belong to it.
        assert_eq!(check(&format!("product-{sku}"), &product).await, 5);
    }
    for id in [ada, bob] {
        assert_eq!(check(&format!("user-{id}"), &user).await, 2);
    }
    stack.ends_well().await;
}
