//! `/metrics`: every promised metric with its right value, in text that Prometheus takes, and
//! nothing untrue while the database is away.

#![expect(clippy::float_cmp, reason = "counts are whole numbers, which compare exactly")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::errors::NOBODY;
use crate::support::{Client, Kind, Options, PATIENCE, Stack, Stopwatch, make, until};

on_both!(
    after_orders_with_different_ends_every_metric_is_right,
    a_parked_event_shows_and_what_waits_is_counted,
);

const SERVICES: [&str; 4] = ["order", "inventory", "logistics", "user"];
/// Two for each of them, and one that reads the event store for audit.
const LOOPS: usize = 2 * SERVICES.len() + 1;
/// How long a scrape may take, however bad things are: its bound and some more.
const SCRAPE: Duration = Duration::from_secs(4);

/// What one scrape told.
struct Scraped {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scraped {
    async fn of(client: &Client) -> Self {
        let reply = client.get("/metrics").await.expect(200);
        assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
        Self::parse(&reply.text)
    }

    /// Reads the text as strictly as `promtool check metrics` does: every family in one piece, with
    /// its help and its type before it, and no series twice.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is whole");
        let mut scraped = Self { samples: BTreeMap::new(), types: BTreeMap::new() };
        let (mut helped, mut family) = (BTreeSet::new(), String::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(told) = line.strip_prefix("# HELP ") {
                let (name, help) = told.split_once(' ').expect("a name and a text");
                assert!(!help.trim().is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "helped once: {line}");
            } else if let Some(told) = line.strip_prefix("# TYPE ") {
                let (name, kind) = told.split_once(' ').expect("a name and a type");
                assert!(helped.contains(name), "{name} says what it means");
                let before = scraped.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "typed once: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                name.clone_into(&mut family);
            } else {
                scraped.sample(line, &family);
            }
        }
        scraped.histograms_are_whole();
        scraped
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let name = series.split('{').next().expect("a name");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("stray: {line}"));
        let fits = match self.types[family].as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        assert!(fits, "{line} is none of {family}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        assert!(!series.contains(NOBODY), "no series of its own for each resource: {line}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert_eq!(self.samples.insert(series.to_owned(), value), None, "twice: {line}");
    }

    /// The buckets of a histogram grow, and the last one holds all.
    fn histograms_are_whole(&self) {
        let (mut open, mut whole) = (BTreeMap::new(), 0);
        for (series, value) in &self.samples {
            let Some((name, labels)) = series.split_once("_bucket{") else { continue };
            let (labels, bound) = labels.rsplit_once("le=\"").expect("a bucket has its bound");
            let bound = bound.trim_end_matches("\"}").parse::<f64>().expect("a number");
            let of = open.entry((name, labels.trim_end_matches(','))).or_insert_with(Vec::new);
            of.push((bound, *value));
        }
        for ((name, labels), mut buckets) in open {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name} {buckets:?}");
            let last = buckets.last().expect("one at least");
            assert!(last.0.is_infinite(), "{name}");
            assert_eq!(self.value(&format!("{name}_count{{{labels}}}")), last.1);
            whole += 1;
        }
        assert!(whole > 0, "there are histograms");
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let all = || self.samples.keys().collect::<Vec<_>>();
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", all()))
    }

    /// Every series of a metric, by its labels.
    fn all(&self, name: &str) -> BTreeMap<&str, f64> {
        let labels = |series: &'_ str| -> Option<usize> {
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some(name.len())
        };
        let own = self.samples.iter();
        own.filter_map(|(series, value)| Some((&series[labels(series)?..], *value))).collect()
    }
}

/// One order delivered, one on its way, one rejected.
async fn three_orders(stack: &Stack) {
    stack.product("TEA", 250, 10).await;
    stack.product("SAMOVAR", 250, 0).await;
    let ada = stack.user(10_000).await;
    let delivered = stack.order(&ada, &[("TEA", 1)]).await;
    let under_way = stack.order(&ada, &[("TEA", 2)]).await;
    let rejected = stack.order(&ada, &[("SAMOVAR", 1)]).await;
    let order = stack.until_status(&delivered, "dispatched").await;
    let tracking = format!("/v1/shipments/{}/tracking", order["shipment"]["id"].as_str().unwrap());
    stack.post(&tracking, &json!({ "status": "delivered" })).await.expect(200);
    stack.until_status(&delivered, "completed").await;
    stack.until_status(&under_way, "dispatched").await;
    stack.until_status(&rejected, "rejected").await;
    stack.get(&format!("/v1/orders/{NOBODY}")).await.problem(404);
    stack.quiet().await;
}

