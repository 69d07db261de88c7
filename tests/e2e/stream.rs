//! Events as they come in, over server-sent events.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Kind, Options, PATIENCE, Stack, Stopwatch, make};

on_every_deployment!(
    a_stream_tells_everything_from_the_beginning_and_then_what_comes,
    a_stream_that_is_cut_off_goes_on_without_a_gap_or_a_repeat,
    a_stream_is_filtered_as_the_list_is,
    a_stream_is_longer_than_a_page,
);

/// How soon an event reaches a client, on a busy machine: what nobody could call a poll by hand.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A stream of events that is being read.
struct Events {
    response: reqwest::Response,
    received: Vec<u8>,
}

impl Events {
    async fn open(client: &Client, query: &str, last: Option<i64>) -> Self {
        let mut ask = client.ask(Method::GET, &format!("/v1/audit/stream{query}"));
        if let Some(last) = last {
            ask = ask.header("last-event-id", &last.to_string());
        }
        let response = ask.open().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, received: Vec::new() }
    }

    /// The next event: its id and what it carries. Nothing at the end of the stream.
    async fn next(&mut self) -> Option<(i64, Value)> {
        loop {
            while let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.received.drain(..end + 2).collect();
                let event = read(std::str::from_utf8(&block).unwrap());
                if event.is_some() {
                    return event;
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("an event or the end comes").expect("it is not broken off")?;
            self.received.extend_from_slice(&chunk);
        }
    }

    /// The next events, which must come; their ids are their positions.
    async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut items = Vec::new();
        while items.len() < count {
            let (id, item) = self.next().await.expect("the stream goes on");
            assert_eq!(item["position"], id);
            items.push(item);
        }
        items
    }

    /// All events to the end of the stream.
    async fn rest(mut self) -> Vec<Value> {
        let mut items = Vec::new();
        while let Some((_, item)) = self.next().await {
            items.push(item);
        }
        items
    }
}

/// An event of the stream; nothing if it only says that the stream is still there.
fn read(block: &str) -> Option<(i64, Value)> {
    let (mut id, mut data) = (None, None);
    for line in block.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("id", text)) => id = Some(text.parse().unwrap()),
            Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
            _ => assert!(line.starts_with(':'), "{line}"),
        }
    }
    id.zip(data)
}

fn types(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["event"]["type"].as_str().unwrap()).collect()
}

async fn a_stream_tells_everything_from_the_beginning_and_then_what_comes(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let first = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&first, "completed").await;
    stack.quiet().await;
    let known = stack.all("/v1/audit/events").await;
    let mut events = Events::open(&stack, "", None).await;
    assert_eq!(events.take(known.len()).await, known);

    for name in ["Assam", "Darjeeling"] {
        let began = Stopwatch::start();
        stack.patch("/v1/products/TEA", &json!({ "name": name })).await.expect(200);
        let fresh = events.take(2).await;
        assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
        assert_eq!(types(&fresh), ["product.changed", "catalogue.updated"]);
        assert_eq!(fresh[0]["event"]["data"]["name"], name);
    }
    stack.ends_well().await;
}

async fn a_stream_that_is_cut_off_goes_on_without_a_gap_or_a_repeat(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let mut seen = Vec::new();
    let mut last = None;
    for round in 0..4 {
        let order = stack.order(&ada, &[("TEA", 1)]).await;
        let mut events = Events::open(&stack, "", last).await;
        // Cut off in the middle of an order, once by the end of the server.
        seen.extend(events.take(5).await);
        last = seen.last().and_then(|item| item["position"].as_i64());
        if round == 1 {
            stack.kill().await;
            stack.restart().await;
        }
        stack.until_status(&order, "completed").await;
    }
    stack.quiet().await;
    let all = stack.all("/v1/audit/events").await;
    seen.extend(Events::open(&stack, "", last).await.take(all.len() - seen.len()).await);
    assert_eq!(seen, all);

    let after = |position: usize| format!("?after={position}");
    assert_eq!(Events::open(&stack, &after(7), None).await.take(3).await, all[7..10]);
    assert_eq!(Events::open(&stack, &after(7), Some(9)).await.take(1).await, all[9..10]);
    assert_eq!(Events::open(&stack, &after(9), Some(7)).await.take(1).await, all[9..10]);
    // A client that has seen everything waits for what comes.
    let head = i64::try_from(all.len()).unwrap();
    let mut waiting = Events::open(&stack, "", Some(head)).await;
    stack.post("/v1/users", &make::user("Bob")).await.expect(201);
    let next = waiting.take(1).await;
    assert_eq!((types(&next), &next[0]["position"]), (vec!["user.registered"], &json!(head + 1)));
    stack.ends_well().await;
}

