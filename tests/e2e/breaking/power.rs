//! Power that is lost under load: what was written and not synced is gone.

use std::process::Command;

use super::postgres::Postgres;
use super::{Place, Share, Trial};
use crate::support::{Dice, Kind, Options, PATIENCE, until};

breaking_both!(power_lost_at_random_loses_and_doubles_nothing);

/// Room for all that a case writes.
const MEGABYTES: u64 = 1_024;
/// Losses of power on one disk, before everything is looked at.
const LOSSES: usize = 10;

impl Place {
    /// The power is lost under whoever runs, or in the same moment as the machine. Then everything
    /// is started again.
    async fn loses_power(&mut self, trial: &mut Trial, kind: Kind, dice: &mut Dice) {
        if dice.roll(2) == 0 {
            // A process that cannot write any more must not answer as if it had. In the moment itself
            // nobody is in the middle of a sync: on a machine no answer would come of that, but the
            // kernel, when it shuts a file system down, may answer a sync that it drops.
            let clients = [trial.stack.process().id()];
            stopped(&clients).await;
            // Only now: a client that runs would have the server start more of them.
            let server = self.server.as_ref().map(Postgres::processes).unwrap_or_default();
            stopped(&server).await;
            self.disk.loses_power(kind);
            tell("CONT", &server);
            tell("CONT", &clients);
            tokio::time::sleep(dice.time(0, 300)).await;
            self.ends(trial).await;
        } else {
            self.ends(trial).await;
            self.disk.loses_power(kind);
        }
        self.disk.comes_back().await;
        if let Some(server) = &mut self.server {
            server.start().await;
        }
        trial.stack.restart().await;
    }

    /// Every process ends, without a warning.
    async fn ends(&mut self, trial: &mut Trial) {
        if trial.stack.process_mut().runs() {
            trial.stack.kill().await;
        }
        if let Some(server) = &mut self.server {
            server.gone().await;
        }
    }
}

async fn power_lost_at_random_loses_and_doubles_nothing(kind: Kind) {
    let mut dice = Dice::thrown();
    let mut share = Share::of(3).at_least(3);
    while share.goes_on() {
        let mut place = Place::of_megabytes(kind, MEGABYTES).await;
        let mut trial = Trial::of(place.stack(Options::default()).await, kind).await;
        for loss in 0..LOSSES {
            if loss > 0 && !share.goes_on() {
                break;
            }
            trial.answers(1 + usize::from(dice.roll(2) == 0) * 20).await;
            tokio::time::sleep(dice.time(0, 300)).await;
            place.loses_power(&mut trial, kind, &mut dice).await;
        }
        trial.answers(20).await;
        trial.ends_well().await;
    }
}

/// Stops processes, and waits until none of their threads is in the kernel any more.
async fn stopped(processes: &[u32]) {
    tell("STOP", processes);
    until("every thread has stopped", PATIENCE, async || {
        processes.iter().all(|process| has_stopped(*process)).then_some(())
    })
    .await;
}

/// Sends a signal to those that are still there.
fn tell(signal: &str, processes: &[u32]) {
    let ids = processes.iter().map(ToString::to_string);
    // Without any, `kill` says how it is used, and nothing happens.
    drop(Command::new("kill").args(["-s", signal]).args(ids).output());
}

fn has_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    })
}
