//! The command line: what people and programs see of it, and how it says no.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::errors::NOBODY;
use crate::support::{
    Client, Ended, Kind, Options, PATIENCE, Process, Stack, Stopwatch, Store, executable, make,
    run, until,
};

on_both!(
    migrate_makes_the_tables_and_may_be_repeated,
    data_of_another_version_is_refused,
    rebuild_makes_tables_anew_that_verify_agrees_with,
    a_consumer_that_was_rewound_does_nothing_twice,
    what_could_not_be_handled_is_listed_and_settled,
);

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Asks a running server from the terminal.
async fn ask(client: &Client, command: &[&str]) -> Ended {
    let command = command.iter().map(|&word| word.to_owned());
    run(&command.chain(["--server".to_owned(), client.url("")]).collect::<Vec<_>>()).await
}

/// A command of plain words that must succeed; what it prints.
async fn told(client: &Client, command: &str) -> String {
    ask(client, &command.split_whitespace().collect::<Vec<_>>()).await.good()
}

async fn told_json(client: &Client, command: &str) -> Value {
    serde_json::from_str(&told(client, &format!("{command} --json")).await).unwrap()
}

/// A command about the data of a store.
async fn on(store: &Store, command: &str) -> Ended {
    run(&[words(command), store.arguments()].concat()).await
}

impl Ended {
    /// What it printed, if it succeeded, without a word on standard error.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// It failed in this way and said why in one clear sentence, which holds this.
    #[track_caller]
    fn bad(&self, code: i32, sentence: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let said = lines.last().and_then(|line| line.strip_prefix("waybill: "));
        assert!(said.is_some_and(|said| said.contains(sentence)), "{sentence}: {self:?}");
        assert!(lines.iter().all(|line| !line.contains("ERROR") && !line.contains("panicked")));
    }
}

