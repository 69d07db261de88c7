//! The operator: what an operator sees of dead letters, and does with them.

use std::collections::BTreeSet;

use anyhow::ensure;
use waybill_runtime::{DeadLetter, DeadLetterStatus, Settled};

use crate::poison::{self, Met, Poison};
use crate::tally::Branch;
use crate::world::{Name, World, at};

/// More dead letters than a service has in a run.
const ALL: usize = 10_000;

impl World {
    /// The service's parked messages; none where no replica is there to ask.
    pub(crate) async fn parked(&mut self, name: Name) -> anyhow::Result<Vec<DeadLetter>> {
        let letters = self.dead_letters(name).await?;
        Ok(letters.into_iter().filter(|l| l.status == DeadLetterStatus::Parked).collect())
    }

    /// All dead letters of the service; none where no replica is there to ask.
    pub(crate) async fn dead_letters(&mut self, name: Name) -> anyhow::Result<Vec<DeadLetter>> {
        Ok(at!(self, name, site => match site.replicas.iter().flatten().next() {
            Some(replica) => replica.handle.dead_letters(None, None, ALL).await?,
            None => Vec::new(),
        }))
    }

    /// Settles a parked message; nothing where no replica is there to do it.
    pub(crate) async fn settle(
        &mut self,
        name: Name,
        letter: &DeadLetter,
        status: DeadLetterStatus,
    ) -> anyhow::Result<Option<Settled>> {
        self.log.line(format_args!("the operator of {name} wants {status} for {letter:?}"));
        if status == DeadLetterStatus::Discarded {
            self.tally.reach(Branch::Discarded);
            self.unsettled.insert(letter.lane.clone());
        }
        self.retrying.insert(name);
        let settled = at!(self, name, site => match site.replicas.iter().flatten().next() {
            Some(replica) if status == DeadLetterStatus::Discarded => {
                Some(replica.handle.discard(&letter.id).await?)
            }
            Some(replica) => Some(replica.handle.retry(&letter.id).await?),
            None => None,
        });
        ensure!(settled != Some(Settled::Unknown), "{letter:?} is listed and not known");
        Ok(settled)
    }

    /// Every poisoned event that a service met is listed, and nothing else was ever parked.
    pub(crate) async fn everything_parked_is_listed(&mut self) -> anyhow::Result<()> {
        let met = poison::met();
        for name in Name::ALL {
            let letters = self.dead_letters(*name).await?;
            let listed = |met: &Met| match met.poison {
                // A deadly one may have led to nothing before its process ended, and a timer may
                // have been cleared after its process did.
                Poison::Deadly | Poison::Timer | Poison::Command => true,
                Poison::Unreadable | Poison::Panic => letters.iter().any(|l| l.id == met.id),
            };
            let mut of_service = met.iter().filter(|met| met.service == name.as_str());
            for met in of_service.clone() {
                self.tally.reach(match met.poison {
                    Poison::Unreadable => Branch::Unreadable,
                    Poison::Panic => Branch::Panicked,
                    Poison::Timer => Branch::TimerPanicked,
                    Poison::Command | Poison::Deadly => continue,
                });
            }
            let missing = of_service.find(|met| !listed(met));
            ensure!(missing.is_none(), "{name} met {missing:?} and does not list it");
            self.note_what_was_parked(*name, &letters, &met)?;
        }
        Ok(())
    }

    fn note_what_was_parked(
        &mut self,
        name: Name,
        letters: &[DeadLetter],
        met: &[Met],
    ) -> anyhow::Result<()> {
        let of_service = met.iter().filter(|met| met.service == name.as_str());
        let poisoned: BTreeSet<&str> = of_service.map(|met| met.id.as_str()).collect();
        for letter in letters {
            let by = if letter.kind == "timer" { &letter.lane } else { &letter.id };
            let failed = !letter.cause.is_empty();
            // Whoever is cut down three times at the same message cannot know that it is not to blame.
            let unlucky = letter.cause.starts_with("ended the process");
            ensure!(
                !failed || unlucky || poisoned.contains(by.as_str()),
                "{name} parked {letter:?} for nothing"
            );
            if unlucky {
                self.tally.reach(Branch::ParkedDeadly);
            }
            if !failed {
                self.tally.reach(Branch::Waited);
            }
            if letter.attempts > 1 && letter.cause.starts_with("panicked") {
                self.tally.reach(Branch::FailedAgain);
            }
        }
        Ok(())
    }
}
