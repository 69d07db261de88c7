//! Several containers of a service: all of them work, they come and go, and one that hangs does no
//! harm.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use waybill_runtime::{Clock, Timestamp};

use super::nothing_was_lost_or_doubled;
use crate::load::{Answered, Load};
use crate::support::{Client, Container, Kind, PATIENCE, Stack, Stopwatch, World, docker_on};
use crate::support::{make, until};

/// Orders that were placed, among the requests that a container counts.
const PLACED: &str = "method=\"POST\",route=\"/v1/orders\",status=\"201\"";
/// How long each client of a load waits before its next order.
const PAUSE: Duration = Duration::from_millis(50);
/// For how long somebody who was stopped in the middle of a transaction holds others up: until
/// Postgres ends it (`idle_in_transaction_session_timeout`, `tcp_user_timeout`).
const HELD: Duration = Duration::from_secs(5);
/// When the gateway gives up on a command that was sent to a container which hangs.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// What a busy machine may add to either.
const BUSY: Duration = Duration::from_secs(5);

async fn plenty(client: &Client) -> World {
    World::make(client, &[(100, 100_000), (250, 100_000)], &[10_000_000; 4]).await
}

/// How many requests of this kind a container has answered, such as
/// `method="POST",route="/v1/orders",status="201"`.
async fn answered_by(replica: &Container, kind: &str) -> u64 {
    let metrics = Client::new(replica.url().to_owned()).get("/metrics").await.expect(200).text;
    count_of(kind, &metrics)
}

fn count_of(kind: &str, metrics: &str) -> u64 {
    let series = format!("http_requests_total{{{kind}}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&series));
    count.map_or(0, |count| count.parse().expect("a whole number"))
}

async fn of(stack: &Stack, service: &str) -> Vec<Container> {
    let replicas = stack.compose().project.replicas().await.into_iter();
    replicas.filter(|one| one.service == service && one.state == "running").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn every_replica_takes_requests_and_a_key_counts_once_whichever_it_reaches() {
    let stack = Stack::start(Kind::Compose).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(100_000).await;
    let order = make::order(&ada, &[("TEA", 1)]);
    let repeats = join_all(
        (0..50).map(|_| stack.ask(Method::POST, "/v1/orders").key("one-order").json(&order).send()),
    );
    let answers: BTreeSet<String> =
        repeats.await.into_iter().map(|reply| reply.expect(201).text).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(stack.all("/v1/orders").await.len(), 1);
    let mut each = Vec::new();
    for replica in of(&stack, "order").await {
        each.push(answered_by(&replica, PLACED).await);
    }
    assert!(each.iter().sum::<u64>() == 50 && !each.contains(&0), "{each:?} of 50");

    for (service, route) in [
        ("inventory", "/v1/products"),
        ("logistics", "/v1/shipments"),
        ("user", "/v1/users"),
        ("audit", "/v1/audit/events"),
    ] {
        join_all((0..40).map(|_| stack.get(route))).await;
        for replica in of(&stack, service).await {
            let kind = format!("method=\"GET\",route=\"{route}\",status=\"200\"");
            assert_ne!(answered_by(&replica, &kind).await, 0, "{} takes requests", replica.name);
        }
    }
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn replicas_come_and_go_under_load_and_nothing_is_lost_or_doubled() {
    let stack = Stack::start(Kind::Compose).await;
    let world = plenty(&stack).await;
    let mut load = Load::steady(&stack, &world, 6, PAUSE);
    for count in [3, 1, 2] {
        load.answered(load.answers() + 50).await;
        stack.compose().scale(&["order", "inventory", "audit"], count).await;
        let replicas = of(&stack, "order").await;
        assert_eq!(replicas.len(), count);
        for replica in replicas {
            let client = Client::new(replica.url().to_owned());
            until(&format!("{} takes orders", replica.name), PATIENCE, async || {
                // It may not listen yet.
                let metrics = client.ask(Method::GET, "/metrics").try_send().await.ok()?;
                (count_of(PLACED, &metrics.text) > 0).then_some(())
            })
            .await;
        }
    }
    let answered = load.stop().await;
    let orders = nothing_was_lost_or_doubled(stack, &world, &answered).await;
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn replicas_that_hang_hold_nobody_up_for_longer_than_their_bounds_and_wake_without_harm() {
    let stack = Stack::start(Kind::Compose).await;
    let world = plenty(&stack).await;
    let mut load = Load::steady(&stack, &world, 8, PAUSE);
    load.answered(50).await;
    let hanging = [of(&stack, "order").await.remove(0), of(&stack, "inventory").await.remove(0)];
    let clock = Clock::system();
    let from = clock.now();
    docker_on(&["pause"], &hanging).await;
    let watch = Stopwatch::start();
    load.answered(load.answers() + 50).await;
    // Until somebody was caught in the container that hangs, and given up on by the gateway.
    load.given_up(1).await;
    let caught = watch.elapsed();
    let until = clock.now();
    docker_on(&["unpause"], &hanging).await;
    load.answered(load.answers() + 50).await;

    let answered = load.stop().await;
    let orders = nothing_was_lost_or_doubled(stack, &world, &answered).await;
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
    let meanwhile = answered.iter().filter(|one| (from..until).contains(&one.at));
    let held = meanwhile.map(|one| {
        let order = &orders[one.order["id"].as_str().expect("an id")];
        let time =
            |name: &str| Timestamp::parse(order[name].as_str().expect("a time")).expect("RFC 3339");
        time("updated_at").since(time("placed_at"))
    });
    let (held, longest) = (held.max().expect("orders"), longest_request(&answered));
    eprintln!(
        "two replicas hang: others' orders took up to {:.1} s, requests up to {:.1} s; given up on \
         after {:.1} s",
        held.as_secs_f64(),
        longest.as_secs_f64(),
        caught.as_secs_f64()
    );
    assert!(held < HELD + BUSY, "an order was held up for {held:?}");
    assert!(longest < GIVEN_UP + BUSY, "a request took {longest:?}");
}

fn longest_request(answered: &[Answered]) -> Duration {
    answered.iter().map(|one| one.longest).max().expect("orders were answered")
}
