//! The tables of a new version are made while the old one serves.

use std::cell::Cell;
use std::time::Duration;

use sqlx::{AnyConnection, Connection as _};
use waybill_runtime::{Clock, Handle, Ids, Migrations, Runtime};

use crate::counter::{Counter, CounterId, Leader, NextLeader, Settings};
use crate::house::{House, counter, raise, request};

on!(Postgres, postgres:
    the_next_version_migrates_while_this_one_serves,
    a_migration_that_finds_its_table_in_use_holds_up_nobody_for_long,
);

/// The longest that a command waits behind a migration that waits, with some for a busy machine.
const BOUND: Duration = Duration::from_secs(5);

async fn open(house: &House) -> Runtime {
    let (clock, ids) = (Clock::system(), Ids::system());
    let opening = Runtime::open(house.location.clone(), None, clock, ids, Migrations::Apply);
    opening.await.unwrap()
}

async fn total(leader: &Handle<Leader>, counter: CounterId) -> i64 {
    leader.get::<Counter>(&counter).await.unwrap().unwrap().total
}

async fn red(house: &House) -> i64 {
    house.count("leader", "select count(*) from counters where colour = 'red'").await
}

async fn the_next_version_migrates_while_this_one_serves(house: House) {
    let (serving, next) = (open(&house).await, open(&house).await);
    let leader: Handle<Leader> = serving.host(Settings::default()).await.unwrap();
    let a = counter();
    for _ in 0..20 {
        leader.submit(request(raise(a, 2), None)).await.unwrap();
    }
    let beside = leader.clone();
    let (migrated, mut migrating) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let mut raised = 0;
        let mut after = 0;
        while after < 20 {
            beside.submit(request(raise(a, 2), None)).await.unwrap();
            raised += 1;
            after += i64::from(*migrating.borrow_and_update());
        }
        raised
    });
    next.migrate::<NextLeader>(None).await.unwrap();
    migrated.send(true).unwrap();
    let raised = load.await.unwrap();
    assert_eq!((total(&leader, a).await, red(&house).await), (2 * (20 + raised), 1));
    serving.stop().await;
    next.stop().await;
}

async fn a_migration_that_finds_its_table_in_use_holds_up_nobody_for_long(house: House) {
    let (serving, next) = (open(&house).await, open(&house).await);
    let leader: Handle<Leader> = serving.host(Settings::default()).await.unwrap();
    let a = counter();
    leader.submit(request(raise(a, 2), None)).await.unwrap();
    // Somebody who reads for long, as a backup does.
    let mut reader = AnyConnection::connect(house.url()).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("select count(*) from leader.counters").execute(&mut *reading).await.unwrap();
    let migrated = Cell::new(false);
    let migrating = async {
        next.migrate::<NextLeader>(None).await.unwrap();
        migrated.set(true);
    };
    let serving_meanwhile = async {
        let waiting =
            "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'";
        while house.count("leader", waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..3 {
            let served = leader.submit(request(raise(a, 2), None));
            tokio::time::timeout(BOUND, served).await.expect("it waits no longer").unwrap();
        }
        assert!(!migrated.get(), "it tries again while the reader goes on");
        reading.rollback().await.unwrap();
    };
    tokio::join!(migrating, serving_meanwhile);
    assert_eq!((total(&leader, a).await, red(&house).await), (8, 1));
    serving.stop().await;
    next.stop().await;
}