async fn after_orders_with_different_ends_every_metric_is_right(kind: Kind) {
    let stack = Stack::with(kind, Options::default().manual_carrier()).await;
    three_orders(&stack).await;
    let scraped = Scraped::of(&stack).await;
    let statuses = [
        ("placed", 0.0),
        ("confirmed", 0.0),
        ("cancelling", 0.0),
        ("dispatched", 1.0),
        ("delivered", 0.0),
        ("completed", 1.0),
        ("rejected", 1.0),
        ("cancelled", 0.0),
    ];
    assert_eq!(scraped.all("waybill_orders").len(), statuses.len());
    for (status, count) in statuses {
        assert_eq!(scraped.value(&format!("waybill_orders{{status=\"{status}\"}}")), count);
    }
    gauges_are_at_rest(&scraped);
    let events = stack.all("/v1/audit/events").await;
    assert_eq!(scraped.value("waybill_event_store_position"), count(events.len()));
    counters_agree_with(&scraped, &events);
    histograms_are_there(&scraped);
    let asked = |labels: &str| scraped.value(&format!("http_requests_total{{{labels}}}"));
    assert_eq!(asked("method=\"POST\",route=\"/v1/orders\",status=\"201\""), 3.0);
    assert_eq!(asked("method=\"GET\",route=\"/v1/orders/{id}\",status=\"404\""), 1.0);
    stack.ends_well().await;
}

/// Every loop is ready, nothing waits and nothing was put aside.
fn gauges_are_at_rest(scraped: &Scraped) {
    assert_eq!(scraped.all("waybill_ready").len(), LOOPS);
    assert_eq!(scraped.all("waybill_dead_letters").len(), 3 * SERVICES.len());
    for service in SERVICES {
        for part in ["writer", "relay"] {
            let of_loop = format!("{{loop=\"{service}.{part}\"}}");
            assert_eq!(scraped.value(&format!("waybill_ready{of_loop}")), 1.0);
            assert_eq!(scraped.value(&format!("waybill_step_failures_total{of_loop}")), 0.0);
        }
        for gauge in ["outbox_backlog", "consumer_lag"] {
            for unit in ["events", "seconds"] {
                let series = format!("waybill_{gauge}_{unit}{{service=\"{service}\"}}");
                assert_eq!(scraped.value(&series), 0.0, "{series}");
            }
        }
        for status in ["parked", "waiting", "retrying"] {
            let labels = format!("{{service=\"{service}\",status=\"{status}\"}}");
            assert_eq!(scraped.value(&format!("waybill_dead_letters{labels}")), 0.0);
        }
    }
}

/// Every event was written once and appended once.
fn counters_agree_with(scraped: &Scraped, events: &[Value]) {
    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    for item in events {
        let text = |name: &str| item["event"][name].as_str().unwrap().to_owned();
        let (source, kind) = (text("source"), text("type"));
        let service = source.trim_start_matches("/services/");
        let labels = format!("{{service=\"{service}\",type=\"{kind}\"}}");
        *written.entry(labels).or_default() += 1;
    }
    let counted = scraped.all("waybill_events_written_total");
    let expected = written.iter().map(|(labels, times)| (labels.as_str(), count(*times)));
    assert_eq!(counted, expected.collect());
    for service in SERVICES {
        let of_service =
            |(labels, _): &(&String, &usize)| labels.contains(&format!("\"{service}\""));
        let sum: usize = written.iter().filter(of_service).map(|(_, times)| times).sum();
        let appended = format!("waybill_events_appended_total{{service=\"{service}\"}}");
        assert_eq!(scraped.value(&appended), count(sum));
    }
}

fn histograms_are_there(scraped: &Scraped) {
    for service in SERVICES {
        for name in ["waybill_unit_messages", "waybill_unit_seconds", "waybill_commit_seconds"] {
            assert_eq!(scraped.types[name], "histogram");
            let labels = format!("{{service=\"{service}\"}}");
            assert!(scraped.value(&format!("{name}_count{labels}")) >= 1.0, "{name} {service}");
            assert!(scraped.value(&format!("{name}_sum{labels}")) > 0.0, "{name} {service}");
        }
        let one = format!("waybill_unit_messages_bucket{{service=\"{service}\",le=\"1\"}}");
        assert!(scraped.value(&one) >= 1.0);
    }
    let appends = "waybill_commit_seconds_count{service=\"event_store\"}";
    assert!(scraped.value(appends) >= 4.0);
    let route = "{method=\"POST\",route=\"/v1/orders\"}";
    assert_eq!(scraped.value(&format!("http_request_duration_seconds_count{route}")), 3.0);
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("it is small"))
}

