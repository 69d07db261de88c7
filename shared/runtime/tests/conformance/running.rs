//! The real loops, with the real clock: they start, go on through trouble, and stop.

use std::time::Duration;

use waybill_runtime::{
    Clock, CommandError, Handle, Ids, Location, Migrations, OpenError, Runtime, SchemaError,
    Service, StoreError,
};

use crate::counter::{Counter, CounterEvent, CounterId, Follower, Leader, Raise, Settings};
use crate::house::{House, command, counter, noted, raise, request, ringing};

on_both!(
    commands_flow_to_the_follower,
    loops_that_are_aborted_under_load_come_back_and_nothing_is_lost_or_doubled,
    a_stop_answers_everything_that_was_accepted,
    a_timer_that_another_replica_set_fires_here,
    an_operators_wish_is_granted_under_load,
    tables_of_another_version_are_refused,
    a_service_older_than_the_event_store_knows_it_is_not_started,
);
on!(Sqlite, sqlite_alone: a_second_process_on_the_folder_is_refused, a_folder_without_data_is_refused_where_nothing_may_be_made);
on!(Postgres, postgres_alone:
    a_server_that_loses_answered_commits_is_refused,
    a_database_that_cannot_be_reached_is_an_error,
    connections_that_were_cut_while_idle_are_no_trouble,
    another_default_isolation_makes_no_difference,
);

struct Running {
    runtime: Runtime,
    leader: Handle<Leader>,
    follower: Handle<Follower>,
}

async fn open(house: &House, mode: Migrations) -> Result<Runtime, OpenError> {
    let (clock, ids) = (Clock::system(), Ids::system());
    Runtime::open(house.location.clone(), None, clock, ids, mode).await
}

async fn run(house: &House) -> Running {
    let runtime = open(house, Migrations::Apply).await.unwrap();
    let leader = runtime.host(Settings::default()).await.unwrap();
    let follower = runtime.host(Settings::default()).await.unwrap();
    Running { runtime, leader, follower }
}

async fn count<S: Service<Event = CounterEvent>>(
    handle: &Handle<S>,
    counter: CounterId,
) -> Counter {
    let none = Counter { id: counter, total: 0, rings: 0, version: waybill_runtime::Version(0) };
    handle.get::<Counter>(&counter).await.unwrap().unwrap_or(none)
}

/// Waits until it holds, half a minute at most.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "waited half a minute: {what}");
}

async fn commands_flow_to_the_follower(house: House) {
    let running = run(&house).await;
    let a = counter();
    for by in [2, 4, 6] {
        running.leader.submit(request(raise(a, by), None)).await.unwrap();
    }
    until("the follower counts to 12", async || count(&running.follower, a).await.total == 12)
        .await;
    let health = running.runtime.health().report();
    assert!(health.len() == 4 && health.iter().all(|one| one.ready), "{health:?}");
    running.runtime.stop().await;
    house.proven().await;
}

/// Asks until the answer is known, as a client with an idempotency key does.
async fn insist(handle: &Handle<Leader>, command: Raise, key: &str) {
    loop {
        match handle.submit(request(command.clone(), Some(key))).await {
            Ok(_) => return,
            Err(CommandError::Busy | CommandError::Unavailable | CommandError::UnknownOutcome) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(other) => panic!("{key}: {other}"),
        }
    }
}

