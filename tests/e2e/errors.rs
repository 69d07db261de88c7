//! Everything that a request can be refused for, on every kind of route.

use reqwest::Method;
use serde_json::{Value, json};

use crate::raw;
use crate::support::{Kind, Options, PATIENCE, Reply, Stack, make, until};

on_every_deployment!(
    a_body_that_cannot_be_read_is_refused_by_every_command,
    a_body_that_only_shows_while_it_comes_that_it_is_too_large_is_refused,
    a_value_of_the_wrong_type_is_pointed_to,
    a_field_that_is_not_known_is_pointed_to,
    a_field_that_is_missing_is_refused_unless_it_may_be_left_out,
    a_text_has_1_to_200_characters_and_none_that_hides_or_turns_what_stands_around_it,
    a_value_beyond_its_limits_is_pointed_to,
    a_value_at_its_limit_is_taken,
    an_order_has_1_to_100_lines_and_no_product_twice,
    stock_beyond_what_can_be_counted_is_422,
    a_bad_query_is_422_and_names_its_parameter,
    an_id_that_nothing_has_and_one_that_nothing_can_have_are_404,
    an_unknown_address_is_404_and_an_unknown_method_405,
    a_key_is_1_to_255_visible_ascii_characters,
    what_the_state_of_things_makes_invalid_is_422,
    what_the_state_of_things_does_not_allow_is_409,
    a_command_on_a_stale_version_is_412,
);

/// An id that nothing has.
pub(crate) const NOBODY: &str = "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
/// The largest amount of money and of stock.
const LARGEST: i64 = 1_000_000_000_000;

/// A server with one of everything, so that every route has something to name.
struct House {
    stack: Stack,
    user: String,
    order: String,
    shipment: String,
}

/// A command that is valid in every part, with every part that may be left out.
struct Command {
    method: Method,
    path: String,
    body: Value,
}

impl House {
    /// Its order has left and moves no more by itself.
    async fn new(kind: Kind) -> Self {
        Self::with(kind, Options::default().manual_carrier(), "dispatched").await
    }

    async fn with(kind: Kind, options: Options, status: &str) -> Self {
        let stack = Stack::with(kind, options).await;
        stack.product("TEA", 250, 1_000).await;
        let user = stack.user(1_000_000).await;
        let order = stack.order(&user, &[("TEA", 3)]).await;
        stack.until_status(&order, status).await;
        let shipment = shipment_of(&stack, &order).await;
        Self { stack, user, order, shipment }
    }

    fn commands(&self) -> Vec<Command> {
        let Self { user, order, shipment, .. } = self;
        let command = |method, path: &str, body| Command { method, path: path.to_owned(), body };
        let mut placed = make::order(user, &[("TEA", 1)]);
        placed["ship_to"]["line2"] = json!("Second floor");
        let registered = json!({ "name": "Bob", "email": "bob@example.com", "currency": "EUR" });
        let changed = json!({ "name": "Assam", "price": make::euros(300) });
        let received = json!({ "quantity": 5, "reference": "Note 7" });
        let deposited = json!({ "amount": make::euros(100) });
        let tracked = json!({ "status": "in_transit", "location": "Hull", "note": "On time" });
        vec![
            command(Method::POST, "/v1/users", registered),
            command(Method::POST, &format!("/v1/users/{user}/deposits"), deposited),
            command(Method::POST, "/v1/products", make::product("CUP", 100, 7)),
            command(Method::PATCH, "/v1/products/TEA", changed),
            command(Method::POST, "/v1/products/TEA/receipts", received),
            command(Method::POST, "/v1/orders", placed),
            command(
                Method::POST,
                &format!("/v1/orders/{order}/cancel"),
                json!({ "reason": "Too late" }),
            ),
            command(Method::POST, &format!("/v1/shipments/{shipment}/tracking"), tracked),
        ]
    }

    /// Nothing of what was refused was a failure of the server, which goes on and stops cleanly.
    async fn ends_well(self) {
        let metrics = self.stack.metrics().await.concat();
        let failed = |line: &&str| {
            let counted = line.starts_with("http_requests_total");
            counted && line.contains("status=\"5") && !line.contains("/readyz")
        };
        assert_eq!(metrics.lines().find(failed), None);
        self.stack.get("/readyz").await.expect(200);
        self.stack.ends_well().await;
    }
}