/// Every row of a table, without its headings, by columns.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn every_command_explains_itself() {
    let store = "--data-dir WAYBILL_DATA_DIR --database-url WAYBILL_DATABASE_URL --event-store-url";
    let serve = "--listen WAYBILL_LISTEN 127.0.0.1:8080 --carrier simulated manual --packing 0s \
                 --carrier-transit 2s --order-deadline 15m --peer NAME=URL WAYBILL_PEERS \
                 order inventory logistics user audit";
    let server = "--server WAYBILL_SERVER --json";
    let services = "order inventory logistics user";
    let commands = "serve demo order audit dead-letters healthcheck judge verify rebuild rewind \
                    migrate";
    let explained = [
        ("", format!("{commands} {serve} {store}")),
        ("serve", format!("{serve} {store}")),
        ("demo", format!("--listen --packing --carrier-transit {store}")),
        ("order", format!("place show list cancel watch {server}")),
        ("order place", format!("--customer --line SKU=QUANTITY --idempotency-key {server}")),
        ("order show", format!("<ID> {server}")),
        ("order list", format!("--customer --status --limit cancelling {server}")),
        ("order cancel", format!("<ID> --reason {server}")),
        ("order watch", format!("<ID> {server}")),
        ("audit", format!("events order {server}")),
        (
            "audit events",
            format!(
                "--order --stream --type --source --since --until --after --newest-first --limit \
                 {server}"
            ),
        ),
        ("audit order", format!("<ID> {server}")),
        ("dead-letters", format!("list retry discard {server}")),
        ("dead-letters list", format!("--status parked {services} {server}")),
        ("dead-letters retry", format!("<ID> {services} {server}")),
        ("dead-letters discard", format!("<ID> {services} {server}")),
        ("healthcheck", "--server WAYBILL_SERVER http://127.0.0.1:8080".to_owned()),
        (
            "judge",
            format!(
                "--break --database-url WAYBILL_JUDGE_DATABASE_URL --kill-every 2s --duration 30s \
                 --orders --customers --settle --seed {server}"
            ),
        ),
        ("verify", format!("--json {services} {store}")),
        ("rebuild", format!("{services} {store}")),
        ("rewind", format!("{services} {store}")),
        ("migrate", store.to_owned()),
    ];
    for (command, needed) in explained {
        let help = run(&words(&format!("{command} --help"))).await.good();
        for word in needed.split_whitespace() {
            assert!(help.contains(word), "waybill {command} --help does not say {word}:\n{help}");
        }
    }
    let version = run(&words("--version")).await.good();
    assert_eq!(version, format!("waybill {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn orders_are_placed_shown_listed_and_cancelled_from_a_terminal() {
    let stack = Stack::with(Kind::Sqlite, Options::default().packing("1h")).await;
    stack.product("TEA", 250, 100).await;
    stack.product("CUP", 100, 100).await;
    let (ada, bob) = (stack.user(10_000).await, stack.user(10_000).await);

    let place = format!("order place --customer {ada} --line TEA=2 --line CUP=1");
    let placed = told_json(&stack, &format!("{place} --idempotency-key k")).await;
    assert_eq!((&placed["customer_id"], &placed["total"]), (&json!(ada), &make::euros(600)));
    assert_eq!(placed["lines"].as_array().unwrap().len(), 2);
    assert_eq!(told_json(&stack, &format!("{place} --idempotency-key k")).await, placed);
    let (id, number) = (placed["id"].as_str().unwrap(), placed["number"].as_str().unwrap());
    stack.until_status(id, "confirmed").await;

    let shown = told(&stack, &format!("order show {id}")).await;
    for part in [id, number, "confirmed", &ada, "2 x TEA", "1 x CUP", "600 EUR"] {
        assert!(shown.contains(part), "{part} of {shown}");
    }
    let as_json = told_json(&stack, &format!("order show {id}")).await;
    assert_eq!(as_json, stack.get(&format!("/v1/orders/{id}")).await.body);

    let other = stack.order(&bob, &[("TEA", 1)]).await;
    stack.until_status(&other, "confirmed").await;
    let listed = told(&stack, "order list").await;
    let found: Vec<&str> = rows(&listed).iter().map(|row| row[0]).collect();
    assert_eq!(found, [&other, id], "the newest first:\n{listed}");
    assert!(listed.starts_with(" ID") && listed.contains("STATUS"), "{listed}");
    let of_ada = told_json(&stack, &format!("order list --customer {ada}")).await;
    assert_eq!(
        (of_ada["items"].as_array().unwrap().len(), &of_ada["items"][0]["id"]),
        (1, &json!(id))
    );
    assert_eq!(rows(&told(&stack, "order list --limit 1").await)[0][0], other);

    let reason = ["order", "cancel", id, "--reason", "too late", "--json"];
    let cancelled: Value = serde_json::from_str(&ask(&stack, &reason).await.good()).unwrap();
    assert!(["cancelling", "cancelled"].contains(&cancelled["status"].as_str().unwrap()));
    stack.until_status(id, "cancelled").await;
    let listed = told(&stack, "order list --status cancelled").await;
    assert_eq!((rows(&listed).len(), rows(&listed)[0][0]), (1, id));
    let shown = told(&stack, &format!("order cancel {other}")).await;
    assert!(shown.contains(&other) && shown.contains("cancel"), "{shown}");
    stack.until_status(&other, "cancelled").await;
    stack.ends_well().await;
}

#[tokio::test]
async fn an_order_is_watched_until_its_end() {
    let stack = Stack::with(Kind::Sqlite, Options::default().manual_carrier()).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let order = stack.order(&ada, &[("TEA", 1)]).await;
    let sent = stack.until_status(&order, "dispatched").await;
    let watch = |form: &'static str| {
        let (client, order) = (stack.client.clone(), order.clone());
        tokio::spawn(async move { told(&client, &format!("order watch {order} {form}")).await })
    };
    let (seen, seen_json) = (watch(""), watch("--json"));
    let tracking = format!("/v1/shipments/{}/tracking", sent["shipment"]["id"].as_str().unwrap());
    stack.post(&tracking, &json!({ "status": "delivered" })).await.expect(200);
    let end = stack.until_status(&order, "completed").await;
    let seen = seen.await.unwrap();
    assert!(seen.lines().last().unwrap().ends_with("completed"), "{seen}");
    assert!(seen.lines().all(|line| line.contains(end["number"].as_str().unwrap())), "{seen}");
    let seen = seen_json.await.unwrap();
    let last: Value = serde_json::from_str(seen.lines().last().unwrap()).unwrap();
    assert_eq!(last, end);
    let ended = told(&stack, &format!("order watch {order}")).await;
    assert_eq!(ended.lines().count(), 1, "what has ended does not change: {ended}");
    stack.ends_well().await;
}

