//! What can be read: single resources and their versions, lists and their pages, and every shape.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::errors::NOBODY;
use crate::raw;
use crate::support::{Client, Kind, Options, Reply, Stack, Stopwatch, make};

on_every_deployment!(
    a_resource_that_the_client_has_seen_is_304,
    a_client_that_waits_is_answered_at_the_change,
    an_order_has_every_field_and_no_other,
    a_product_shows_its_stock_and_a_user_the_balance,
    a_shipment_and_the_notifications_of_an_order_can_be_read,
    orders_are_listed_newest_first_by_customer_and_status,
    a_list_is_walked_exactly_once_while_it_grows,
    products_are_listed_by_sku_and_users_newest_first,
);

/// The names of an object's members.
fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The same, in the order in which it was written.
#[track_caller]
fn assert_names(object: &Value, expected: &[&str]) {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!(names(object).into_iter().collect::<BTreeSet<_>>(), expected, "{object}");
}

/// RFC 3339 in UTC.
#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap();
    let (date, time) = text.strip_suffix('Z').unwrap().split_once('T').unwrap();
    let digits = |text: &str, pattern: &str| {
        let fits = |(c, p): (char, char)| if p == '9' { c.is_ascii_digit() } else { c == p };
        text.len() >= pattern.len() && text.chars().zip(pattern.chars()).all(fits)
    };
    assert!(digits(date, "2999-99-99") && date.len() == 10, "{text}");
    assert!(digits(time, "99:99:99"), "{text}");
    let fraction = &time[8..];
    let whole = fraction.is_empty();
    assert!(whole || fraction.starts_with('.') && fraction.len() > 1, "{text}");
    assert!(fraction.chars().skip(1).all(|c| c.is_ascii_digit()), "{text}");
}

/// A UUID of version 7, with hyphens and in small letters.
#[track_caller]
fn assert_id(value: &Value) {
    let text = value.as_str().unwrap();
    let id = uuid::Uuid::parse_str(text).unwrap();
    assert_eq!((id.get_version_num(), id.to_string().as_str()), (7, text));
}

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

async fn see(client: &Client, path: &str, tag: &str, prefer: &str) -> Reply {
    let ask = client.ask(Method::GET, path).header("if-none-match", tag);
    if prefer.is_empty() { ask.send().await } else { ask.header("prefer", prefer).send().await }
}

async fn a_resource_that_the_client_has_seen_is_304(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(1_000).await;
    let order = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    let parcels = stack.get(&format!("/v1/shipments?order_id={order}")).await.expect(200);
    let parcel = parcels.items()[0]["id"].as_str().unwrap();
    for path in [
        "/v1/products/TEA".to_owned(),
        format!("/v1/users/{ada}"),
        format!("/v1/orders/{order}"),
        format!("/v1/shipments/{parcel}"),
    ] {
        let first = stack.get(&path).await.expect(200);
        let tag = first.header("etag");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
        for seen in [tag, &format!("W/{tag}"), &format!("\"77\", {tag}"), "*"] {
            let same = see(&stack, &path, seen, "").await.expect(304);
            assert_eq!((same.header("etag"), same.text.as_str()), (tag, ""));
        }
        for seen in ["\"0\"", "\"77\"", "\"other\""] {
            let again = see(&stack, &path, seen, "").await.expect(200);
            assert_eq!(again.text, first.text);
        }
        see(&stack, &path, "77", "").await.problem(400);
    }
    stack.ends_well().await;
}