async fn a_stream_is_filtered_as_the_list_is(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let orders = [stack.order(&ada, &[("TEA", 1)]).await, stack.order(&ada, &[("TEA", 2)]).await];
    for order in &orders {
        stack.until_status(order, "completed").await;
    }
    stack.quiet().await;
    let all = stack.all("/v1/audit/events").await;
    let middle = all[all.len() / 2]["recorded_at"].as_str().unwrap();
    let queries = [
        format!("?order_id={}", orders[0]),
        format!("?correlation_id={}", orders[1]),
        format!("?stream=order-{}", orders[0]),
        "?type=user.notified".to_owned(),
        "?source=inventory".to_owned(),
        format!("?since={middle}"),
        format!("?order_id={}&source=/services/order&after=6", orders[1]),
    ];
    for query in queries {
        let listed = stack.all(&format!("/v1/audit/events{query}")).await;
        assert!(!listed.is_empty() && listed.len() < all.len(), "{query} selects something");
        let streamed = Events::open(&stack, &query, None).await.take(listed.len()).await;
        assert_eq!(streamed, listed, "{query}");
    }
    // Times do not go back, so a stream up to a time that has passed comes to an end.
    let past = format!("?until={middle}");
    let listed = stack.all(&format!("/v1/audit/events{past}")).await;
    assert_eq!(Events::open(&stack, &past, None).await.rest().await, listed);
    // Up to a time that is still to come it goes on.
    let mut events = Events::open(&stack, "?until=2999-01-01T00:00:00Z&source=user", None).await;
    let known = stack.all("/v1/audit/events?source=user").await;
    assert_eq!(events.take(known.len()).await, known);
    stack.post("/v1/users", &make::user("Bob")).await.expect(201);
    assert_eq!(types(&events.take(1).await), ["user.registered"]);
    // What does not fit is not told, however much of it comes.
    let mut bobs = Events::open(&stack, "?type=wallet.deposited", None).await;
    bobs.take(1).await;
    let order = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    let deposit = json!({ "amount": make::euros(77) });
    stack.post(&format!("/v1/users/{ada}/deposits"), &deposit).await.expect(200);
    assert_eq!(bobs.take(1).await[0]["event"]["data"]["amount"]["amount"], 77);
    stack.ends_well().await;
}

async fn a_stream_is_longer_than_a_page(kind: Kind) {
    let stack = Stack::start(kind).await;
    let adding: Vec<_> = (0..230)
        .map(|number| {
            let client = stack.client.clone();
            tokio::spawn(async move {
                let product = make::product(&format!("P{number}"), 1, 0);
                client.post("/v1/products", &product).await.expect(201);
            })
        })
        .collect();
    let mut events = Events::open(&stack, "", None).await;
    let told = events.take(460).await;
    for added in adding {
        added.await.unwrap();
    }
    assert!((1..=460).eq(told.iter().map(|item| item["position"].as_i64().unwrap())));
    assert_eq!(told, stack.all("/v1/audit/events").await);
    assert_eq!(Events::open(&stack, "", None).await.take(460).await, told);
    stack.ends_well().await;
}

#[tokio::test]
async fn events_that_another_process_appends_arrive() {
    let stack = Stack::start(Kind::Postgres).await;
    let audit = Options::default().services(&["audit"]);
    let (mut process, beside) = stack.beside(&audit).await;
    let mut events = Events::open(&beside, "", None).await;
    for name in ["Ada", "Bob", "Cyd"] {
        let began = Stopwatch::start();
        stack.post("/v1/users", &make::user(name)).await.expect(201);
        let told = events.take(1).await;
        assert_eq!(told[0]["event"]["data"]["name"], name);
        assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    }
    process.stop().await;
    assert_eq!(events.next().await, None, "a stream ends when its server does");
    stack.ends_well().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_server_stops() {
    let mut stack = Stack::start(Kind::Sqlite).await;
    stack.user(0).await;
    let mut events = Events::open(&stack, "", None).await;
    events.take(1).await;
    let began = Stopwatch::start();
    stack.stop().await;
    assert_eq!(events.next().await, None);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}
