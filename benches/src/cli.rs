//! What to measure.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::place::Kind;

/// Measures what Waybill reaches, each figure with its baseline from the same run.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Figures to measure; if none is named, all but `batches` and `growth`.
    #[arg(value_name = "FIGURE")]
    figures: Vec<Name>,
    /// Databases to measure on; both if none is named.
    #[arg(long, value_name = "DATABASE")]
    on: Vec<Kind>,
    /// Print an array of figures on standard output, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// Short runs, to see that everything works: their figures tell nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Events in the logs of `growth`.
    #[arg(
        long,
        value_name = "EVENTS",
        value_delimiter = ',',
        default_values_t = [10_000, 1_000_000, 10_000_000]
    )]
    pub(crate) events: Vec<usize>,
    /// Folder for plots of what `batches` and `growth` measured.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plot: Option<PathBuf>,
}

/// A figure, or several that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Orders over HTTP, answered after the durable commit.
    Accept,
    /// Orders from placed to completed, as many as go.
    Pipeline,
    /// The same at fixed arrival times.
    Latency,
    /// Events into the event store.
    Append,
    /// Events out of it.
    Read,
    /// The order service's tables, made anew from a long history, and verified.
    #[value(alias = "verify")]
    Rebuild,
    /// What the process takes: memory, disk, time to start.
    Memory,
    /// The pipeline over the size of batches.
    Batches,
    /// Everything that a long log could slow down.
    Growth,
}

impl Cli {
    /// What to measure on which database, in order.
    pub(crate) fn selected(&self) -> Vec<(Name, Kind)> {
        let kinds = self.kinds();
        let names = Name::value_variants().iter().filter(|name| self.selects(**name));
        names.flat_map(|name| kinds.iter().map(|kind| (*name, *kind))).collect()
    }

    /// Whether a Postgres server takes part.
    pub(crate) fn needs_postgres(&self) -> bool {
        self.kinds().contains(&Kind::Postgres)
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        all.filter(|kind| self.on.is_empty() || self.on.contains(kind)).collect()
    }

    fn selects(&self, name: Name) -> bool {
        if self.figures.is_empty() {
            !matches!(name, Name::Batches | Name::Growth)
        } else {
            self.figures.contains(&name)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