async fn loops_that_are_aborted_under_load_come_back_and_nothing_is_lost_or_doubled(house: House) {
    let running = run(&house).await;
    let (a, stop) = (counter(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (handle, stop) = (running.leader.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    insist(&handle, raise(a, 2), &format!("{client} {asked}")).await;
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let health = running.runtime.health();
    let ready = |name: &str| health.report().iter().any(|one| one.name == name && one.ready);
    for name in ["leader.writer", "leader.relay", "follower.writer", "follower.relay"] {
        until("it is up", async || ready(name)).await;
        assert!(running.runtime.abort(name), "there is no loop {name}");
        until("it is noticed", async || !ready(name)).await;
        until("it is up again", async || ready(name)).await;
    }
    assert!(!running.runtime.abort("no such loop"));
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut asked = 0;
    for client in clients {
        asked += client.await.unwrap();
    }
    assert!(asked > 100, "{asked} commands are a load");
    until("all arrive", async || count(&running.follower, a).await.total == 2 * asked).await;
    assert_eq!(count(&running.leader, a).await.version.0, asked);
    running.runtime.stop().await;
    assert_eq!(house.count("follower", "select count(*) from dead_letters").await, 0);
    house.proven().await;
}

async fn a_stop_answers_everything_that_was_accepted(house: House) {
    let running = run(&house).await;
    let counters: Vec<CounterId> = (0..300).map(|_| counter()).collect();
    let mut asking = tokio::task::JoinSet::new();
    for counter in counters.clone() {
        let handle = running.leader.clone();
        asking
            .spawn(async move { (counter, handle.submit(request(raise(counter, 2), None)).await) });
    }
    until("some are done", async || count(&running.leader, counters[0]).await.total == 2).await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), running.runtime.stop());
    stopping.await.expect("it stops");
    // What has stopped has closed its databases.
    let later = house.leader().await;
    let mut done = 0;
    while let Some(asked) = asking.join_next().await {
        let (counter, outcome) = asked.unwrap();
        let there = count(&later.handle, counter).await.total;
        match outcome {
            Ok(_) => assert_eq!(there, 2, "answered, so it is there"),
            Err(CommandError::Busy) => assert_eq!(there, 0, "not accepted, so it is not"),
            Err(other) => panic!("neither done nor refused: {other}"),
        }
        done += there;
    }
    assert!(done > 0);
    let relayed = house.count("event_store", "select count(*) from event where source = 'leader'");
    assert_eq!(relayed.await * 2, done, "what was done is passed on before the end");
    assert_eq!(house.count("leader", "select count(*) from runs").await, 0, "a clean end");
    house.proven().await;
}

async fn a_timer_that_another_replica_set_fires_here(house: House) {
    let mut other = house.leader().await;
    let running = run(&house).await;
    let a = counter();
    until("it is up", async || running.runtime.health().report().iter().all(|one| one.ready)).await;
    command(&mut other, [ringing(a, Duration::ZERO)]).await;
    house.execute("leader", "update timers set due_at = 1").await;
    other.close().await;
    until("it rings", async || count(&running.leader, a).await.rings == 1).await;
    running.runtime.stop().await;
}

async fn an_operators_wish_is_granted_under_load(house: House) {
    let settings = Settings::default();
    settings.fails_on.lock().unwrap().push("poison".to_owned());
    let runtime = open(&house, Migrations::Apply).await.unwrap();
    let leader: Handle<Leader> = runtime.host(Settings::default()).await.unwrap();
    let follower: Handle<Follower> = runtime.host(settings.clone()).await.unwrap();
    let (a, b) = (counter(), counter());
    leader.submit(request(noted(a, "poison"), None)).await.unwrap();
    let letters = async || follower.dead_letters(None, None, 9).await.unwrap();
    until("it is parked", async || letters().await.len() == 1).await;
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let follower = follower.clone();
        load.spawn(async move {
            loop {
                follower.submit(request(raise(b, 20), None)).await.unwrap();
            }
        });
    }
    settings.fails_on.lock().unwrap().clear();
    follower.retry(&letters().await[0].id).await.unwrap();
    until("it is handled", async || count(&follower, a).await.total == 1).await;
    load.shutdown().await;
    runtime.stop().await;
    house.proven().await;
}

async fn tables_of_another_version_are_refused(house: House) {
    run(&house).await.runtime.stop().await;
    let later = "insert into _sqlx_migrations (version, description, success, checksum, \
                 execution_time) select 9999, 'later', success, checksum, execution_time \
                 from _sqlx_migrations where version = 1001";
    house.execute("follower", later).await;
    let runtime = open(&house, Migrations::Apply).await.unwrap();
    runtime.host::<Leader>(Settings::default()).await.unwrap();
    let refused = runtime.host::<Follower>(Settings::default()).await;
    let Err(OpenError::Schema(SchemaError::OtherVersion { owner: "follower", detail })) = refused
    else {
        panic!("{refused:?}")
    };
    assert!(detail.contains("9999"), "{detail}");
    house.execute("follower", "delete from _sqlx_migrations where version in (9999, 2001)").await;
    runtime.stop().await;
    let checking = open(&house, Migrations::Check).await.unwrap();
    let refused = checking.host::<Follower>(Settings::default()).await;
    let missing = SchemaError::Missing { owner: "follower" };
    assert_eq!(refused.unwrap_err().to_string(), missing.to_string());
    checking.stop().await;
}

