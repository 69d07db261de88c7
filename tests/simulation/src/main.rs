//! `waybill-sim`: as many simulated runs as asked, on all cores.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use waybill_simulation::{Run, Tally, Template, run};

/// Runs the whole system in one thread, under a scheduler that breaks whatever can break, and checks
/// that nothing is lost, doubled, oversold, reordered or left hanging. Each seed is one run, the
/// same each time.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How many seeds to run.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Run this seed alone, and print its log.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Run this many at once; one for each core if left out.
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Go on after a seed has failed.
    #[arg(long)]
    keep_going: bool,
    /// Fail if a rare branch was never reached.
    #[arg(long)]
    all_branches: bool,
}

/// What all threads share.
struct Campaign<'a> {
    options: &'a Options,
    template: &'a Template,
    bar: ProgressBar,
    next: AtomicU64,
    stopped: AtomicBool,
    tally: Mutex<Tally>,
    failures: Mutex<Vec<(u64, String)>>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let template = runtime()?.block_on(Template::make())?;
    match options.seed {
        Some(seed) => one(&template, seed),
        None => many(&options, &template),
    }
}

/// A run has its thread to itself.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn one(template: &Template, seed: u64) -> anyhow::Result<ExitCode> {
    let Run { outcome, log, .. } = runtime()?.block_on(run(template, seed, true))?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", log.text().unwrap_or_default())?;
    writeln!(out, "seed {seed}: {}", log.digest())?;
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn many(options: &Options, template: &Template) -> anyhow::Result<ExitCode> {
    let style =
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} seeds {per_sec} {eta}")?;
    let campaign = Campaign {
        options,
        template,
        bar: ProgressBar::new(options.seeds).with_style(style),
        next: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        tally: Mutex::default(),
        failures: Mutex::default(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.unwrap_or(cores).max(1))
            .map(|_| scope.spawn(|| campaign.work()))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?
        })
    })?;
    campaign.report()
}

impl Campaign<'_> {
    /// Takes seeds until there are none left.
    fn work(&self) -> anyhow::Result<()> {
        let runtime = runtime()?;
        while !self.stopped.load(Ordering::SeqCst) {
            let taken = self.next.fetch_add(1, Ordering::SeqCst);
            if taken >= self.options.seeds {
                break;
            }
            let seed = self.options.first + taken;
            let Run { outcome, tally, .. } = runtime
                .block_on(run(self.template, seed, false))
                .with_context(|| format!("seed {seed}"))?;
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
            if let Err(violation) = outcome {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push((seed, format!("{violation:#}")));
                self.stopped.store(!self.options.keep_going, Ordering::SeqCst);
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    fn report(self) -> anyhow::Result<ExitCode> {
        let seconds = self.bar.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        let tally = self.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut failures = self.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.sort_unstable();
        let mut out = std::io::stdout().lock();
        write!(out, "{tally}")?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = tally.seeds as f64 / seconds;
        writeln!(out, "{seconds:>12.0} seconds, {rate:.1} seeds a second")?;
        for (seed, violation) in &failures {
            writeln!(out, "seed {seed} failed: {violation}")?;
        }
        let missing = if self.options.all_branches { tally.missing() } else { Vec::new() };
        for branch in &missing {
            writeln!(out, "never reached: {branch}")?;
        }
        let good = failures.is_empty() && missing.is_empty();
        writeln!(out, "{}", if good { "nothing was violated" } else { "FAILED" })?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
