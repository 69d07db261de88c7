//! The stack as a whole: how it comes up, what it keeps, who may do what in its database, and who
//! watches it.

use serde_json::Value;

use crate::support::{Client, Compose, Kind, PATIENCE, Stack, Stopwatch, until};

/// Places an order and waits until it is completed; its id.
async fn complete_an_order(client: &Client, sku: &str) -> String {
    client.product(sku, 250, 10).await;
    let ada = client.user(1_000).await;
    let order = client.order(&ada, &[(sku, 2)]).await;
    client.until_status(&order, "completed").await;
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn one_command_brings_up_everything_that_an_order_needs() {
    let compose = Compose::alone().await;
    compose.down(&["--volumes"]).await;
    let watch = Stopwatch::start();
    compose.up(&["--detach"]).await;
    let client = compose.gateway().await;
    client.ready().await;
    complete_an_order(&client, "TEA").await;
    eprintln!("from up to the first completed order: {:.1} s", watch.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn what_was_there_before_down_is_there_after_up_and_it_goes_on() {
    let stack = Stack::start(Kind::Compose).await;
    let order = complete_an_order(&stack, "TEA").await;
    stack.quiet().await;
    let (orders, events) = (stack.all("/v1/orders").await, stack.all("/v1/audit/events").await);
    stack.compose().down(&[]).await;
    stack.compose().up(&["--detach", "--wait"]).await;
    assert_eq!(stack.all("/v1/orders").await, orders);
    assert_eq!(stack.all("/v1/audit/events").await, events);
    let next = complete_an_order(&stack, "CUP").await;
    assert_ne!(next, order);
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn the_role_of_one_service_cannot_read_anothers_tables_and_cannot_change_an_event() {
    let stack = Stack::start(Kind::Compose).await;
    complete_an_order(&stack, "TEA").await;
    let order = async |sql: &str| {
        let psql = ["exec", "-T", "postgres", "psql", "-U", "waybill_order", "-d", "waybill"];
        stack.compose().project.try_compose(&[&psql[..], &["-c", sql]].concat()).await
    };
    for own in ["select * from \"order\".orders", "select * from event_store.event limit 1"] {
        let read = order(own).await;
        assert_eq!(read.code, Some(0), "{own}: {read:?}");
        assert!(read.stdout.contains("(1 row)"), "{own}: {read:?}");
    }
    for (refused, what) in [
        ("select * from inventory.products", "schema inventory"),
        ("update event_store.event set data = '{}'", "table event"),
        ("delete from event_store.event", "table event"),
        ("truncate event_store.event", "table event"),
        ("update \"order\".outbox set data = '{}'", "table outbox"),
    ] {
        let refusal = order(refused).await;
        assert_ne!(refusal.code, Some(0), "{refused}: {refusal:?}");
        let said = format!("permission denied for {what}");
        assert!(refusal.stderr.contains(&said), "{refused}: {refusal:?}");
    }
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn prometheus_reads_every_replica_and_knows_the_alert_rules() {
    let stack = Stack::start(Kind::Compose).await;
    let compose = stack.compose();
    compose.project.compose(&["up", "--detach", "--no-deps", "prometheus"]).await;
    let prometheus = Client::new(compose.project.one("prometheus").await.url().to_owned());
    let replicas = compose.project.replicas().await.len();
    assert_eq!(replicas, 10);
    until("Prometheus reads every replica", 2 * PATIENCE, async || {
        let reply =
            prometheus.ask(reqwest::Method::GET, "/api/v1/targets").try_send().await.ok()?;
        let targets = reply.body["data"]["activeTargets"].as_array()?.clone();
        let up = targets.iter().filter(|target| target["health"] == "up").count();
        (up == replicas && targets.len() == replicas).then_some(())
    })
    .await;
    let rules = prometheus.get("/api/v1/rules").await.expect(200).body;
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() >= 4, "{rules:#?}");
    for rule in rules {
        // Evaluated at least once, by which a wrong expression shows.
        let name = rule["name"].as_str().expect("a name").to_owned();
        until(&format!("{name} is evaluated"), 2 * PATIENCE, async || {
            let reply = prometheus.get("/api/v1/rules").await.expect(200).body;
            let groups = reply["data"]["groups"].as_array()?.clone();
            let all = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
            all.filter(|rule| rule["name"] == *name).find_map(|rule| {
                match rule["health"].as_str() {
                    Some("ok") => Some(()),
                    Some("unknown") => None,
                    other => panic!("{name} is {other:?}: {rule:#}"),
                }
            })
        })
        .await;
    }
    compose.project.compose(&["rm", "--stop", "--force", "prometheus"]).await;
    stack.ends_well().await;
}