async fn a_service_older_than_the_event_store_knows_it_is_not_started(house: House) {
    let running = run(&house).await;
    running.leader.submit(request(raise(counter(), 1), None)).await.unwrap();
    running.runtime.stop().await;
    house.execute("leader", "delete from outbox").await;
    let runtime = open(&house, Migrations::Apply).await.unwrap();
    let refused = runtime.host::<Leader>(Settings::default()).await;
    assert!(matches!(&refused, Err(OpenError::Store(StoreError::Diverged(_)))), "{refused:?}");
    runtime.stop().await;
}

async fn a_second_process_on_the_folder_is_refused(house: House) {
    let running = run(&house).await;
    let second = open(&house, Migrations::Apply).await;
    let Err(OpenError::InUse { folder }) = second else { panic!("{second:?}") };
    assert_eq!(folder, house.folder());
    running.runtime.stop().await;
    open(&house, Migrations::Apply).await.unwrap().stop().await;
}

async fn a_folder_without_data_is_refused_where_nothing_may_be_made(house: House) {
    let checking = open(&house, Migrations::Check).await;
    assert!(matches!(checking, Err(OpenError::NoData { .. })), "{checking:?}");
}

async fn a_server_that_loses_answered_commits_is_refused(house: House) {
    let (_, name) = house.url().rsplit_once('/').unwrap();
    let off = format!("alter database {name} set synchronous_commit = off");
    house.execute("public", &off).await;
    let refused = open(&house, Migrations::Apply).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::NotDurable { setting: "synchronous_commit", value } if value == "off"),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("synchronous_commit = off"), "{refused}");
}

async fn a_database_that_cannot_be_reached_is_an_error(house: House) {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let (clock, ids) = (Clock::system(), Ids::system());
    let at = Location::Postgres(format!("postgres://waybill@127.0.0.1:{port}/waybill"));
    let refused = Runtime::open(at, None, clock.clone(), ids.clone(), Migrations::Apply).await;
    assert!(matches!(refused, Err(OpenError::Unreachable { .. })), "{refused:?}");
    let at = Location::Postgres(format!("{}_that_is_not_there", house.url()));
    let refused = Runtime::open(at, None, clock.clone(), ids.clone(), Migrations::Apply).await;
    let Err(cause) = refused else { panic!("it opened") };
    assert!(cause.to_string().contains("does not exist"), "{cause}");
    let at = Location::Postgres("mysql://root@localhost/waybill".to_owned());
    let refused = Runtime::open(at, None, clock, ids, Migrations::Apply).await;
    assert!(matches!(refused, Err(OpenError::BadAddress { .. })), "{refused:?}");
}

async fn connections_that_were_cut_while_idle_are_no_trouble(house: House) {
    let running = run(&house).await;
    let a = counter();
    for round in 1..=3 {
        running.leader.submit(request(raise(a, 2), None)).await.unwrap();
        until("all is quiet", async || count(&running.follower, a).await.total == 2 * round).await;
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";
        assert!(house.count("public", cut).await > 0);
    }
    running.leader.submit(request(raise(a, 2), None)).await.unwrap();
    until("they are back", async || count(&running.follower, a).await.total == 8).await;
    running.runtime.stop().await;
    house.proven().await;
}

async fn another_default_isolation_makes_no_difference(house: House) {
    let (_, name) = house.url().rsplit_once('/').unwrap();
    let other = format!("alter database {name} set default_transaction_isolation = 'serializable'");
    house.execute("public", &other).await;
    let a = counter();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let mut leader = house.leader().await;
        replicas.push(tokio::spawn(async move {
            for _ in 0..30 {
                command(&mut leader, [raise(a, 2)]).await;
            }
        }));
    }
    for replica in replicas {
        replica.await.expect("replicas wait for each other, and then see what was done");
    }
    let leader = house.leader().await;
    assert_eq!(crate::house::total(&leader, a).await, 180);
}