#[tokio::test]
async fn events_and_histories_are_read_from_a_terminal() {
    let stack = Stack::start(Kind::Sqlite).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let order = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    stack.quiet().await;
    let all = stack.all("/v1/audit/events").await;
    let listed = told(&stack, "audit events --limit 200").await;
    let listed = rows(&listed);
    assert_eq!(listed.len(), all.len());
    for (row, item) in listed.iter().zip(&all) {
        let event = &item["event"];
        let cells = [&item["recorded_at"], &event["type"], &event["subject"], &event["id"]];
        assert_eq!(row[0], item["position"].to_string());
        assert_eq!(row[1..], cells.map(|cell| cell.as_str().unwrap()));
    }
    let middle = all[all.len() / 2]["recorded_at"].as_str().unwrap();
    for (options, query) in [
        (format!("--order {order}"), format!("order_id={order}&limit=50")),
        (format!("--stream order-{order} --limit 3"), format!("stream=order-{order}&limit=3")),
        ("--type order.placed".to_owned(), "type=order.placed&limit=50".to_owned()),
        ("--source user --after 4".to_owned(), "source=user&after=4&limit=50".to_owned()),
        (format!("--since {middle}"), format!("since={middle}&limit=50")),
        (format!("--until {middle}"), format!("until={middle}&limit=50")),
        ("--newest-first --limit 2".to_owned(), "direction=desc&limit=2".to_owned()),
    ] {
        let asked = stack.get(&format!("/v1/audit/events?{query}")).await.expect(200).body;
        assert!(!asked["items"].as_array().unwrap().is_empty(), "{query}");
        assert_eq!(told_json(&stack, &format!("audit events {options}")).await, asked);
    }

    let history = stack.get(&format!("/v1/audit/orders/{order}")).await.expect(200).body;
    assert_eq!(told_json(&stack, &format!("audit order {order}")).await, history);
    let tree = told(&stack, &format!("audit order {order}")).await;
    let timeline = history["timeline"].as_array().unwrap();
    assert_eq!(tree.lines().count(), timeline.len() + 1, "{tree}");
    let placed = tree.lines().nth(1).unwrap().trim_start();
    assert!(placed.starts_with("order.placed"), "what began it comes first:\n{tree}");
    for line in tree.lines().skip(2) {
        assert!(line.trim_start().starts_with("└ "), "all else follows from it:\n{tree}");
    }
    stack.ends_well().await;
}

