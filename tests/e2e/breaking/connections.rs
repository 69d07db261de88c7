//! Connections to Postgres that are cut, slow, or let nothing through.

use std::time::Duration;

use super::wire::{Plan, Way, Wire};
use super::{Share, Trial, tally};
use crate::support::{Dice, Kind, Options, Stack, Stopwatch, Store, until};

/// A trial of a process that reaches its database over a wire. The database goes when the store
/// goes out of scope.
async fn over_a_wire() -> (Store, Wire, Trial) {
    let store = Store::new(Kind::Postgres).await;
    let wire = Wire::to(store.database().0).await;
    let stack = Stack::on(Store::At(wire.url()), Options::default()).await;
    (store, wire, Trial::of(stack, Kind::Postgres).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn commits_whose_answer_is_lost_lose_and_double_nothing() {
    let mut dice = Dice::thrown();
    let (_store, wire, mut trial) = over_a_wire().await;
    let mut share = Share::of(1).at_least(20);
    while share.goes_on() {
        let (plan, fault) = *dice.pick(&[
            (Plan::CutBeforeCommit, "COMMIT lost"),
            (Plan::CutAfterCommit, "answer to COMMIT lost"),
            (Plan::CutAfterCommit, "answer to COMMIT lost"),
        ]);
        wire.carry_out(plan).await;
        tally::count(Kind::Postgres, fault, 1);
        if share.rounds().is_multiple_of(10) {
            trial.answers(5).await;
        }
    }
    trial.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn connections_that_are_cut_slow_or_dropped_one_way_lose_and_double_nothing() {
    let mut dice = Dice::thrown();
    let (_store, wire, mut trial) = over_a_wire().await;
    let mut share = Share::of(2).at_least(10);
    while share.goes_on() {
        let fault = match dice.roll(5) {
            0 => {
                wire.cut();
                "connections cut"
            }
            1 => {
                wire.breaks();
                tokio::time::sleep(dice.time(100, 2_000)).await;
                "connections cut and refused for up to 2 s"
            }
            2 => {
                wire.delays(dice.time(5, 200));
                tokio::time::sleep(dice.time(500, 3_000)).await;
                "connections delayed by up to 200 ms"
            }
            way => {
                wire.holds(if way == 3 { Way::Asked } else { Way::Answered });
                tokio::time::sleep(dice.time(100, 6_000)).await;
                "connections dropped one way for up to 6 s"
            }
        };
        tally::count(Kind::Postgres, fault, 1);
        wire.mend();
        trial.answers(10).await;
    }
    trial.ends_well().await;
}

/// When a process works again whose connections fell silent for ever.
const NOTICED: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn connections_that_fall_silent_for_ever_are_given_up() {
    let (_store, wire, mut trial) = over_a_wire().await;
    for round in 0..8 {
        let way = if round % 2 == 0 { Way::Asked } else { Way::Answered };
        trial.answers(20).await;
        wire.silences(way);
        tally::count(Kind::Postgres, "connections silent for ever", 1);
        let watch = Stopwatch::start();
        // What was under way at that moment is among it.
        let enough = trial.load.answers() + 50;
        until("orders are answered again", NOTICED, async || {
            (trial.load.answers() >= enough).then_some(())
        })
        .await;
        let took = watch.elapsed().as_secs_f64();
        eprintln!("connections silent ({way:?}): {took:.1} s until 50 orders");
    }
    trial.ends_well().await;
}
