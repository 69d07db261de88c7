//! A replica that stops in the middle of its work, holding its turn: others go on soon.

use std::time::Duration;

use sqlx::{AnyConnection, Connection as _};

use super::wire::{Plan, Wire};
use super::{Trial, tally};
use crate::support::{Dice, Kind, Options, PATIENCE, Stack, Stopwatch, Store, signal, until};

/// For how long others wait at most for a turn that is held by somebody who has stopped.
const HELD: Duration = Duration::from_secs(5);
/// What a busy machine may add to that.
const BUSY: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// How long it takes until so many more orders are answered by those who go on.
async fn others_go_on(trial: &mut Trial, held_since: &Stopwatch) {
    trial.answers(12).await;
    let took = held_since.elapsed();
    eprintln!("others went on after {:.1} s", took.as_secs_f64());
    assert!(took < HELD + BUSY, "others went on after {took:?}");
}

/// Sessions that have been in the same transaction for a while, which only one who stopped is.
async fn held(url: &str) -> i64 {
    let held = "select count(*) from pg_stat_activity where datname = current_database() \
                and xact_start < clock_timestamp() - interval '300 ms' and pid <> pg_backend_pid()";
    let mut connection = AnyConnection::connect(url).await.expect("the server answers");
    let held = sqlx::query_scalar(held).fetch_one(&mut connection).await.expect("a number");
    connection.close().await.expect("it ends");
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_replica_that_is_stopped_while_it_holds_a_turn_holds_others_up_for_5_s_at_most() {
    let mut dice = Dice::thrown();
    let stack = Stack::start(Kind::Postgres).await;
    let url = stack.store().database().0.to_owned();
    let mut trial = Trial::of(stack, Kind::Postgres).await;
    for _ in 0..ROUNDS {
        let (mut replica, client) = trial.stack.beside(&Options::default()).await;
        let watch = until("it is stopped in a transaction", PATIENCE, async || {
            // It is at work: it hears the same events, and is asked now and then.
            for _ in 0..dice.roll(4) {
                client.user(100).await;
            }
            tokio::time::sleep(dice.time(0, 60)).await;
            signal("STOP", &[replica.id()]);
            let watch = Stopwatch::start();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if held(&url).await > 0 {
                return Some(watch);
            }
            signal("CONT", &[replica.id()]);
            None
        })
        .await;
        tally::count(Kind::Postgres, "replica stopped while it holds a turn", 1);
        others_go_on(&mut trial, &watch).await;
        signal("CONT", &[replica.id()]);
        client.ready().await;
        trial.answers(12).await;
        replica.stop().await;
    }
    trial.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_replica_that_stops_in_mid_read_while_it_holds_a_turn_holds_others_up_for_5_s_at_most() {
    let stack = Stack::start(Kind::Postgres).await;
    let wire = Wire::to(stack.store().database().0).await;
    let mut trial = Trial::of(stack, Kind::Postgres).await;
    for _ in 0..ROUNDS {
        let stopping = Stack::on(Store::At(wire.url()), Options::default()).await;
        wire.carry_out(Plan::StopInMidRead).await;
        let watch = Stopwatch::start();
        tally::count(Kind::Postgres, "replica stopped in mid-read while it holds a turn", 1);
        others_go_on(&mut trial, &watch).await;
        drop(stopping);
        wire.cut();
    }
    trial.ends_well().await;
}