async fn a_parked_event_shows_and_what_waits_is_counted(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    stack.quiet().await;
    stack.stop().await;
    // An event of a version that this program does not know yet, and one that waits behind it.
    let unknown = |place: usize, id: &str| {
        format!(
            "insert into outbox select position + {place}, '{id}', 'product.changed', 99, stream, \
             stream_version + {place}, occurred_at, correlation_id, causation_id, actor, '', '{{}}' \
             from outbox where position = 1;"
        )
    };
    let second = waybill_runtime::Ids::system().next().to_string();
    let both = unknown(1, NOBODY) + &unknown(2, &second);
    stack.execute("inventory", &both).await;
    stack.restart().await;
    until("both are put aside", PATIENCE, async || {
        (stack.all("/v1/ops/order/dead-letters").await.len() == 2).then_some(())
    })
    .await;
    let scraped = Scraped::of(&stack).await;
    for (status, count) in [("parked", 1.0), ("waiting", 1.0), ("retrying", 0.0)] {
        let labels = format!("{{service=\"order\",status=\"{status}\"}}");
        assert_eq!(scraped.value(&format!("waybill_dead_letters{labels}")), count, "{status}");
    }
    let others = scraped.all("waybill_dead_letters");
    let others = others.iter().filter(|(labels, _)| !labels.contains("\"order\""));
    assert!(others.clone().all(|(_, count)| *count == 0.0) && others.count() == 9);
    stack.stop().await;
}

/// What the metrics say of every loop: how many are ready, and how many not.
fn readiness(scraped: &Scraped) -> (usize, usize) {
    let ready = scraped.all("waybill_ready");
    let yes = ready.values().filter(|value| **value == 1.0).count();
    (yes, ready.len() - yes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_a_scrape_answers_in_time_and_tells_nothing_untrue() {
    let stack = Stack::start(Kind::Postgres).await;
    let ada = stack.user(1_000).await;
    stack.post("/v1/orders", &make::order(&ada, &[("TEA", 1)])).await.problem(422);
    stack.quiet().await;
    assert_eq!(readiness(&Scraped::of(&stack).await), (LOOPS, 0));
    stack.store().goes_away().await;
    until("the server says that it is not ready", Duration::from_secs(5), async || {
        let took = Stopwatch::start();
        let scraped = Scraped::of(&stack).await;
        assert!(took.elapsed() < SCRAPE, "a scrape took {:?}", took.elapsed());
        (readiness(&scraped) == (0, LOOPS)).then_some(())
    })
    .await;
    let scraped = Scraped::of(&stack).await;
    for gauge in [
        "waybill_outbox_backlog_events",
        "waybill_outbox_backlog_seconds",
        "waybill_consumer_lag_events",
        "waybill_consumer_lag_seconds",
        "waybill_dead_letters",
        "waybill_event_store_position",
    ] {
        assert!(!scraped.types.contains_key(gauge), "{gauge} cannot be known");
    }
    assert!(scraped.value("waybill_step_failures_total{loop=\"order.writer\"}") >= 1.0);

    stack.store().comes_back().await;
    stack.ready().await;
    let scraped = Scraped::of(&stack).await;
    assert_eq!(readiness(&scraped), (LOOPS, 0));
    assert_eq!(scraped.all("waybill_dead_letters").len(), 12);
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_hangs_leaves_out_only_what_it_would_have_told() {
    let stack = Stack::start(Kind::Postgres).await;
    stack.user(1_000).await;
    stack.quiet().await;
    let lock = "begin; lock table event in access exclusive mode; select pg_sleep(4.5); commit";
    let locking = stack.execute("event_store", lock);
    let scraping = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let took = Stopwatch::start();
        let scraped = Scraped::of(&stack).await;
        assert!(took.elapsed() < SCRAPE, "a scrape took {:?}", took.elapsed());
        scraped
    };
    let ((), scraped) = tokio::join!(locking, scraping);
    assert!(!scraped.types.contains_key("waybill_event_store_position"));
    assert!(!scraped.types.contains_key("waybill_consumer_lag_events"));
    assert_eq!(scraped.all("waybill_dead_letters").len(), 12);
    assert_eq!(scraped.all("waybill_orders").len(), 8);
    stack.ready().await;
    assert_eq!(Scraped::of(&stack).await.all("waybill_consumer_lag_events").len(), 4);
    stack.ends_well().await;
}
