//! What goes wrong around the servers: they are killed and stopped in the middle of work, their
//! database goes away, their data is tampered with. Nothing that was answered is lost or doubled.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use uuid::Uuid;
use waybill_runtime::Ids;

use crate::load::{Load, each_exists_once};
use crate::support::{
    Client, Kind, Options, PATIENCE, Process, Stack, Store, World, make, run, until,
};

on_every_deployment!(
    killed_at_random_moments_under_load_nothing_answered_is_lost_or_doubled,
    stopped_under_load_nothing_answered_is_lost_and_streams_end,
    verify_names_a_row_that_was_tampered_with,
    verify_names_an_event_that_was_tampered_with,
);

/// A world that has enough for a load of orders of one piece each.
async fn plenty(client: &Client) -> World {
    World::make(client, &[(100, 1_000), (250, 1_000)], &[100_000; 4]).await
}

/// A number below `bound`, another one each time.
fn random(bound: usize) -> usize {
    let low = Ids::system().next().as_u64_pair().1;
    usize::try_from(low % u64::try_from(bound).expect("it fits")).expect("it fits")
}

async fn killed_at_random_moments_under_load_nothing_answered_is_lost_or_doubled(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    let world = plenty(&stack).await;
    let (clients, each, kills) = (8, 12, 3);
    let mut load = Load::start(&stack, &world, clients, each);
    for kill in 0..kills {
        let share = clients * each / (kills + 1);
        load.answered(kill * share + 1 + random(share)).await;
        tokio::time::sleep(Duration::from_millis(u64::try_from(random(40)).expect("it fits")))
            .await;
        stack.kill().await;
        stack.restart().await;
    }
    let answered = load.finish().await;
    assert_eq!(answered.len(), clients * each);
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), clients * each, "one order for each key");
    each_exists_once(&stack, &answered, &orders).await;
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
    stack.ends_well().await;
}

/// A client that places orders under keys of its own and repeats nothing: it ends when it is not
/// answered any more.
async fn place_while_served(client: Client, customer: String, name: usize) -> Vec<String> {
    let mut answered = Vec::new();
    loop {
        let key = format!("stop-{name}-{}", answered.len());
        let mut order = make::order(&customer, &[("P-0", 1)]);
        order["ship_to"]["line2"] = key.into();
        match client.ask(reqwest::Method::POST, "/v1/orders").json(&order).try_send().await {
            Ok(reply) if reply.status == 201 => {
                answered.push(reply.body["id"].as_str().expect("an id").to_owned());
            }
            Ok(reply) if [502, 503, 504].contains(&reply.status) => return answered,
            Ok(reply) => panic!("answered {} {}", reply.status, reply.text),
            Err(_) => return answered,
        }
    }
}

