//! What was measured.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::goals::{self, Goal};

/// One measured value beside its baseline and its goal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Database, figure and detail, separated by slashes.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What the same run reached otherwise, in the same unit.
    pub(crate) baseline: Option<f64>,
    /// The value in parts of the baseline.
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: Option<Goal>,
    /// Whether the goal is reached, if there is one.
    pub(crate) met: Option<bool>,
}

impl Figure {
    /// A value without a baseline.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, baseline: None, ratio: None, goal: None, met: None }
            .judged()
    }

    /// The same beside what it is compared with, where that could be measured.
    #[must_use]
    pub(crate) fn against(mut self, baseline: impl Into<Option<f64>>) -> Self {
        self.baseline = baseline.into();
        self.ratio = self.baseline.filter(|base| *base > 0.0).map(|base| self.value / base);
        self.judged()
    }

    fn judged(mut self) -> Self {
        self.goal = goals::of(&self.name);
        self.met = self.goal.as_ref().and_then(|goal| goal.is_met_by(&self));
        self
    }
}

/// The longest time that is told from longer ones, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

/// Times in microseconds, with three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None so far.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST, 3)?))
    }

    /// One more.
    pub(crate) fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Those of another one, too.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, in milliseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        millis(self.0.value_at_percentile(percent))
    }

    /// Figures of the median, of the 99th percentile and of the longest.
    pub(crate) fn figures(&self, name: &str) -> [Figure; 3] {
        [
            Figure::new(format!("{name}/p50"), self.percentile(50.0), "ms"),
            Figure::new(format!("{name}/p99"), self.percentile(99.0), "ms"),
            Figure::new(format!("{name}/max"), millis(self.0.max()), "ms"),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of a run, far below 2^52")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "counts of a run, far below 2^52")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