async fn a_client_that_waits_is_answered_at_the_change(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let tag = stack.get("/v1/products/TEA").await.expect(200).header("etag").to_owned();

    let began = Stopwatch::start();
    let unchanged = see(&stack, "/v1/products/TEA", &tag, "wait=1").await.expect(304);
    let waited = began.elapsed();
    assert!((900..5_000).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(unchanged.header("preference-applied"), "wait=1");
    assert_eq!(unchanged.header("etag"), tag);
    let longest = see(&stack, "/v1/products/TEA", "\"0\"", "wait=3600").await.expect(200);
    assert_eq!(longest.header("preference-applied"), "wait=60");

    let (client, seen) = (stack.client.clone(), tag.clone());
    let waiting =
        tokio::spawn(async move { see(&client, "/v1/products/TEA", &seen, "wait=60").await });
    // Whether the change comes before or after the server begins to wait, it is not missed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "nothing has changed yet");
    let changed = Stopwatch::start();
    stack.patch("/v1/products/TEA", &json!({ "name": "Assam" })).await.expect(200);
    let newer = waiting.await.unwrap().expect(200);
    let took = changed.elapsed();
    assert_eq!(newer.body["name"], "Assam");
    assert_ne!(newer.header("etag"), tag);
    assert!(took < Duration::from_secs(5), "{took:?}");
    see(&stack, &format!("/v1/orders/{NOBODY}"), "\"1\"", "wait=1").await.problem(404);
    stack.ends_well().await;
}

#[tokio::test]
async fn a_client_that_waits_is_answered_when_the_server_stops() {
    let mut stack = Stack::start(Kind::Sqlite).await;
    stack.product("TEA", 250, 10).await;
    let tag = stack.get("/v1/products/TEA").await.expect(200).header("etag").to_owned();
    let mut connection = raw::Connection::open(&stack).await;
    let requests = format!(
        "GET /livez HTTP/1.1\r\nhost: waybill\r\n\r\n\
         GET /v1/products/TEA HTTP/1.1\r\nhost: waybill\r\n\
         if-none-match: {tag}\r\nprefer: wait=60\r\n\r\n"
    );
    connection.send(&requests).await;
    // With the first answer, the server has the second request as well.
    connection.until("alive").await;
    let watch = Stopwatch::start();
    stack.stop().await;
    let answer = connection.rest().await;
    assert!(answer.contains("HTTP/1.1 304 "), "{answer}");
    assert!(watch.elapsed() < Duration::from_secs(4), "{:?}", watch.elapsed());
}

const ORDER: [&str; 12] = [
    "id",
    "number",
    "customer_id",
    "status",
    "lines",
    "total",
    "ship_to",
    "placed_at",
    "updated_at",
    "version",
    "shipment",
    "reasons",
];

async fn an_order_has_every_field_and_no_other(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    stack.product("TEA", 250, 10).await;
    stack.product("CUP", 199, 10).await;
    let ada = stack.user(10_000).await;
    let body = make::order(&ada, &[("TEA", 3), ("CUP", 2)]);
    let placed = stack.post("/v1/orders", &body).await.expect(201);
    let order = &placed.body;
    assert_names(order, &ORDER);
    assert_id(&order["id"]);
    assert_eq!(placed.header("location"), format!("/v1/orders/{}", order["id"].as_str().unwrap()));
    assert_eq!(placed.header("content-type"), "application/json");
    let number = order["number"].as_str().unwrap();
    assert!((1..=20).contains(&number.len()), "{number} is short");
    assert_eq!((&order["customer_id"], &order["status"]), (&json!(ada), &json!("placed")));
    let line = |sku: &str, quantity: i64, price: i64| {
        json!({
            "sku": sku, "name": format!("Product {sku}"),
            "quantity": quantity, "unit_price": make::euros(price),
        })
    };
    assert_eq!(order["lines"], json!([line("TEA", 3, 250), line("CUP", 2, 199)]));
    assert_eq!(order["total"], json!({ "amount": 1_148, "currency": "EUR" }));
    assert_eq!(order["ship_to"], body["ship_to"]);
    assert_eq!((&order["version"], &order["shipment"]), (&json!(1), &Value::Null));
    assert_eq!(order["reasons"], json!([]));
    assert_eq!(order["placed_at"], order["updated_at"]);
    assert_time(&order["placed_at"]);

    let sent = stack.until_status(order["id"].as_str().unwrap(), "dispatched").await;
    assert_names(&sent, &ORDER);
    assert_names(&sent["shipment"], &["id", "carrier", "tracking_number"]);
    assert_id(&sent["shipment"]["id"]);
    assert_eq!(sent["placed_at"], order["placed_at"]);
    assert!(sent["updated_at"].as_str() > order["updated_at"].as_str());

    let rejected = stack.order(NOBODY, &[("TEA", 8)]).await;
    let rejected = stack.until_status(&rejected, "rejected").await;
    assert_names(&rejected, &ORDER);
    assert_names(&rejected["reasons"][0], &["code", "detail"]);
    assert_ne!(rejected["number"], order["number"]);
    stack.ends_well().await;
}

async fn a_product_shows_its_stock_and_a_user_the_balance(kind: Kind) {
    let packed = Options::default().packing("1h");
    let stack = Stack::with(kind, packed).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(1_000).await;
    let order = stack.order(&ada, &[("TEA", 3)]).await;
    stack.until_status(&order, "confirmed").await;

    let fields = ["sku", "name", "price", "on_hand", "reserved", "available"];
    let tea = stack.get("/v1/products/TEA").await.expect(200).body;
    assert!(fields.iter().all(|field| names(&tea).contains(field)), "{tea}");
    assert_eq!(tea["price"], make::euros(250));
    let counted = [&tea["on_hand"], &tea["reserved"], &tea["available"]];
    assert_eq!(counted, [&json!(10), &json!(3), &json!(7)]);

    let user = stack.get(&format!("/v1/users/{ada}")).await.expect(200).body;
    assert_id(&user["id"]);
    assert_eq!((&user["name"], &user["email"]), (&json!("Ada"), &json!("ada@example.com")));
    let balance = json!({ "available": make::euros(250), "held": make::euros(750) });
    assert_eq!(user["balance"], balance);
    for time in [&tea["created_at"], &tea["updated_at"], &user["created_at"]] {
        assert_time(time);
    }
    let dollars = json!({ "name": "Bob", "email": "bob@example.com", "currency": "USD" });
    let bob = stack.post("/v1/users", &dollars).await.expect(201);
    let location = format!("/v1/users/{}", bob.body["id"].as_str().unwrap());
    assert_eq!(bob.header("location"), location);
    assert_eq!(stack.get(&location).await.expect(200).text, bob.text);
    let none = json!({ "amount": 0, "currency": "USD" });
    assert_eq!(bob.body["balance"], json!({ "available": none, "held": none }));
    stack.ends_well().await;
}

async fn a_shipment_and_the_notifications_of_an_order_can_be_read(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(10_000).await;
    let order = stack.order(&ada, &[("TEA", 3)]).await;
    let other = stack.order(&ada, &[("TEA", 1)]).await;
    let sent = stack.until_status(&order, "dispatched").await;
    stack.until_status(&other, "dispatched").await;
    let parcels = stack.get(&format!("/v1/shipments?order_id={order}")).await.expect(200);
    assert_eq!((parcels.items().len(), &parcels.body["next"]), (1, &Value::Null));
    let parcel = &parcels.items()[0];
    assert_eq!(stack.all("/v1/shipments").await.len(), 2);
    assert_eq!((&parcel["order_id"], &parcel["status"]), (&json!(order), &json!("dispatched")));
    for field in ["id", "carrier", "tracking_number"] {
        assert_eq!(parcel[field], sent["shipment"][field], "{field}");
    }
    let path = format!("/v1/shipments/{}", parcel["id"].as_str().unwrap());
    assert_eq!(&stack.get(&path).await.expect(200).body, parcel);
    let report = json!({ "status": "in_transit", "location": "Hull", "note": "On time" });
    let moved = stack.post(&format!("{path}/tracking"), &report).await.expect(200).body;
    assert_eq!((&moved["status"], &moved["location"]), (&json!("in_transit"), &json!("Hull")));
    stack.post(&format!("{path}/tracking"), &json!({ "status": "delivered" })).await.expect(200);
    stack.until_status(&order, "completed").await;

    let told = stack.all(&format!("/v1/users/{ada}/notifications")).await;
    let of_order: Vec<&Value> = told.iter().filter(|told| told["order_id"] == order).collect();
    let kinds: Vec<&str> = of_order.iter().map(|told| told["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["delivered", "dispatched", "confirmed"], "the newest first, each once");
    for told in of_order {
        assert_names(told, &["order_id", "kind", "text", "created_at"]);
        assert!(!told["text"].as_str().unwrap().is_empty());
        assert_time(&told["created_at"]);
    }
    stack.ends_well().await;
}

async fn orders_are_listed_newest_first_by_customer_and_status(kind: Kind) {
    let packed = Options::default().packing("1h");
    let stack = Stack::with(kind, packed).await;
    stack.product("TEA", 1, 1_000).await;
    let (ada, bob) = (stack.user(1_000).await, stack.user(1_000).await);
    let mut placed = Vec::new();
    for number in 0..12 {
        let customer = if number % 3 == 0 { &bob } else { &ada };
        placed.push((customer, stack.order(customer, &[("TEA", 1)]).await));
    }
    let cancelled = &placed[4].1;
    for (_, order) in &placed {
        stack.until_status(order, "confirmed").await;
    }
    stack.post(&format!("/v1/orders/{cancelled}/cancel"), &json!({})).await.expect(200);
    stack.until_status(cancelled, "cancelled").await;

    let of = |wanted: &dyn Fn(&str, &str) -> bool| -> Vec<String> {
        let fits = placed.iter().rev().filter(|(customer, order)| wanted(customer, order));
        fits.map(|(_, order)| order.clone()).collect()
    };
    let listed = async |query: &str| ids(&stack.all(&format!("/v1/orders?{query}")).await);
    assert_eq!(listed("").await, of(&|_, _| true));
    assert_eq!(listed(&format!("customer_id={bob}")).await, of(&|c, _| c == bob));
    assert_eq!(listed("status=confirmed").await, of(&|_, o| o != cancelled));
    assert_eq!(listed("status=cancelled").await, std::slice::from_ref(cancelled));
    let both = format!("customer_id={ada}&status=confirmed");
    assert_eq!(listed(&both).await, of(&|c, o| c == ada && o != cancelled));
    assert_eq!(listed("status=completed").await, Vec::<String>::new());
    assert_eq!(listed(&format!("customer_id={NOBODY}")).await, Vec::<String>::new());

    // Every list goes on where its page ended.
    for query in ["", &format!("customer_id={ada}"), "status=confirmed", &both] {
        let path = format!("/v1/orders?{query}");
        assert_eq!(ids(&walk(&stack, &path, 2, async || {}).await), listed(query).await);
    }
    stack.ends_well().await;
}

/// Every item of a list, in pages of this size; `between` happens after each page.
async fn walk(
    client: &Client,
    path: &str,
    limit: usize,
    mut between: impl AsyncFnMut(),
) -> Vec<Value> {
    let sign = if path.contains('?') { '&' } else { '?' };
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}{sign}limit={limit}{cursor}")).await.expect(200);
        assert_names(&page.body, &["items", "next"]);
        items.extend_from_slice(page.items());
        between().await;
        let Some(next) = page.body["next"].as_str() else { return items };
        assert_eq!(page.items().len(), limit, "only the last page may be short");
        cursor = format!("&cursor={next}");
    }
}

async fn a_list_is_walked_exactly_once_while_it_grows(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 1, 1_000).await;
    let ada = stack.user(1_000).await;
    let mut first = Vec::new();
    for _ in 0..11 {
        first.push(stack.order(&ada, &[("TEA", 1)]).await);
    }
    first.reverse();
    let grow = async || drop(stack.order(&ada, &[("TEA", 1)]).await);
    let seen = ids(&walk(&stack, "/v1/orders", 3, grow).await);
    assert_eq!(seen, first, "new orders come before the first page");
    let grown = ids(&stack.all("/v1/orders").await);
    assert_eq!(grown.len(), 15);
    assert_eq!(grown[4..], first);

    let skus = |items: &[Value]| -> Vec<String> {
        items.iter().map(|item| item["sku"].as_str().unwrap().to_owned()).collect()
    };
    for number in 10..20 {
        let product = make::product(&format!("P{number}"), 1, 0);
        stack.post("/v1/products", &product).await.expect(201);
    }
    let mut added = 0;
    let grow = async || {
        // One before all, one within what is still to come or has been.
        for sku in [format!("A{added}"), format!("P{}x", 19 - added)] {
            stack.post("/v1/products", &make::product(&sku, 1, 0)).await.expect(201);
        }
        added += 1;
    };
    let walked = skus(&walk(&stack, "/v1/products", 2, grow).await);
    let in_order = walked.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(in_order, "each once, ascending: {walked:?}");
    for sku in (10..20).map(|number| format!("P{number}")).chain(["TEA".to_owned()]) {
        assert!(walked.contains(&sku), "{sku} of {walked:?}");
    }
    stack.ends_well().await;
}

