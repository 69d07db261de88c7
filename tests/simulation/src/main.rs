//! `waybill-sim`: as many simulated runs as asked, on all cores.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use waybill_simulation::{Campaign, Plan, Run, run_many, run_one};

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

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed),
        None => many(&options),
    }
}

fn one(seed: u64) -> anyhow::Result<ExitCode> {
    let Run { outcome, log, .. } = run_one(seed)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", log.text().unwrap_or_default())?;
    writeln!(out, "seed {seed}: {}", log.digest())?;
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn many(options: &Options) -> anyhow::Result<ExitCode> {
    let style =
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} seeds {per_sec} {eta}")?;
    let bar = ProgressBar::new(options.seeds).with_style(style);
    let plan = Plan {
        seeds: options.first..options.first.saturating_add(options.seeds),
        jobs: options.jobs.unwrap_or_else(cores),
        keep_going: options.keep_going,
    };
    let campaign = run_many(&plan, &|| bar.inc(1))?;
    let seconds = bar.elapsed().as_secs_f64();
    bar.finish_and_clear();
    report(&campaign, seconds, options.all_branches)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn report(campaign: &Campaign, seconds: f64, all_branches: bool) -> anyhow::Result<ExitCode> {
    let Campaign { tally, failures } = campaign;
    let mut out = std::io::stdout().lock();
    write!(out, "{tally}")?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = tally.seeds as f64 / seconds;
    writeln!(out, "{seconds:>12.0} seconds, {rate:.1} seeds a second")?;
    for (seed, violation) in failures {
        writeln!(out, "seed {seed} failed: {violation}")?;
    }
    let missing = if all_branches { tally.missing() } else { Vec::new() };
    for branch in &missing {
        writeln!(out, "never reached: {branch}")?;
    }
    let good = failures.is_empty() && missing.is_empty();
    writeln!(out, "{}", if good { "nothing was violated" } else { "FAILED" })?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