impl Command {
    async fn send(&self, house: &House, body: &Value) -> Reply {
        house.stack.ask(self.method.clone(), &self.path).json(body).send().await
    }

    async fn send_bytes(&self, house: &House, media_type: &str, body: &[u8]) -> Reply {
        let ask = house.stack.ask(self.method.clone(), &self.path).bytes(body);
        ask.header("content-type", media_type).send().await
    }

    /// The body with something else at one place.
    fn with(&self, pointer: &str, value: Value) -> Value {
        let mut body = self.body.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    }

    /// The body with one member more in, or less in, the object at this place.
    fn with_members(&self, pointer: &str, change: impl FnOnce(&mut Members)) -> Value {
        let mut body = self.body.clone();
        change(body.pointer_mut(pointer).unwrap().as_object_mut().unwrap());
        body
    }
}

type Members = serde_json::Map<String, Value>;

async fn shipment_of(stack: &Stack, order: &str) -> String {
    let path = format!("/v1/shipments?order_id={order}");
    until("the order has a shipment", PATIENCE, async || {
        let parcels = stack.get(&path).await.expect(200);
        parcels.items().first().map(|parcel| parcel["id"].as_str().unwrap().to_owned())
    })
    .await
}

/// Whether a command was understood: done, or refused for what it is about.
fn understood(reply: &Reply) -> bool {
    matches!(reply.status, 200 | 201 | 409)
}

/// Every place in a value: the value itself, its members and items, theirs, and so on.
fn places(value: &Value) -> Vec<String> {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    let below = |(name, part): (String, &Value)| {
        places(part).into_iter().map(move |place| format!("/{name}{place}")).collect::<Vec<_>>()
    };
    [String::new()].into_iter().chain(parts.into_iter().flat_map(below)).collect()
}

async fn a_body_that_cannot_be_read_is_refused_by_every_command(kind: Kind) {
    let house = House::new(kind).await;
    for command in house.commands() {
        let whole = command.body.to_string();
        let twice = format!("{whole}{whole}");
        let cut = &whole[..whole.len() - 1];
        for text in [cut, &twice, "no JSON", "{\"name\":}", "{'name':1}", "\u{feff}{}", " "] {
            let reply = command.send_bytes(&house, "application/json", text.as_bytes()).await;
            reply.problem(400);
        }
        command.send_bytes(&house, "application/json", b"{\"name\":\"\xff\"}").await.problem(400);
        let ask = house.stack.ask(command.method.clone(), &command.path).bytes(whole.as_bytes());
        ask.send().await.problem(415);
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/json5"] {
            command.send_bytes(&house, media_type, whole.as_bytes()).await.problem(415);
        }
        for encoding in ["gzip", "br", "identity, gzip"] {
            let ask = house.stack.ask(command.method.clone(), &command.path).json(&command.body);
            ask.header("content-encoding", encoding).send().await.problem(415);
        }
        let padded = |length: usize| [&whole[..], &" ".repeat(length - whole.len())].concat();
        let media_type = "application/json; charset=utf-8";
        command.send_bytes(&house, media_type, padded(65_537).as_bytes()).await.problem(413);
        let largest = command.send_bytes(&house, media_type, padded(65_536).as_bytes()).await;
        assert!(understood(&largest), "{} {largest:?}", command.path);
    }
    house.ends_well().await;
}