/// Reads a stream to its end; how many events it brought. Being cut off is not an end.
async fn read_to_end(mut stream: reqwest::Response) -> usize {
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await.expect("the stream ends and is not cut off") {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text.lines().filter(|line| line.starts_with("id:")).count()
}

async fn stopped_under_load_nothing_answered_is_lost_and_streams_end(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    let world = plenty(&stack).await;
    let stream = stack.ask(reqwest::Method::GET, "/v1/audit/stream").open().await;
    assert_eq!(stream.status().as_u16(), 200);
    let stream = tokio::spawn(read_to_end(stream));
    let mut load = JoinSet::new();
    for (name, (customer, _)) in world.customers.iter().cycle().take(8).enumerate() {
        load.spawn(place_while_served(stack.client.clone(), customer.clone(), name));
    }
    until("the load runs", PATIENCE, async || {
        (stack.get("/v1/orders?limit=100").await.expect(200).items().len() == 100).then_some(())
    })
    .await;
    stack.stop().await;
    let answered: Vec<String> = load.join_all().await.into_iter().flatten().collect();
    let streamed = tokio::time::timeout(PATIENCE, stream).await.expect("the stream ends");
    assert!(streamed.expect("it ends well") > 100, "events came by before the end");
    assert!(answered.len() >= 90, "{} orders were answered", answered.len());

    stack.restart().await;
    let orders = world.balances(&stack).await;
    for id in &answered {
        assert!(orders.contains_key(id), "{id} was answered and is lost");
    }
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_callers_hear_so_and_afterwards_nothing_is_lost_or_doubled() {
    let stack = Stack::start(Kind::Postgres).await;
    let world = plenty(&stack).await;
    let mut load = Load::start(&stack, &world, 6, 25);
    load.answered(30).await;
    stack.store().goes_away().await;
    until("the server says that it is not ready", Duration::from_secs(5), async || {
        (stack.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(stack.get("/livez").await.status, 200);
    // By then each client was refused at least once.
    load.refused(load.refusals() + 12).await;
    let answers = load.answers();
    load.refused(load.refusals() + 12).await;
    assert_eq!(load.answers(), answers, "nothing is answered without a database");
    let order = make::order(&world.customers[0].0, &[("P-0", 1)]);
    for refusing in [stack.get("/v1/orders").await, stack.post("/v1/orders", &order).await] {
        assert_eq!(refusing.status, 503, "{refusing:?}");
        assert_ne!(refusing.header("retry-after"), "", "{refusing:?}");
    }

    stack.store().comes_back().await;
    stack.ready().await;
    let answered = load.finish().await;
    assert_eq!(answered.len(), 150);
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), 150, "one order for each key");
    each_exists_once(&stack, &answered, &orders).await;
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_share_the_services_complete_orders() {
    let shop = Options::default().services(&["order", "inventory", "audit"]);
    let bank = Options::default().services(&["logistics", "user"]);
    let stack = Stack::with(Kind::Postgres, shop).await;
    let (mut process, bank) = stack.beside(&bank).await;
    stack.turn_for(&["logistics", "user"], &bank.url(""));
    let world = World::make(&stack, &[(100, 20), (250, 20)], &[3_000, 100_000]).await;
    let answered = Load::start(&stack, &world, 4, 15).finish().await;
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), 60);
    each_exists_once(&stack, &answered, &orders).await;
    let completed = orders.values().filter(|order| order["status"] == "completed").count();
    // 40 pieces, and money for at least 30 of the orders.
    assert!((30..=40).contains(&completed), "{completed} orders were completed");
    process.stop().await;
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_together_on_an_empty_database_make_its_tables_once() {
    let store = Store::new(Kind::Postgres).await;
    let services = [&["order", "audit"][..], &["inventory"], &["logistics"], &["user"], &[]];
    let each = services.map(|services| Options::default().services(services).arguments(&store));
    let started = join_all(each.iter().map(|arguments| Process::serve(arguments))).await;
    for (_, url) in &started {
        Client::new(url.clone()).ready().await;
    }
    let verify = [vec!["verify".to_owned()], store.arguments()].concat();
    let verified = run(&verify).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    join_all(started.into_iter().map(async |(mut process, _)| process.stop().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_of_everything_share_the_work_and_one_may_be_killed() {
    let stack = Stack::start(Kind::Postgres).await;
    let (mut replica, second) = stack.beside(&Options::default()).await;
    let world = plenty(&stack).await;
    let mut load = Load::start(&stack, &world, 4, 20);
    let mut beside = JoinSet::new();
    for (name, (customer, _)) in world.customers.iter().enumerate() {
        beside.spawn(place_while_served(second.clone(), customer.clone(), name));
    }
    load.answered(40).await;
    replica.kill().await;
    let answered = load.finish().await;
    let answered_beside: Vec<String> = beside.join_all().await.into_iter().flatten().collect();
    assert!(!answered_beside.is_empty(), "the second replica took orders");

    let orders = world.balances(&stack).await;
    each_exists_once(&stack, &answered, &orders).await;
    for id in &answered_beside {
        assert!(orders.contains_key(id), "{id} was answered and is lost");
    }
    assert!(orders.values().all(|order| order["status"] == "completed"), "there is enough for all");
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_folder_is_refused_in_a_sentence() {
    let stack = Stack::start(Kind::Sqlite).await;
    let second = run(&stack.options.arguments(stack.store())).await;
    assert_eq!(second.code, Some(2), "{second:?}");
    assert_eq!(second.stderr.lines().count(), 1, "{second:?}");
    assert!(second.stderr.contains("in use by another process"), "{second:?}");
    stack.get("/readyz").await.expect(200);
    stack.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_stopped_leaves_each_database_in_one_file() {
    let mut stack = Stack::start(Kind::Sqlite).await;
    let ada = stack.user(2_000).await;
    stack.product("TEA", 250, 10).await;
    stack.order(&ada, &[("TEA", 2)]).await;
    stack.stop().await;
    let files = std::fs::read_dir(stack.store().folder()).expect("it is there");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("letters"));
    let journals: Vec<String> = names.filter(|name| name.contains(".db-")).collect();
    assert_eq!(journals, [""; 0], "a copy of the databases is a copy of everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_would_lose_answered_commits_is_refused_by_the_name_of_the_setting() {
    let store = Store::new(Kind::Postgres).await;
    let (_, name, server) = store.database();
    server.execute(&format!("alter database {name} set synchronous_commit = off")).await;
    let refused = run(&Options::default().arguments(&store)).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    assert!(refused.stderr.contains("synchronous_commit"), "{refused:?}");
}

/// A stopped server with one completed order; the order's id.
async fn one_order(kind: Kind) -> (Stack, String) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(2_000).await;
    let id = stack.order(&ada, &[("TEA", 2)]).await;
    stack.until_status(&id, "completed").await;
    stack.quiet().await;
    stack.stop().await;
    let verified = stack.verify().await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(Uuid::parse_str(&id).expect("a UUID").to_string(), id);
    (stack, id)
}

/// Verify fails and its last line says all of this.
async fn verify_says(stack: &Stack, parts: &[&str]) {
    let verified = stack.verify().await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    let said = verified.stdout.lines().last().unwrap_or_default();
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

async fn verify_names_a_row_that_was_tampered_with(kind: Kind) {
    let (stack, id) = one_order(kind).await;
    let change = format!("update orders set total = total - 1 where id = '{id}'");
    stack.execute("order", &change).await;
    let row = format!("orders {id}");
    verify_says(&stack, &["order", &row, "column total", "499", "500"]).await;
    let mend = format!("update orders set total = total + 1 where id = '{id}'");
    stack.execute("order", &mend).await;
    assert_eq!(stack.verify().await.code, Some(0), "it is mended");

    stack.execute("inventory", "update products set on_hand = on_hand + 1").await;
    verify_says(&stack, &["inventory", "products TEA", "column on_hand", "9", "8"]).await;
    stack.execute("inventory", "update products set on_hand = on_hand - 1").await;
    stack.execute("user", &format!("delete from payments where order_id = '{id}'")).await;
    let row = format!("payments {id}");
    verify_says(&stack, &["user", &row, "nothing"]).await;
}

async fn verify_names_an_event_that_was_tampered_with(kind: Kind) {
    let (stack, id) = one_order(kind).await;
    let change = format!(
        "update event set data = replace(data, '\"amount\":500', '\"amount\":100') \
         where type = 'order.placed' and stream = 'order-{id}'"
    );
    if kind != Kind::Sqlite {
        let refused = stack.try_execute("event_store", &change).await;
        let refused = refused.expect_err("the event store is append-only");
        assert!(refused.contains("append-only"), "{refused}");
        stack.execute("event_store", "alter table event disable trigger user").await;
    }
    stack.execute("event_store", &change).await;
    verify_says(&stack, &["event_store: position", "order.placed", "data", "\"amount\":100"]).await;
    let mend = change.replace(":500", ":0").replace(":100", ":500").replace(":0", ":100");
    stack.execute("event_store", &mend).await;
    assert_eq!(stack.verify().await.code, Some(0), "it is mended");

    // The service's own history, with the event store left as it was.
    let change = change.replace("update event", "update outbox");
    stack.execute("order", &change).await;
    verify_says(&stack, &["order.placed", "\"amount\":100"]).await;
}