async fn what_could_not_be_handled_is_listed_and_settled(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    assert_eq!(told_json(&stack, "dead-letters list").await, json!([]));
    let nothing = told(&stack, "dead-letters list").await;
    assert_eq!((nothing.lines().count(), nothing.contains("CAUSE")), (1, true), "{nothing}");
    stack.stop().await;
    // An event of a version that this program does not know yet.
    let unknown = format!(
        "insert into outbox select position + 1, '{NOBODY}', 'product.changed', 99, stream, \
         stream_version + 1, occurred_at, correlation_id, causation_id, actor, '', '{{}}' \
         from outbox where position = 1"
    );
    stack.execute("inventory", &unknown).await;
    stack.restart().await;
    until("the event is parked", PATIENCE, async || {
        let found = told_json(&stack, "dead-letters list order --status parked").await;
        found.as_array().unwrap().first().map(|letter| assert_eq!(letter["id"], NOBODY))
    })
    .await;
    let listed = told(&stack, "dead-letters list").await;
    let listed = rows(&listed);
    assert_eq!(listed[0][..4], ["order", NOBODY, "parked", "product.changed"], "{listed:?}");
    assert_eq!(told_json(&stack, "dead-letters list inventory").await, json!([]));

    let retried = told(&stack, &format!("dead-letters retry order {NOBODY}")).await;
    assert!(retried.starts_with(&format!("{NOBODY} is now ")), "{retried}");
    until("it is parked again", PATIENCE, async || {
        let found = told_json(&stack, "dead-letters list --status parked").await;
        (!found.as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    let discarded = told(&stack, &format!("dead-letters discard order {NOBODY}")).await;
    assert_eq!(discarded, format!("{NOBODY} is now discarded\n"));
    let listed = told_json(&stack, "dead-letters list --status discarded").await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    for settle in ["retry", "discard"] {
        let again = ask(&stack, &["dead-letters", settle, "order", NOBODY]).await;
        again.bad(1, "Conflict");
        ask(&stack, &["dead-letters", settle, "user", NOBODY]).await.bad(1, "Not Found");
    }
    stack.stop().await;
}

#[tokio::test]
async fn a_refusal_of_the_server_is_exit_code_1_and_its_reasons() {
    let stack = Stack::start(Kind::Sqlite).await;
    for command in ["order show", "order watch", "order cancel", "audit order"] {
        let words: Vec<&str> = command.split(' ').chain([NOBODY]).collect();
        ask(&stack, &words).await.bad(1, "Not Found");
    }
    let unknown = ["order", "place", "--customer", NOBODY, "--line", "NONE=1"];
    let refused = ask(&stack, &unknown).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.starts_with("waybill: Unprocessable Content"), "{refused:?}");
    assert!(refused.stderr.contains("/lines/0/sku there is no product NONE"), "{refused:?}");
    let limit = ask(&stack, &["order", "list", "--limit", "201"]).await;
    assert_eq!(limit.code, Some(1));
    assert!(limit.stderr.ends_with("/limit must be a whole number from 1 to 200\n"), "{limit:?}");
    let gone = run(&words("order list --server http://127.0.0.1:1")).await;
    gone.bad(1, "http://127.0.0.1:1/ cannot be reached");
    stack.ends_well().await;
}

#[tokio::test]
async fn what_the_command_line_cannot_mean_is_exit_code_2() {
    let place = format!("order place --customer {NOBODY}");
    for (command, named) in [
        ("--unknown".to_owned(), "--unknown"),
        ("order".to_owned(), "Usage"),
        ("order show nobody".to_owned(), "UUID"),
        ("order list --status lost".to_owned(), "cancelling"),
        (place.clone(), "--line"),
        (format!("{place} --line TEA"), "SKU=QUANTITY"),
        (format!("{place} --line TEA=0"), "1 to 1000000"),
        (format!("{place} --line T/A=1"), "SKU"),
        ("serve nothing".to_owned(), "inventory"),
        ("--packing soon".to_owned(), "30s"),
        ("--carrier pigeon".to_owned(), "manual"),
        ("rebuild".to_owned(), "SERVICE"),
        ("rebuild orders".to_owned(), "inventory"),
        ("dead-letters retry audit x".to_owned(), "logistics"),
        ("serve audit --peer order".to_owned(), "NAME=URL, such as order=http://order:8080"),
        ("serve audit --peer order=order:8080".to_owned(), "NAME=URL"),
        ("serve audit --peer order=https://order".to_owned(), "NAME=URL"),
        ("serve audit --peer shop=http://shop".to_owned(), "it is one of order, inventory"),
    ] {
        let ended = run(&words(&command)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{command}: {ended:?}");
        assert!(ended.stderr.contains(named), "{command} does not say {named}: {ended:?}");
    }
    let server = "is not the address of a server";
    for command in [
        "order list --server nonsense",
        "healthcheck --server nonsense",
        "healthcheck --server https://localhost",
    ] {
        run(&words(command)).await.bad(2, server);
    }
}

#[tokio::test]
async fn services_and_peers_that_make_no_process_are_exit_code_2_and_one_sentence() {
    let store = Store::new(Kind::Sqlite).await;
    let peer = "--peer order=http://order:8080";
    for (command, sentence) in [
        (format!("serve order audit {peer}"), "this process serves order itself"),
        (format!("serve {peer}"), "this process serves order itself"),
        (format!("serve audit {peer} {peer}"), "the peer order is named twice"),
        (format!("serve audit {peer},order=http://other"), "the peer order is named twice"),
        ("serve order audit order".to_owned(), "the service order is named twice"),
    ] {
        let ended = on(&store, &command).await;
        ended.bad(2, sentence);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    let Store::Folder(folder) = &store else { panic!("it is a folder") };
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "nothing was begun");
}

/// What a health check says of whoever is at this address, and how it ends.
async fn health_of(url: &str) -> Ended {
    run(&words(&format!("healthcheck --server {url}"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_is_exit_code_0_while_the_server_can_do_its_work() {
    let stack = Stack::start(Kind::Postgres).await;
    assert_eq!(health_of(&stack.url("")).await.good(), "");
    stack.store().goes_away().await;
    let ended = until("the server is not well", Duration::from_secs(5), async || {
        let ended = health_of(&stack.url("")).await;
        ended.stderr.contains("order.writer: the database does not answer").then_some(ended)
    })
    .await;
    ended.bad(1, &format!("{}/ is not ready: ", stack.url("")));
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    stack.store().comes_back().await;
    stack.ready().await;
    assert_eq!(health_of(&stack.url("")).await.good(), "");
    stack.ends_well().await;
}

#[tokio::test]
async fn a_health_check_of_what_does_not_answer_says_so_within_its_patience() {
    health_of("http://127.0.0.1:1").await.bad(1, "http://127.0.0.1:1/ does not answer");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let watch = Stopwatch::start();
    let ended = health_of(&url).await;
    ended.bad(1, &format!("{url}/ does not answer within 3s"));
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(watch.elapsed() < Duration::from_secs(6), "after {:?}", watch.elapsed());
}

#[tokio::test]
async fn data_that_cannot_be_had_is_exit_code_2_and_one_sentence() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().to_str().unwrap();
    let url = "postgres://waybill@127.0.0.1:1/waybill";
    for command in
        ["serve --listen 127.0.0.1:0", "verify", "rebuild order", "rewind order", "migrate"]
    {
        let unreachable = run(&words(&format!("{command} --database-url {url}"))).await;
        unreachable.bad(2, "cannot be opened");
        for bad in ["mysql://localhost/x", "nonsense"] {
            let ended = run(&words(&format!("{command} --database-url {bad}"))).await;
            ended.bad(2, "is not the address of a Postgres database");
        }
    }
    for command in ["verify", "rebuild order", "rewind order"] {
        let ended = run(&words(&format!("{command} --data-dir {folder}/none"))).await;
        ended.bad(2, "there is no Waybill data in");
    }
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    for command in ["serve --listen 127.0.0.1:0", "migrate"] {
        let ended = run(&words(&format!("{command} --data-dir {folder}/file"))).await;
        ended.bad(2, "cannot be used");
    }
}

#[tokio::test]
async fn a_folder_or_an_address_that_is_in_use_is_exit_code_2() {
    let stack = Stack::start(Kind::Sqlite).await;
    stack.user(1_000).await;
    for command in ["serve --listen 127.0.0.1:0", "rebuild order", "rewind order", "migrate"] {
        on(stack.store(), command).await.bad(2, "is in use by another process");
    }
    // Reading is allowed beside a server.
    on(stack.store(), "verify").await.good();

    let other = Store::new(Kind::Sqlite).await;
    let taken = stack.url("").replace("http://", "");
    let ended = on(&other, &format!("serve --listen {taken}")).await;
    ended.bad(2, &format!("cannot listen on {taken}"));
    on(&other, "serve --listen nowhere").await.bad(2, "cannot listen on nowhere");
    // What had begun came to a clean end.
    let mut after = Process::serve(&Options::default().arguments(&other)).await.0;
    let careful = after.log().into_iter().find(|line| line.contains("cleanly"));
    assert_eq!(careful, None);
    after.terminate();
    assert_eq!(after.ended().await.code(), Some(0));
    stack.ends_well().await;
}

async fn migrate_makes_the_tables_and_may_be_repeated(kind: Kind) {
    let store = Store::new(kind).await;
    for _ in 0..2 {
        assert_eq!(on(&store, "migrate").await.good(), "the tables are up to date\n");
    }
    let verified = on(&store, "verify").await.good();
    assert!(verified.ends_with("verified: tables, outboxes and event store agree\n"), "{verified}");
    let (mut process, url) = Process::serve(&Options::default().arguments(&store)).await;
    let client = Client::new(url);
    client.ready().await;
    client.user(1_000).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    on(&store, "migrate").await.good();
    on(&store, "verify").await.good();
}

async fn data_of_another_version_is_refused(kind: Kind) {
    let store = Store::new(kind).await;
    on(&store, "migrate").await.good();
    let checksum = match kind {
        Kind::Sqlite => "x'00'",
        Kind::Postgres | Kind::Compose => "'\\x00'::bytea",
    };
    let newer = format!(
        "insert into _sqlx_migrations \
         (version, description, installed_on, success, checksum, execution_time) \
         values (99999999, 'what is to come', current_timestamp, true, {checksum}, 0)"
    );
    let all = ["serve --listen 127.0.0.1:0", "migrate", "verify", "rebuild order", "rewind order"];
    for (owner, commands) in [("order", &all[..]), ("event_store", &all[..3])] {
        store.execute(owner, &newer).await;
        for command in commands {
            let ended = on(&store, command).await;
            ended.bad(2, "another version of Waybill");
            assert!(ended.stderr.contains(owner), "{command} names {owner}: {ended:?}");
        }
        let back = "delete from _sqlx_migrations where version = 99999999";
        store.execute(owner, back).await;
    }
    on(&store, "verify").await.good();
}

/// A server on which one order was completed, one rejected and one cancelled.
async fn with_history(kind: Kind) -> Stack {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 100).await;
    let ada = stack.user(10_000).await;
    let mut orders = Vec::new();
    for quantity in [1, 90, 2] {
        orders.push(stack.order(&ada, &[("TEA", quantity)]).await);
    }
    for order in orders {
        stack.until_ended(&order).await;
    }
    stack.quiet().await;
    stack
}

async fn rebuild_makes_tables_anew_that_verify_agrees_with(kind: Kind) {
    let mut stack = with_history(kind).await;
    let before = stack.all("/v1/orders").await;
    stack.stop().await;
    for service in ["order", "inventory", "logistics", "user"] {
        let rebuilt = on(stack.store(), &format!("rebuild {service}")).await.good();
        assert!(
            rebuilt.starts_with(&format!("rebuilt the tables of {service} from ")),
            "{rebuilt}"
        );
    }
    assert_eq!(on(stack.store(), "rebuild audit").await.good(), "audit owns no tables\n");
    stack.execute("order", "update orders set status = 'placed' where status = 'completed'").await;
    let differs = on(stack.store(), "verify").await;
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(
        differs.stdout.contains("orders") && differs.stdout.contains("expected"),
        "{differs:?}"
    );
    let report = on(stack.store(), "verify --json").await;
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["difference"]["place"].as_str().unwrap().contains("orders"), "{report}");

    on(stack.store(), "rebuild order").await.good();
    let verified = on(stack.store(), "verify --json").await.good();
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!((&verified["ok"], &verified["difference"]), (&json!(true), &Value::Null));
    assert_eq!(verified["services"].as_array().unwrap().len(), 5, "{verified}");
    stack.restart().await;
    assert_eq!(stack.all("/v1/orders").await, before);
    stack.ends_well().await;
}

async fn a_consumer_that_was_rewound_does_nothing_twice(kind: Kind) {
    let mut stack = with_history(kind).await;
    let before = stack.all("/v1/audit/events").await;
    stack.stop().await;
    for service in ["order", "inventory", "logistics", "user"] {
        let rewound = on(stack.store(), &format!("rewind {service}")).await.good();
        assert!(rewound.starts_with(service), "{rewound}");
    }
    stack.restart().await;
    stack.quiet().await;
    for service in ["order", "inventory", "logistics", "user"] {
        let heard = stack.get(&format!("/v1/ops/{service}/consumers")).await.expect(200);
        assert_eq!(
            heard.items()[0]["position"],
            before.len(),
            "{service} has read everything again"
        );
    }
    assert_eq!(stack.all("/v1/audit/events").await, before);
    // And it goes on as ever.
    let ada = stack.all("/v1/users").await[0]["id"].as_str().unwrap().to_owned();
    let order = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&order, "completed").await;
    stack.ends_well().await;
}

#[tokio::test]
async fn options_come_from_the_environment_too() {
    let stack = Stack::start(Kind::Sqlite).await;
    stack.user(1_000).await;
    let output = async |name: &str, value: &str, command: &str| {
        let mut command = tokio::process::Command::from(executable(&words(command)));
        let output = command.env(name, value).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let listed = output("WAYBILL_SERVER", &stack.url(""), "order list --json").await;
    assert_eq!(listed.0, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&listed.1).unwrap()["items"], json!([]));
    let folder = stack.store().arguments().pop().unwrap();
    let verified = output("WAYBILL_DATA_DIR", &folder, "verify").await;
    assert!(verified.0 == Some(0) && verified.1.contains("agree"), "{verified:?}");
    let healthy = output("WAYBILL_SERVER", &stack.url(""), "healthcheck").await;
    assert_eq!(healthy, (Some(0), String::new()));
    let (url, peers) = (stack.url(""), "order=http://order,user=http://user,order=http://order");
    assert_eq!(output("WAYBILL_PEERS", peers, "serve audit").await.0, Some(2));
    // As in the container of a server that has peers.
    let healthy = output("WAYBILL_PEERS", peers, &format!("healthcheck --server {url}")).await;
    assert_eq!(healthy, (Some(0), String::new()));
    let bad = output("WAYBILL_PACKING", "soon", "serve").await;
    assert_eq!(bad.0, Some(2));
    stack.ends_well().await;
}

#[tokio::test]
async fn the_demo_shows_every_end_and_one_history_and_stays_up() {
    let store = Store::new(Kind::Sqlite).await;
    let demo = "demo --listen 127.0.0.1:0 --packing 300ms --carrier-transit 300ms";
    let arguments = [words(demo), store.arguments()].concat();
    let mut command = tokio::process::Command::from(executable(&arguments));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut demo = command.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut shown = Vec::new();
    let showing = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let over = line.contains("stays up");
            shown.push(line);
            if over {
                return;
            }
        }
    };
    tokio::time::timeout(2 * PATIENCE, showing).await.expect("the demo comes to its end");
    let all = shown.join("\n");
    for end in ["completed", "rejected", "cancelled"] {
        let summed = shown.iter().find(|line| line.contains("ended")).expect("a summary");
        let count = summed.split(&format!(" {end}")).next().unwrap().rsplit(' ').next().unwrap();
        assert!(count.parse::<u32>().unwrap() > 0, "{summed}");
    }
    for event in ["order.placed", "stock.reserved", "payment.captured", "order.completed"] {
        assert!(all.contains(event), "{event} is in the history:\n{all}");
    }
    let url = all.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let client = Client::new(url.to_owned());
    client.ready().await;
    let orders = client.all("/v1/orders").await;
    for end in ["completed", "rejected", "cancelled"] {
        assert!(orders.iter().any(|order| order["status"] == end), "{end}");
    }
    assert!(demo.try_wait().unwrap().is_none(), "it stays up");
    client.ask(Method::GET, "/docs/").send().await.expect(200);
    let pid = demo.id().unwrap().to_string();
    let told = tokio::process::Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status();
    assert!(told.await.unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(10), demo.wait()).await;
    assert_eq!(ended.expect("it ends when it is told to").unwrap().code(), Some(0));
    on(&store, "verify").await.good();
}
