//! What all figures share.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Cli, Name};
use crate::place::Kind;
use crate::postgres::Postgres;
use crate::process::Waybill;

/// What is measured, with what, and how much of it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) waybill: Waybill,
    pub(crate) postgres: Option<Postgres>,
    pub(crate) scale: Scale,
    pub(crate) growth: Vec<usize>,
    pub(crate) progress: Progress,
}

impl Bench {
    /// Builds the executable and finds the database server.
    pub(crate) async fn begin(cli: &Cli) -> anyhow::Result<Self> {
        let progress = Progress::new(cli.selected().len());
        progress.tell("building the executable");
        let waybill = Waybill::build()?;
        let postgres = if cli.needs_postgres() { Some(Postgres::provided().await?) } else { None };
        let scale = if cli.quick { QUICK } else { FULL };
        Ok(Self { waybill, postgres, scale, growth: cli.events.clone(), progress })
    }

    /// The database server; only figures on Postgres ask for it.
    pub(crate) fn postgres(&self) -> anyhow::Result<&Postgres> {
        self.postgres.as_ref().ok_or_else(|| anyhow::anyhow!("there is no Postgres"))
    }
}

/// How long runs are, and how much they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Before a run of fixed length is measured.
    pub(crate) warm_up: Duration,
    /// A run of fixed length.
    pub(crate) run: Duration,
    /// Orders of the pipeline.
    pub(crate) orders: usize,
    /// Orders of the pipeline with batches of one, and of the naive one.
    pub(crate) orders_of_one: usize,
    pub(crate) orders_naive: usize,
    /// A run with fixed arrival times.
    pub(crate) arrivals: Duration,
    /// Events that are read.
    pub(crate) read: usize,
    /// Events that tables are made from, and compared with.
    pub(crate) history: usize,
    /// Starts of which the median counts.
    pub(crate) starts: usize,
}

const FULL: Scale = Scale {
    warm_up: Duration::from_secs(2),
    run: Duration::from_secs(6),
    orders: 20_000,
    orders_of_one: 600,
    orders_naive: 10_000,
    arrivals: Duration::from_secs(20),
    read: 300_000,
    history: 1_000_000,
    starts: 5,
};

const QUICK: Scale = Scale {
    warm_up: Duration::from_millis(300),
    run: Duration::from_secs(1),
    orders: 1_000,
    orders_of_one: 50,
    orders_naive: 500,
    arrivals: Duration::from_secs(2),
    read: 20_000,
    history: 20_000,
    starts: 2,
};

/// The bar on the terminal.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    fn new(steps: usize) -> Self {
        let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:24} {pos}/{len} {msg}");
        let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(0));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_secs(1));
        Self(bar)
    }

    /// A figure is measured from now on.
    pub(crate) fn begin(&self, name: Name, kind: Kind) {
        self.0.set_prefix(format!("{name} on {kind}"));
        self.tell("");
    }

    /// What of it is being done.
    pub(crate) fn tell(&self, what: impl AsRef<str>) {
        let prefix = self.0.prefix();
        let sign = if prefix.is_empty() || what.as_ref().is_empty() { "" } else { ": " };
        self.0.set_message(format!("{prefix}{sign}{}", what.as_ref()));
    }

    /// A figure was measured.
    pub(crate) fn done(&self) {
        self.0.inc(1);
    }

    /// Nothing is left to do.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
