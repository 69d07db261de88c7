//! What is to be reached, on a machine of two cores with a disk that syncs in 0.1 ms.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::figure::Figure;

/// A bound, and the one beyond it that would be a surprise.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    of: Of,
    side: Side,
    must: f64,
    moonshot: f64,
}

/// What the bound is for.
#[derive(Clone, Copy, Debug)]
enum Of {
    Value,
    Ratio,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    AtLeast,
    AtMost,
}

use Of::{Ratio, Value};
use Side::{AtLeast, AtMost};

const GOALS: &[(&str, Of, Side, f64, f64)] = &[
    ("postgres/accept/32", Ratio, AtLeast, 0.5, 1.0),
    ("postgres/accept/128", Ratio, AtLeast, 0.85, 1.0),
    ("postgres/accept/32/p99", Ratio, AtMost, 2.0, 1.0),
    ("postgres/accept/128/p99", Ratio, AtMost, 2.0, 1.0),
    ("sqlite/accept/128", Ratio, AtLeast, 1.8, 3.0),
    ("postgres/pipeline/events/batches-of-one", Ratio, AtLeast, 25.0, 40.0),
    ("postgres/pipeline/events/floor", Ratio, AtLeast, 0.55, 0.75),
    ("postgres/pipeline/events/naive", Ratio, AtLeast, 7.0, 10.0),
    ("sqlite/pipeline/events/batches-of-one", Ratio, AtLeast, 12.0, 20.0),
    ("sqlite/pipeline/events/floor", Ratio, AtLeast, 0.55, 0.75),
    ("postgres/latency/50/accepted/p50", Value, AtMost, 2.5, 1.5),
    ("postgres/latency/50/completed/p50", Value, AtMost, 20.0, 12.0),
    ("postgres/latency/50/completed/p99", Value, AtMost, 50.0, 25.0),
    ("postgres/append/32", Ratio, AtLeast, 1.0, 2.0),
    ("postgres/read/2000", Value, AtLeast, 200_000.0, 400_000.0),
    ("sqlite/read/2000", Value, AtLeast, 200_000.0, 400_000.0),
    ("postgres/rebuild", Value, AtMost, 20.0, 8.0),
    ("sqlite/rebuild", Value, AtMost, 20.0, 8.0),
    ("postgres/verify", Value, AtMost, 20.0, 8.0),
    ("sqlite/verify", Value, AtMost, 20.0, 8.0),
    ("postgres/memory/idle", Value, AtMost, 20.0, 15.0),
    ("sqlite/memory/idle", Value, AtMost, 20.0, 15.0),
    ("postgres/memory/load", Value, AtMost, 120.0, 60.0),
    ("sqlite/memory/load", Value, AtMost, 120.0, 60.0),
];

/// The goals of a log of this many events, whatever the database.
const LONG_LOG: &str = "growth/10000000/";
const GOALS_OF_LONG_LOG: &[(&str, Of, Side, f64, f64)] = &[
    ("append", Ratio, AtLeast, 0.9, 1.0),
    ("pipeline", Ratio, AtLeast, 0.9, 1.0),
    ("audit/p99", Value, AtMost, 5.0, 2.0),
    ("list/p99", Value, AtMost, 5.0, 2.0),
];

/// The goal of a figure, if it has one.
pub(crate) fn of(name: &str) -> Option<Goal> {
    let (goals, name) = match name.split_once(LONG_LOG) {
        Some((_, detail)) => (GOALS_OF_LONG_LOG, detail),
        None => (GOALS, name),
    };
    let (_, of, side, must, moonshot) = goals.iter().find(|goal| goal.0 == name)?;
    Some(Goal { of: *of, side: *side, must: *must, moonshot: *moonshot })
}

impl Goal {
    /// Whether a figure reaches it; nothing where that could not be measured.
    pub(crate) fn is_met_by(&self, figure: &Figure) -> Option<bool> {
        self.reached(figure).map(|reached| self.holds(reached, self.must))
    }

    /// Whether a figure reaches even the bound beyond.
    pub(crate) fn is_passed_by(&self, figure: &Figure) -> bool {
        self.reached(figure).is_some_and(|reached| self.holds(reached, self.moonshot))
    }

    fn reached(&self, figure: &Figure) -> Option<f64> {
        match self.of {
            Value => Some(figure.value),
            Ratio => figure.ratio,
        }
    }

    fn holds(&self, reached: f64, bound: f64) -> bool {
        match self.side {
            AtLeast => reached >= bound,
            AtMost => reached <= bound,
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            AtLeast => ">=",
            AtMost => "<=",
        };
        let sign = match self.of {
            Value => "",
            Ratio => " x",
        };
        write!(f, "{side} {}{sign} ({})", self.must, self.moonshot)
    }
}
