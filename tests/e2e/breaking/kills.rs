//! Processes that are killed: at random, and at every point where something is committed.

use super::{Share, Trial, tally};
use crate::support::{Dice, Kind};

breaking_both!(processes_killed_at_random_lose_and_double_nothing);

async fn processes_killed_at_random_lose_and_double_nothing(kind: Kind) {
    let mut dice = Dice::thrown();
    let mut trial = Trial::start(kind).await;
    let mut share = Share::of(2).at_least(5);
    while share.goes_on() {
        match dice.roll(4) {
            // While it starts.
            0 => {
                trial.stack.kill().await;
                trial.stack.begin_restart();
                tokio::time::sleep(dice.time(0, 400)).await;
                trial.stack.kill().await;
                tally::count(kind, "process killed while it starts", 1);
            }
            // While it stops.
            1 => {
                trial.stack.process().terminate();
                tokio::time::sleep(dice.time(900, 1_200)).await;
                if trial.stack.process_mut().runs() {
                    trial.stack.kill().await;
                    tally::count(kind, "process killed while it stops", 1);
                }
            }
            _ => {
                tokio::time::sleep(dice.time(0, 300)).await;
                trial.stack.kill().await;
                tally::count(kind, "process killed at random", 1);
            }
        }
        trial.stack.restart().await;
        // So that the load goes on, however soon the next one comes.
        trial.answers(1 + usize::from(dice.roll(2) == 0) * 20).await;
    }
    trial.ends_well().await;
}
