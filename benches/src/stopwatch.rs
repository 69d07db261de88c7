//! Times of a run, on the clock that the services under test read too.

use std::time::Duration;

use waybill_runtime::{Clock, Timestamp};

/// The time now, in microseconds.
pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// Runs from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Timestamp);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        now().since(self.0)
    }
}
