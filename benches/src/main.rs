//! What Waybill reaches, each figure with its baseline from the same run.
//!
//! # Layout
//! - [`cli`], [`bench`]: what to measure, at which scale, and what all figures share.
//! - [`figure`], [`goals`], [`report`], [`plot`]: what was measured, and how it is shown.
//! - [`place`], [`postgres`], [`process`], [`usage`]: databases and processes to measure.
//! - [`http`], [`load`], [`world`], [`stopwatch`]: clients, and what they order.
//! - [`accept`], [`pipeline`], [`latency`], [`store`], [`proof`], [`growth`], [`memory`]: the figures;
//!   [`completions`] tells when orders ended.
//! - [`raw`], [`naive`], [`floor`]: their baselines. [`log`],
//!   [`template`]: long histories, made in bulk.

mod accept;
mod bench;
mod cli;
mod completions;
mod figure;
mod floor;
mod goals;
mod growth;
mod http;
mod latency;
mod load;
mod log;
mod memory;
mod naive;
mod pipeline;
mod place;
mod plot;
mod postgres;
mod process;
mod proof;
mod raw;
mod report;
mod stopwatch;
mod store;
mod template;
mod usage;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use crate::bench::Bench;
use crate::cli::{Cli, Name};
use crate::figure::Figure;
use crate::place::Kind;

/// As in what is measured: parts of that run in here, beside their baselines.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let measured = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    measured
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&Cli::parse())))
        .unwrap_or_else(|error| report::complain(&error))
}

async fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!cfg!(debug_assertions), "what is built without --release tells nothing");
    if cli.needs_postgres() && !postgres::is_provided() {
        return postgres::run_beside_one();
    }
    let bench = Bench::begin(cli).await?;
    let mut figures = Vec::new();
    for (name, kind) in cli.selected() {
        bench.progress.begin(name, kind);
        let measured = measure(&bench, name, kind).await;
        figures.extend(measured.map_err(|cause| cause.context(format!("{name} on {kind}")))?);
        bench.progress.done();
    }
    bench.progress.end();
    if let Some(folder) = &cli.plot {
        plot::draw(folder, &figures)?;
    }
    report::show(&figures, cli.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(bench: &Bench, name: Name, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    match name {
        Name::Accept => accept::measure(bench, kind).await,
        Name::Pipeline => pipeline::measure(bench, kind).await,
        Name::Latency => latency::measure(bench, kind).await,
        Name::Append => store::append(bench, kind).await,
        Name::Read => store::read(bench, kind).await,
        Name::Rebuild => proof::measure(bench, kind).await,
        Name::Memory => memory::measure(bench, kind).await,
        Name::Batches => pipeline::batches(bench, kind).await,
        Name::Growth => growth::measure(bench, kind).await,
    }
}
