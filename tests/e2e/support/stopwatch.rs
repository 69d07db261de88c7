//! How long something took.

use std::time::Duration;

use waybill_runtime::{Clock, Timestamp};

/// Runs from its start.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Clock,
    began: Timestamp,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let clock = Clock::system();
        Self { began: clock.now(), clock }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().since(self.began)
    }
}
