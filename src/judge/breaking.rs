//! What goes wrong while a deployment of the judge's own is on trial.

use std::collections::BTreeMap;
use std::time::Duration;

use super::CannotJudge;
use super::dice::Dice;
use super::stack::Stack;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// One process is killed and started again at once.
    Kill,
    /// All are killed at once, and are away for a while.
    KillAll,
    /// One is told to stop, and started again.
    Stop,
    /// One does nothing for a while.
    Pause,
    /// Postgres ends every connection.
    Cut,
}

/// What goes wrong, and how often of a hundred.
const FAULTS: [(Fault, u64); 5] = [
    (Fault::Kill, 50),
    (Fault::KillAll, 12),
    (Fault::Stop, 8),
    (Fault::Pause, 15),
    (Fault::Cut, 15),
];

/// Makes things go wrong, and counts them.
#[derive(Debug)]
pub(crate) struct Breaker {
    every: Duration,
    dice: Dice,
    /// How often each went wrong.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Breaker {
    /// So often, on average.
    pub(crate) fn new(every: Duration, dice: Dice) -> Self {
        Self { every, dice, faults: BTreeMap::new() }
    }

    /// Goes on until it is dropped, or something cannot be made to run again.
    pub(crate) async fn go_on(&mut self, stack: &mut Stack) -> CannotJudge {
        loop {
            let share = u32::try_from(self.dice.between(20, 180)).unwrap_or(100);
            tokio::time::sleep(self.every * share / 100).await;
            if let Err(error) = self.strike(stack).await {
                return error;
            }
        }
    }

    fn choose(&mut self) -> Fault {
        let mut left = self.dice.between(0, 99);
        for (fault, share) in FAULTS {
            if left < share {
                return fault;
            }
            left -= share;
        }
        Fault::Kill
    }

    async fn strike(&mut self, stack: &mut Stack) -> Result<(), CannotJudge> {
        let fault = match self.choose() {
            Fault::Cut if stack.database().is_none() => Fault::Kill,
            fault => fault,
        };
        let (dice, millis) = (&mut self.dice, |dice: &mut Dice, most| dice.millis(0, most));
        let name = match fault {
            Fault::Kill => {
                if let Some(process) = stack.one(dice) {
                    process.kill().await?;
                    process.start(dice)?;
                    // Now and then the next one strikes while it starts.
                    if dice.percent(70) {
                        process.ready(dice).await?;
                    }
                }
                "killed"
            }
            Fault::KillAll => {
                for process in stack.each() {
                    process.kill().await?;
                }
                tokio::time::sleep(millis(dice, 1_000)).await;
                stack.start(dice).await?;
                "all killed at once"
            }
            Fault::Stop => {
                if let Some(process) = stack.one(dice) {
                    process.ready(dice).await?;
                    process.stop().await?;
                    process.start(dice)?;
                }
                "stopped"
            }
            Fault::Pause => {
                if let Some(process) = stack.one(dice) {
                    process.pause()?;
                    tokio::time::sleep(millis(dice, 4_000)).await;
                    process.go_on()?;
                }
                "paused"
            }
            Fault::Cut => {
                if let Some(database) = stack.database() {
                    database.cut().await?;
                }
                "connections to Postgres cut"
            }
        };
        *self.faults.entry(name).or_default() += 1;
        Ok(())
    }

    /// Lets everything run again, whatever was being done to it.
    pub(crate) async fn mend(&mut self, stack: &mut Stack) -> Result<(), CannotJudge> {
        for process in stack.each() {
            process.go_on()?;
        }
        stack.start(&mut self.dice).await
    }
}
