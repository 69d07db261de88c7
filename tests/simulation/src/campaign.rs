//! Many runs, several at once.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};

use crate::{Run, Tally, Template, run};

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Campaign {
    /// What they reached.
    pub tally: Tally,
    /// The seeds that failed, in order, each with what was violated.
    pub failures: Vec<(u64, String)>,
}

/// How many runs, and when they stop.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How many run at once.
    pub jobs: usize,
    /// Whether the others go on after one has failed.
    pub keep_going: bool,
}

/// Runs them, and calls `on_end` after each.
pub fn run_many(plan: &Plan, on_end: &(dyn Fn() + Sync)) -> anyhow::Result<Campaign> {
    let template = alone()?.block_on(Template::make())?;
    let next = AtomicU64::new(plan.seeds.start);
    let stopped = AtomicBool::new(false);
    let campaign = Mutex::new(Campaign::default());
    let work = || -> anyhow::Result<()> {
        let runtime = alone()?;
        while !stopped.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if !plan.seeds.contains(&seed) {
                break;
            }
            let ended = runtime.block_on(run(&template, seed, false));
            let Run { outcome, tally, .. } = ended.with_context(|| format!("seed {seed}"))?;
            let mut campaign = campaign.lock().unwrap_or_else(PoisonError::into_inner);
            campaign.tally.add(&tally);
            if let Err(violation) = outcome {
                campaign.failures.push((seed, format!("{violation:#}")));
                stopped.store(!plan.keep_going, Ordering::SeqCst);
            }
            drop(campaign);
            on_end();
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a run panicked"))));
        joined.try_for_each(|ended| ended)
    })?;
    let mut campaign = campaign.into_inner().unwrap_or_else(PoisonError::into_inner);
    campaign.failures.sort_unstable();
    Ok(campaign)
}

/// Runs one seed, and keeps the text of its log.
pub fn run_one(seed: u64) -> anyhow::Result<Run> {
    let runtime = alone()?;
    let template = runtime.block_on(Template::make())?;
    runtime.block_on(run(&template, seed, true))
}

/// A run has its thread to itself.
fn alone() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
