//! Traces: one order is one trace across all services and processes, told to a collector; and a
//! collector that is away or hangs is nobody's trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::errors::NOBODY;
use crate::support::{
    Client, Collector, Kind, Options, PATIENCE, Stack, Stopwatch, Told, executable, make, until,
};

const SERVICES: [&str; 4] = ["order", "inventory", "logistics", "user"];
/// The span of the client that places an order, and its trace.
const CLIENT: &str = "00f067aa0ba902b7";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Tells this collector, without the pause that a program in earnest makes between two batches.
fn telling(collector: &Collector) -> Options {
    telling_at(&collector.url)
}

fn telling_at(url: &str) -> Options {
    let options = Options::default().variable("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    options.variable("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// Places an order below a client's span, or at the root of a trace; its id.
async fn place(client: &Client, customer: &str, key: &str, traceparent: Option<&str>) -> String {
    let mut ask = client.ask(Method::POST, "/v1/orders").key(key);
    if let Some(traceparent) = traceparent {
        ask = ask.header("traceparent", traceparent);
    }
    let placed = ask.json(&make::order(customer, &[("TEA", 1)])).send().await.expect(201);
    placed.body["id"].as_str().expect("an id").to_owned()
}

async fn events(client: &Client, order: &str) -> Vec<Value> {
    client.all(&format!("/v1/audit/events?correlation_id={order}")).await
}

/// Trace, span and flags that an event of the audit API carries.
fn carried(item: &Value) -> (String, String, String) {
    let traceparent = item["event"]["traceparent"].as_str().expect("a traceparent");
    let fields: Vec<&str> = traceparent.split('-').collect();
    let &["00", trace, span, flags] = fields.as_slice() else { panic!("{traceparent}") };
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

/// Waits until every event of the order and everything below it is told; the order's trace.
async fn told(collector: &Collector, client: &Client, order: &str) -> Vec<Told> {
    until("all of the order's spans are told", PATIENCE, async || {
        let (events, spans) = (events(client, order).await, collector.spans());
        let (trace, _, _) = carried(events.first()?);
        let spans: Vec<Told> = spans.into_iter().filter(|span| span.trace == trace).collect();
        let all = events.iter().all(|event| {
            let (of, span, flags) = carried(event);
            assert_eq!((of.as_str(), flags.as_str()), (trace.as_str(), "01"), "{event}");
            spans.iter().any(|told| told.id == span)
        });
        // What is heard last has no effects, and so no event that would name its span.
        let end = spans.iter().any(|span| span.name == "user handle shipment.delivered");
        (all && end && spans.iter().any(|span| span.name == "POST /v1/orders")).then_some(spans)
    })
    .await
}

/// Every span but the one of the request is below another one of the trace, and began after it.
fn is_one_tree(spans: &[Told], parent_of_all: &str) {
    let by_id: BTreeMap<&str, &Told> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "no span is told twice");
    let (roots, others): (Vec<&Told>, Vec<&Told>) =
        spans.iter().partition(|span| span.parent == parent_of_all);
    let [request] = roots.as_slice() else { panic!("not one root: {roots:#?}") };
    assert_eq!((request.name.as_str(), request.kind), ("POST /v1/orders", SpanKind::Server));
    for span in others {
        let parent = by_id.get(span.parent.as_str());
        let parent = parent.unwrap_or_else(|| panic!("without a parent: {span:#?}"));
        assert!(parent.times.0 <= span.times.0, "{span:#?} began before {parent:#?}");
        assert!(span.times.0 <= span.times.1, "{span:#?}");
        assert_eq!(span.error, None, "{span:#?}");
    }
}

fn says_what_was_done(spans: &[Told], order: &str) {
    let request = spans.iter().find(|span| span.kind == SpanKind::Server).expect("the request");
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/orders"),
        ("url.path", "/v1/orders"),
        ("url.scheme", "http"),
        ("http.response.status_code", "201"),
    ] {
        assert_eq!(request.attribute(name), value, "{name}");
    }
    let below: Vec<&Told> = spans.iter().filter(|span| span.kind != SpanKind::Server).collect();
    for span in &below {
        assert_eq!(span.attribute("waybill.correlation.id"), order, "{span:#?}");
    }
    let services: BTreeSet<&str> = below.iter().map(|s| s.attribute("waybill.service")).collect();
    assert_eq!(services, BTreeSet::from(SERVICES));
    let of_kind = |kind| below.iter().filter(move |span| span.kind == kind);
    let commands = below.iter().filter(|span| span.name == "order command");
    assert_eq!(commands.count(), 1);
    assert!(below.iter().any(|span| span.name == "logistics timer"), "the carrier's timers");
    let mut heard = BTreeSet::new();
    for span in of_kind(SpanKind::Consumer) {
        let [service, event] = ["waybill.service", "waybill.event.id"].map(|n| span.attribute(n));
        assert!(heard.insert((service, event)), "handled once: {span:#?}");
        let kind = span.attribute("waybill.event.type");
        assert_eq!(span.name, format!("{service} handle {kind}"));
        assert!(span.attribute("waybill.position").parse::<i64>().expect("a number") > 0);
        for name in ["waybill.stream", "messaging.system", "messaging.operation.type"] {
            assert!(!span.attribute(name).is_empty(), "{name} of {span:#?}");
        }
    }
    for expected in [
        ("inventory", "order.placed"),
        ("user", "order.placed"),
        ("order", "stock.reserved"),
        ("order", "payment.authorized"),
        ("logistics", "order.confirmed"),
        ("inventory", "shipment.dispatched"),
        ("order", "shipment.delivered"),
        ("order", "user.notified"),
    ] {
        let is = |span: &&&Told| {
            (span.attribute("waybill.service"), span.attribute("waybill.event.type")) == expected
        };
        assert!(of_kind(SpanKind::Consumer).any(|span| is(&span)), "{expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_in_one_process_one_order_is_one_trace() {
    let collector = Collector::start().await;
    let options = telling(&collector)
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret");
    let stack = Stack::with(Kind::Sqlite, options).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(10_000).await;
    let order = place(&stack, &ada, "first", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
    stack.until_status(&order, "completed").await;
    stack.quiet().await;
    let spans = told(&collector, &stack, &order).await;
    assert!(spans.iter().all(|span| span.trace == TRACE));
    is_one_tree(&spans, CLIENT);
    says_what_was_done(&spans, &order);
    for span in collector.spans() {
        assert_eq!(span.resource["service.name"], "waybill");
        assert_eq!(span.resource["deployment.environment.name"], "test");
        assert!(!span.resource["service.version"].is_empty());
        let route = span.attribute("http.route");
        assert!(route.is_empty() || route.starts_with("/v1/"), "no span for {route}");
    }
    assert!(collector.headers().iter().all(|headers| headers["x-key"] == "secret"));
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_over_several_processes_one_order_is_one_trace() {
    let collector = Collector::start().await;
    let options = || telling(&collector);
    let shop = options().services(&["order", "inventory", "audit"]);
    let stack = Stack::with(Kind::Postgres, shop).await;
    let (mut user, bank) = stack.beside(&options().services(&["user"])).await;
    let named = options().services(&["logistics"]).variable("OTEL_SERVICE_NAME", "parcels");
    let (mut logistics, _) = stack.beside(&named).await;
    stack.product("TEA", 250, 10).await;
    let ada = bank.user(10_000).await;
    let below = place(&stack, &ada, "below", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
    let root = place(&stack, &ada, "root", None).await;
    for (order, parent) in [(&below, CLIENT), (&root, "")] {
        stack.until_status(order, "completed").await;
        let spans = told(&collector, &stack, order).await;
        is_one_tree(&spans, parent);
        says_what_was_done(&spans, order);
        for span in &spans {
            let process = match span.attribute("waybill.service") {
                "user" => "waybill-user",
                "logistics" => "parcels",
                _ => "waybill",
            };
            assert_eq!(span.resource["service.name"], process, "{span:#?}");
        }
    }
    for process in [&mut user, &mut logistics] {
        process.terminate();
        assert_eq!(process.ended().await.code(), Some(0), "the server stops cleanly");
    }
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_rewrites_nothing_and_what_is_not_sampled_is_not_told() {
    let collector = Collector::start().await;
    let stack = Stack::with(Kind::Sqlite, telling(&collector)).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(10_000).await;
    let first = format!("00-{TRACE}-{CLIENT}-01");
    let order = place(&stack, &ada, "key", Some(&first)).await;
    stack.until_status(&order, "completed").await;
    stack.quiet().await;
    let (before, spans) = (events(&stack, &order).await, told(&collector, &stack, &order).await);
    let (repeated, unsampled) = (TRACE.replace('4', "5"), TRACE.replace('4', "6"));
    let again = place(&stack, &ada, "key", Some(&format!("00-{repeated}-{CLIENT}-01"))).await;
    assert_eq!(again, order);
    let quiet = place(&stack, &ada, "other", Some(&format!("00-{unsampled}-{CLIENT}-00"))).await;
    stack.until_status(&quiet, "completed").await;
    stack.quiet().await;
    for event in events(&stack, &quiet).await {
        let (trace, _, flags) = carried(&event);
        assert_eq!((trace.as_str(), flags.as_str()), (unsampled.as_str(), "00"), "{event}");
    }
    // Later ones are told after all of these.
    let last = place(&stack, &ada, "last", None).await;
    stack.until_status(&last, "completed").await;
    told(&collector, &stack, &last).await;
    let of = |trace: &str| -> Vec<String> {
        let all = collector.spans().into_iter().filter(|span| span.trace == trace);
        all.map(|span| span.name).collect()
    };
    assert_eq!(of(&repeated), ["POST /v1/orders"], "a repeat does nothing");
    assert_eq!(of(&unsampled), [""; 0]);
    assert_eq!(of(TRACE).len(), spans.len());
    assert_eq!(events(&stack, &order).await, before);
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_parked_is_told_as_an_error() {
    let collector = Collector::start().await;
    let mut stack = Stack::with(Kind::Sqlite, telling(&collector)).await;
    stack.product("TEA", 250, 10).await;
    stack.quiet().await;
    stack.stop().await;
    // An event of a version that this program does not know yet.
    let unknown = format!(
        "insert into outbox select position + 1, '{NOBODY}', 'product.changed', 99, stream, \
         stream_version + 1, occurred_at, correlation_id, causation_id, actor, \
         '00-{TRACE}-{CLIENT}-01', '{{}}' from outbox where position = 1"
    );
    stack.execute("inventory", &unknown).await;
    stack.restart().await;
    let span = until("the failure is told", PATIENCE, async || {
        collector.spans().into_iter().find(|span| span.attribute("waybill.event.id") == NOBODY)
    })
    .await;
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, CLIENT));
    assert_eq!(span.name, "order handle product.changed");
    let why = span.error.expect("it is an error");
    assert!(why.contains("not known to this version"), "{why}");
    stack.stop().await;
}

/// Orders are taken and completed as ever, and the server stops in time.
async fn goes_on_without(url: &str) -> Stack {
    // Few spans fit the queue: it overflows.
    let options = telling_at(url).variable("OTEL_BSP_MAX_QUEUE_SIZE", "64");
    let mut stack = Stack::with(Kind::Sqlite, options).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(100_000).await;
    let mut orders = Vec::new();
    for number in 0..20 {
        let took = Stopwatch::start();
        orders.push(place(&stack, &ada, &number.to_string(), None).await);
        assert!(took.elapsed() < Duration::from_secs(1), "it took {:?}", took.elapsed());
    }
    for order in &orders {
        stack.until_status(order, "completed").await;
    }
    stack.quiet().await;
    stack.stop().await;
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_slows_nothing_and_delays_the_end_a_little() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let mut taken = Vec::new();
    let hanging = async {
        loop {
            taken.push(listener.accept().await.expect("a connection"));
        }
    };
    tokio::select! {
        () = hanging => {}
        _ = goes_on_without(&url) => {}
    }
    assert!(!taken.is_empty(), "the collector was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_slows_nothing_and_is_told_of_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    let stack = goes_on_without(&url).await;
    let log = stack.process().log();
    let said = log.iter().filter(|line| line.contains("the collector does not take traces"));
    assert_eq!(said.count(), 1, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_that_is_not_spoken_is_refused_in_a_sentence() {
    let mut command = executable(&["serve".to_owned()]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let ended = ended.expect("it ends").expect("the executable starts");
    let stderr = String::from_utf8(ended.stderr).expect("it writes UTF-8");
    assert_eq!(ended.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{stderr}");
}