async fn a_body_that_only_shows_while_it_comes_that_it_is_too_large_is_refused(kind: Kind) {
    let house = House::new(kind).await;
    let chunk = format!("{:x}\r\n{}\r\n", 32_768, " ".repeat(32_768));
    let head = "POST /v1/users HTTP/1.1\r\nhost: waybill\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let request = [head, &chunk, &chunk, "1\r\n \r\n0\r\n\r\n"].concat();
    let answer = raw::ask(&house.stack, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    house.ends_well().await;
}

async fn a_value_of_the_wrong_type_is_pointed_to(kind: Kind) {
    let house = House::new(kind).await;
    for command in house.commands() {
        for place in places(&command.body) {
            let body = command.with(&place, json!(true));
            command.send(&house, &body).await.invalid(&[&place]);
        }
    }
    house.ends_well().await;
}

async fn a_field_that_is_not_known_is_pointed_to(kind: Kind) {
    let house = House::new(kind).await;
    for command in house.commands() {
        for place in places(&command.body) {
            if !command.body.pointer(&place).unwrap().is_object() {
                continue;
            }
            let add = |members: &mut Members| drop(members.insert("a/b~c".to_owned(), json!(1)));
            let body = command.with_members(&place, add);
            command.send(&house, &body).await.invalid(&[&format!("{place}/a~1b~0c")]);
        }
    }
    house.ends_well().await;
}

/// What may be left out, by its last name; all else may not.
const OPTIONAL: [(&str, &[&str]); 8] = [
    ("/v1/users", &["/currency"]),
    ("/deposits", &[]),
    ("/v1/products", &["/quantity"]),
    ("/v1/products/TEA", &["/name", "/price"]),
    ("/receipts", &["/reference"]),
    ("/v1/orders", &["/ship_to/line2"]),
    ("/cancel", &["/reason"]),
    ("/tracking", &["/location", "/note"]),
];

async fn a_field_that_is_missing_is_refused_unless_it_may_be_left_out(kind: Kind) {
    let house = House::new(kind).await;
    for (command, (end, optional)) in house.commands().into_iter().zip(OPTIONAL) {
        assert!(command.path.ends_with(end), "{}", command.path);
        for place in places(&command.body) {
            let (object, name) = place.rsplit_once('/').unwrap_or_default();
            if !command.body.pointer(object).unwrap().is_object() || place.is_empty() {
                continue;
            }
            let body = command.with_members(object, |members| drop(members.remove(name)));
            let reply = command.send(&house, &body).await;
            if optional.contains(&place.as_str()) {
                assert!(understood(&reply), "without {place}: {reply:?}");
            } else {
                reply.invalid(&[object]);
            }
        }
    }
    house.ends_well().await;
}

async fn a_text_has_1_to_200_characters_and_none_that_hides_or_turns_what_stands_around_it(
    kind: Kind,
) {
    let house = House::new(kind).await;
    let texts = ["name", "reference", "line1", "line2", "city", "postal_code", "country", "reason"]
        .map(|name| format!("/{name}"));
    let is_text = |place: &str| {
        texts.iter().any(|text| place.ends_with(text.as_str()))
            || ["/location", "/note"].contains(&place)
    };
    let longest = "ж".repeat(200);
    let bad = ["\0", "a\n", "\u{7f}", "\u{85}", "\u{200e}", "\u{202e}b", "\u{2066}", "\u{61c}"];
    let mut checked = 0;
    for command in house.commands() {
        for place in places(&command.body).into_iter().filter(|place| is_text(place)) {
            for text in bad.iter().copied().chain(["", &"ж".repeat(201)]) {
                let body = command.with(&place, json!(text));
                command.send(&house, &body).await.invalid(&[&place]);
            }
            for text in ["x", &longest, "שלום, Zoë 👋"] {
                let reply = command.send(&house, &command.with(&place, json!(text))).await;
                assert!(understood(&reply), "{place} {text}: {reply:?}");
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 13, "every text of every command");
    house.ends_well().await;
}

async fn a_value_beyond_its_limits_is_pointed_to(kind: Kind) {
    let house = House::new(kind).await;
    let skus = [json!(""), json!("a b"), json!("a/b"), json!("ж"), json!("a".repeat(65))];
    let large = 10_i128.pow(18);
    let counts = [json!(0), json!(-1), json!(1_000_001), json!(1.5), json!(large), json!("1")];
    let amounts = [json!(-1), json!(LARGEST + 1), json!(0.5), json!(large), json!("1")];
    let currencies = [json!(""), json!("eur"), json!("EURO"), json!("XXZ"), json!("€")];
    let emails = ["x", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n"].map(Value::from);
    let ids = ["", "x", "01937b6e7f5a7c3e9a513f0c6f2d8b11", "{}"].map(Value::from);
    let statuses = ["", "dispatched", "created", "cancelled", "Delivered"].map(Value::from);
    let limits: [(usize, &str, &[Value]); 13] = [
        (0, "/email", &emails),
        (0, "/currency", &currencies),
        (1, "/amount/amount", &amounts),
        (1, "/amount/currency", &currencies),
        (2, "/sku", &skus),
        (2, "/price/amount", &amounts),
        (2, "/quantity", &counts[1..]),
        (3, "/price/amount", &amounts),
        (4, "/quantity", &counts),
        (5, "/customer_id", &ids),
        (5, "/lines/0/sku", &skus),
        (5, "/lines/0/quantity", &counts),
        (7, "/status", &statuses),
    ];
    let commands = house.commands();
    for (command, place, values) in limits {
        for value in values {
            let body = commands[command].with(place, value.clone());
            commands[command].send(&house, &body).await.invalid(&[place]);
        }
    }
    house.ends_well().await;
}

async fn a_value_at_its_limit_is_taken(kind: Kind) {
    let house = House::new(kind).await;
    let sku = format!("a-Z_9.{}", "x".repeat(58));
    house.stack.product(&sku, LARGEST, 1_000_000).await;
    house.stack.product("free", 0, 0).await;
    let receipt = json!({ "quantity": 1_000_000 });
    let product = house.stack.post("/v1/products/free/receipts", &receipt).await.expect(200);
    assert_eq!(product.body["available"], 1_000_000);
    house.stack.order(&house.user, &[("free", 1_000_000)]).await;
    house.stack.order(&house.user, &[(&sku, 1)]).await;
    house.ends_well().await;
}

async fn an_order_has_1_to_100_lines_and_no_product_twice(kind: Kind) {
    let house = House::new(kind).await;
    let skus: Vec<String> = (0..101).map(|n| format!("SKU-{n}")).collect();
    let order = |skus: &[String]| {
        let lines: Vec<(&str, i64)> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
        make::order(&house.user, &lines)
    };
    house.stack.post("/v1/orders", &order(&[])).await.invalid(&["/lines"]);
    house.stack.post("/v1/orders", &order(&skus)).await.invalid(&["/lines"]);
    // A hundred lines are taken, and then each is looked at.
    let unknown: Vec<String> = (0..100).map(|n| format!("/lines/{n}/sku")).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    house.stack.post("/v1/orders", &order(&skus[..100])).await.invalid(&unknown);
    let twice = ["TEA", "CUP", "TEA"].map(str::to_owned);
    house.stack.post("/v1/orders", &order(&twice)).await.invalid(&["/lines/2/sku"]);
    house.ends_well().await;
}

async fn what_the_state_of_things_makes_invalid_is_422(kind: Kind) {
    let house = House::new(kind).await;
    let (stack, user) = (&house.stack, &house.user);
    let dollars = json!({ "amount": 5, "currency": "USD" });
    let dear = json!({ "sku": "DEAR", "name": "Dear", "price": make::euros(LARGEST) });
    let foreign = json!({ "sku": "FOREIGN", "name": "Foreign", "price": dollars });
    stack.post("/v1/products", &foreign).await.expect(201);
    stack.post("/v1/products", &dear).await.expect(201);
    until("the order service knows the products", PATIENCE, async || {
        let path = "/v1/audit/events?type=catalogue.updated";
        (stack.get(path).await.expect(200).items().len() == 3).then_some(())
    })
    .await;
    let place =
        async |lines: &[(&str, i64)]| stack.post("/v1/orders", &make::order(user, lines)).await;
    place(&[("TEA", 1), ("NONE", 1)]).await.invalid(&["/lines/1/sku"]);
    place(&[("TEA", 1), ("FOREIGN", 1)]).await.invalid(&["/lines/1/sku"]);
    place(&[("DEAR", 2)]).await.invalid(&["/lines/0/sku"]);
    place(&[("DEAR", 1), ("TEA", 1)]).await.invalid(&["/lines/1/sku"]);

    let deposits = format!("/v1/users/{user}/deposits");
    let deposit = json!({ "amount": dollars });
    stack.post(&deposits, &deposit).await.invalid(&["/amount/currency"]);
    let deposit = json!({ "amount": make::euros(LARGEST) });
    stack.post(&deposits, &deposit).await.invalid(&["/amount/amount"]);
    let change = json!({ "price": dollars });
    stack.patch("/v1/products/TEA", &change).await.invalid(&["/price/currency"]);
    house.ends_well().await;
}

async fn stock_beyond_what_can_be_counted_is_422(kind: Kind) {
    let mut house = House::new(kind).await;
    house.stack.product("SAND", 1, 1_000_000).await;
    // No test can send a million receipts.
    let full = "update products set on_hand = 999999999999 where sku = 'SAND'";
    house.stack.stop().await;
    house.stack.execute("inventory", full).await;
    // What is changed by hand is seen by a process that has no such row in memory.
    house.stack.restart().await;
    let receive = async |quantity: i64| {
        let receipt = json!({ "quantity": quantity });
        house.stack.post("/v1/products/SAND/receipts", &receipt).await
    };
    receive(2).await.invalid(&["/quantity"]);
    let product = receive(1).await.expect(200);
    assert_eq!(product.body["on_hand"], LARGEST);
    receive(1).await.invalid(&["/quantity"]);
    let as_told = "update products set on_hand = 1000001 where sku = 'SAND'";
    house.stack.execute("inventory", as_told).await;
    house.ends_well().await;
}

/// Every list, with what else it can be asked.
fn lists(house: &House) -> Vec<(String, &'static [&'static str])> {
    vec![
        ("/v1/orders".to_owned(), &["customer_id=x", "status=lost", "status="]),
        ("/v1/products".to_owned(), &["sku=TEA"]),
        ("/v1/users".to_owned(), &["name=Ada"]),
        (format!("/v1/users/{}/notifications", house.user), &["kind=confirmed"]),
        ("/v1/shipments".to_owned(), &["order_id=x", "status=created"]),
        ("/v1/ops/order/dead-letters".to_owned(), &["status=lost"]),
        (
            "/v1/audit/events".to_owned(),
            &[
                "order_id=x",
                "correlation_id=x",
                "stream=",
                "type=",
                "source=",
                "since=yesterday",
                "until=2026-13-01T00:00:00Z",
                "after=-1",
                "after=x",
                "direction=up",
            ],
        ),
    ]
}

async fn a_bad_query_is_422_and_names_its_parameter(kind: Kind) {
    let house = House::new(kind).await;
    for (path, others) in lists(&house) {
        let paging = ["limit=0", "limit=201", "limit=x", "limit=", "limit=-1", "limit=1.0"];
        let cursors = ["cursor=", "cursor=!!", "cursor=AAAA", "cursor=bm9uZQ%3D%3D"];
        let further = ["unknown=1", "Limit=1", "limit=1&limit=2"];
        for query in paging.iter().chain(&cursors).chain(&further).chain(others) {
            let name = query.split('=').next().unwrap();
            let reply = house.stack.get(&format!("{path}?{query}")).await;
            reply.invalid(&[&format!("/{name}")]);
        }
        let both = house.stack.get(&format!("{path}?limit=0&unknown=1")).await;
        both.invalid(&["/limit", "/unknown"]);
        house.stack.get(&format!("{path}?limit=1")).await.expect(200);
        house.stack.get(&format!("{path}?limit=200")).await.expect(200);
    }
    let state = format!("/v1/audit/orders/{}/state", house.order);
    for (path, query) in [(state.as_str(), "at=soon"), ("/v1/audit/stream", "after=x")] {
        let name = query.split('=').next().unwrap();
        house.stack.get(&format!("{path}?{query}")).await.invalid(&[&format!("/{name}")]);
        house.stack.get(&format!("{path}?unknown=1")).await.invalid(&["/unknown"]);
    }
    for header in ["", "x", "-1", "1.5"] {
        let ask = house.stack.ask(Method::GET, "/v1/audit/stream");
        ask.header("last-event-id", header).send().await.invalid(&["/Last-Event-ID"]);
    }
    house.ends_well().await;
}

async fn an_id_that_nothing_has_and_one_that_nothing_can_have_are_404(kind: Kind) {
    let house = House::new(kind).await;
    let reads = [
        ("/v1/orders/{}", NOBODY),
        ("/v1/users/{}", NOBODY),
        ("/v1/users/{}/notifications", NOBODY),
        ("/v1/shipments/{}", NOBODY),
        ("/v1/products/{}", "NONE"),
        ("/v1/audit/events/{}", NOBODY),
        ("/v1/audit/orders/{}", NOBODY),
        ("/v1/audit/orders/{}/state", NOBODY),
    ];
    let commands = [
        (Method::POST, "/v1/orders/{}/cancel", NOBODY, json!({})),
        (Method::POST, "/v1/users/{}/deposits", NOBODY, json!({ "amount": make::euros(1) })),
        (Method::POST, "/v1/shipments/{}/tracking", NOBODY, json!({ "status": "delivered" })),
        (Method::PATCH, "/v1/products/{}", "NONE", json!({ "name": "None" })),
        (Method::POST, "/v1/products/{}/receipts", "NONE", json!({ "quantity": 1 })),
        (Method::POST, "/v1/ops/order/dead-letters/{}/retry", NOBODY, json!({})),
        (Method::POST, "/v1/ops/order/dead-letters/{}/discard", NOBODY, json!({})),
    ];
    for nothing in ["a%20b", "%00", "%ff", "..%2f..", "%E2%80%AE", &"x".repeat(300)] {
        for (path, unknown) in reads {
            for id in [unknown, nothing] {
                house.stack.get(&path.replace("{}", id)).await.problem(404);
            }
        }
        for (method, path, unknown, body) in &commands {
            for id in [unknown, nothing] {
                let ask = house.stack.ask(method.clone(), &path.replace("{}", id));
                ask.json(body).send().await.problem(404);
            }
        }
    }
    let upper = house.order.to_uppercase();
    let unhyphened = house.order.replace('-', "");
    house.stack.get(&format!("/v1/orders/{unhyphened}")).await.problem(404);
    // An id in capitals is the same id (RFC 9562).
    let order = house.stack.get(&format!("/v1/orders/{upper}")).await.expect(200);
    assert_eq!(order.body["id"], house.order);
    house.ends_well().await;
}

async fn what_the_state_of_things_does_not_allow_is_409(kind: Kind) {
    let packed = Options::default().manual_carrier().packing("1h");
    let waiting = House::with(kind, packed, "confirmed").await;
    let track = async |house: &House, status: &str| {
        let path = format!("/v1/shipments/{}/tracking", house.shipment);
        house.stack.post(&path, &json!({ "status": status })).await
    };
    let cancel = async |house: &House, order: &str| {
        house.stack.post(&format!("/v1/orders/{order}/cancel"), &json!({})).await
    };
    for status in ["in_transit", "delivered", "failed"] {
        track(&waiting, status).await.problem(409);
    }
    cancel(&waiting, &waiting.order).await.expect(200);
    waiting.stack.until_status(&waiting.order, "cancelled").await;
    cancel(&waiting, &waiting.order).await.problem(409);
    track(&waiting, "delivered").await.problem(409);
    waiting.ends_well().await;

    let house = House::new(kind).await;
    house.stack.post("/v1/products", &make::product("TEA", 1, 1)).await.problem(409);
    cancel(&house, &house.order).await.problem(409);
    track(&house, "in_transit").await.expect(200);
    cancel(&house, &house.order).await.problem(409);
    track(&house, "delivered").await.expect(200);
    for status in ["in_transit", "delivered", "failed"] {
        track(&house, status).await.problem(409);
    }
    house.stack.until_status(&house.order, "completed").await;
    cancel(&house, &house.order).await.problem(409);
    let rejected = house.stack.order(NOBODY, &[("TEA", 1)]).await;
    house.stack.until_status(&rejected, "rejected").await;
    cancel(&house, &rejected).await.problem(409);
    house.ends_well().await;
}

async fn a_command_on_a_stale_version_is_412(kind: Kind) {
    let packed = Options::default().manual_carrier().packing("1h");
    let house = House::with(kind, packed, "confirmed").await;
    let House { stack, user, order, .. } = &house;
    let resources = [
        (Method::PATCH, "/v1/products/TEA".to_owned(), "", json!({ "name": "Assam" })),
        (Method::POST, "/v1/products/TEA".to_owned(), "/receipts", json!({ "quantity": 1 })),
        (
            Method::POST,
            format!("/v1/users/{user}"),
            "/deposits",
            json!({ "amount": make::euros(1) }),
        ),
        (Method::POST, format!("/v1/orders/{order}"), "/cancel", json!({})),
    ];
    for (method, resource, end, body) in resources {
        let tag = stack.get(&resource).await.expect(200).header("etag").to_owned();
        let send = async |seen: &str| {
            let ask = stack.ask(method.clone(), &format!("{resource}{end}")).json(&body);
            ask.header("if-match", seen).send().await
        };
        for seen in ["\"0\"", "\"99\"", "\"none\"", "\"1x\", \"98\"", &format!("W/{tag}")] {
            send(seen).await.problem(412);
        }
        for malformed in ["7", "\"7", "\"7\",", "*, \"7\"", ""] {
            send(malformed).await.problem(400);
        }
        let unchanged = stack.get(&resource).await.expect(200);
        assert_eq!(unchanged.header("etag"), tag, "what was refused changed nothing");
        let changed = send(&format!("\"99\", {tag}")).await.expect(200);
        assert_ne!(changed.header("etag"), tag);
        if end != "/cancel" {
            send(&tag).await.problem(412);
            send("*").await.expect(200);
        }
    }
    house.ends_well().await;
}

async fn an_unknown_address_is_404_and_an_unknown_method_405(kind: Kind) {
    let house = House::new(kind).await;
    for path in ["/", "/v1", "/v2/orders", "/v1/orders/", "/v1/ops/audit/x", "/v1/ops/x/outbox"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            house.stack.ask(method, path).send().await.problem(404);
        }
    }
    let (order, user) = (&house.order, &house.user);
    for (path, allowed) in [
        ("/v1/orders", "GET,HEAD,POST"),
        (&format!("/v1/orders/{order}"), "GET,HEAD"),
        (&format!("/v1/orders/{order}/cancel"), "POST"),
        ("/v1/products/TEA", "GET,HEAD,PATCH"),
        (&format!("/v1/users/{user}/deposits"), "POST"),
        ("/v1/audit/stream", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
        ("/openapi.json", "GET,HEAD"),
    ] {
        for method in ["PUT", "DELETE", "OPTIONS", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = house.stack.ask(method, path).send().await.problem(405);
            let mut found: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
            found.sort_unstable();
            assert_eq!(found.join(","), allowed, "{path}");
        }
    }
    house.ends_well().await;
}

async fn a_key_is_1_to_255_visible_ascii_characters(kind: Kind) {
    let house = House::new(kind).await;
    for (number, command) in house.commands().iter().enumerate() {
        let ask = || house.stack.ask(command.method.clone(), &command.path).json(&command.body);
        for key in ["", " ", "a b", &"x".repeat(256)] {
            ask().key(key).send().await.problem(400);
        }
        ask().key("one").key("two").send().await.problem(400);
        let longest = ask().key(&format!("{number:~<255}")).send().await;
        assert!(understood(&longest), "{} {longest:?}", command.path);
    }
    let body = make::user("Ada").to_string();
    let head = format!(
        "POST /v1/users HTTP/1.1\r\nhost: waybill\r\ncontent-type: application/json\r\n\
         idempotency-key: cl\u{e9}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw::ask(&house.stack, &head).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    house.ends_well().await;
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_large_are_431_and_an_address_that_is_too_long_414() {
    let house = House::new(Kind::Sqlite).await;
    let large = format!("x-large: {}\r\n", "y".repeat(17_000));
    let many = (0..70).map(|n| format!("x-{n}: y\r\n")).collect::<Vec<_>>().concat();
    for headers in [large, many] {
        let request = format!("GET /v1/users HTTP/1.1\r\nhost: waybill\r\n{headers}\r\n");
        let answer = raw::ask(&house.stack, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let long = format!("/v1/users?{}", "x".repeat(9_000));
    house.stack.get(&long).await.problem(414);
    house.ends_well().await;
}

#[tokio::test]
async fn a_connection_whose_headers_do_not_come_is_closed_after_10_seconds() {
    let house = House::new(Kind::Sqlite).await;
    let (silent, unfinished) = tokio::join!(
        raw::until_closed(&house.stack, ""),
        raw::until_closed(&house.stack, "GET /livez HTTP/1.1\r\nhost: way"),
    );
    for seconds in [silent, unfinished].map(|time| time.as_secs_f64()) {
        assert!((9.0..20.0).contains(&seconds), "closed after {seconds} s");
    }
    house.ends_well().await;
}
