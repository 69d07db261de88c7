//! How long a case that repeats itself goes on.

use std::time::Duration;

use crate::support::{Stopwatch, variable};

/// Minutes of a run unless `WAYBILL_TEST_MINUTES` says otherwise.
const MINUTES: u64 = 15;
/// What all cases take that do not repeat themselves, and the checks of the others.
const FIXED: Duration = Duration::from_mins(12);
/// What both databases take more in a run in which snapshots are held for long.
const LONG_SNAPSHOTS: Duration = Duration::from_mins(24);
/// The minutes of such a run at least.
const LONG_RUN: u64 = 45;
/// The parts of all cases that do.
const PARTS: u32 = 22;
/// How many cases run at a time.
const AT_A_TIME: u32 = 2;

/// How long the whole run is to take.
fn minutes() -> u64 {
    variable("WAYBILL_TEST_MINUTES", MINUTES)
}

/// Whether snapshots are held for ten minutes each.
pub(super) fn is_long() -> bool {
    minutes() >= LONG_RUN
}

/// Runs from its start.
pub(super) struct Share {
    time: Duration,
    watch: Stopwatch,
    /// However long that takes.
    least: usize,
    rounds: usize,
}

impl Share {
    /// So many parts of the time that is left for repeating.
    pub(super) fn of(parts: u32) -> Self {
        let whole = Duration::from_mins(minutes());
        let fixed = if is_long() { FIXED + LONG_SNAPSHOTS } else { FIXED };
        let time = whole.saturating_sub(fixed) * AT_A_TIME * parts / PARTS;
        Self { time, watch: Stopwatch::start(), least: 1, rounds: 0 }
    }

    /// However little time there is, this often.
    pub(super) fn at_least(mut self, rounds: usize) -> Self {
        self.least = rounds;
        self
    }

    /// Whether one more round may begin.
    pub(super) fn goes_on(&mut self) -> bool {
        let goes_on = self.rounds < self.least || self.watch.elapsed() < self.time;
        self.rounds += usize::from(goes_on);
        goes_on
    }

    /// How many rounds have begun.
    pub(super) fn rounds(&self) -> usize {
        self.rounds
    }
}