async fn products_are_listed_by_sku_and_users_newest_first(kind: Kind) {
    let stack = Stack::start(kind).await;
    let skus = ["b", "B", "a-1", "a.1", "a_1", "a", "A", "1", "10", "2", "-", "_", "."];
    for sku in skus {
        stack.post("/v1/products", &make::product(sku, 1, 0)).await.expect(201);
    }
    let mut sorted = skus.to_vec();
    // By their characters, the same on both databases.
    sorted.sort_unstable();
    for limit in [1, 4, 200] {
        let walked = walk(&stack, "/v1/products", limit, async || {}).await;
        let walked: Vec<&str> = walked.iter().map(|item| item["sku"].as_str().unwrap()).collect();
        assert_eq!(walked, sorted);
    }
    let mut users = Vec::new();
    for _ in 0..5 {
        users.insert(0, stack.user(0).await);
    }
    assert_eq!(ids(&walk(&stack, "/v1/users", 2, async || {}).await), users);
    // What is not said is 50.
    for number in 0..50 {
        let product = make::product(&format!("N{number}"), 1, 0);
        stack.post("/v1/products", &product).await.expect(201);
    }
    let page = stack.get("/v1/products").await.expect(200);
    assert_eq!(page.items().len(), 50);
    assert!(page.body["next"].is_string());
    let nothing = stack.get("/v1/orders").await.expect(200);
    assert_eq!(nothing.body, json!({ "items": [], "next": null }));
    stack.ends_well().await;
}
