//! What a running service counts of itself.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Timestamp;

/// Seconds over which a rate is taken.
const RATE_SECONDS: usize = 60;

/// How far a service's loops are, as they saw it last.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// The log position that the consumer has read up to.
    pub(crate) consumed: Level,
    /// Events handled.
    pub(crate) handled: Rate,
    /// The outbox's newest position.
    pub(crate) outbox_head: Level,
    /// Events relayed.
    pub(crate) relayed: Rate,
}

/// A number that goes up.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicI64);

impl Level {
    pub(crate) fn set(&self, level: i64) {
        self.0.store(level, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many in each of the last seconds.
#[derive(Debug)]
pub(crate) struct Rate(Mutex<[(u64, u64); RATE_SECONDS]>);

impl Default for Rate {
    fn default() -> Self {
        Self(Mutex::new([(0, 0); RATE_SECONDS]))
    }
}

impl Rate {
    /// Counts some more.
    pub(crate) fn add(&self, count: usize, now: Timestamp) {
        let second = second(now);
        let index = usize::try_from(second % RATE_SECONDS as u64).unwrap_or(0);
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = seconds.get_mut(index) else {
            return;
        };
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += count as u64;
    }

    /// How many a second, over the last minute.
    pub(crate) fn per_second(&self, now: Timestamp) -> f64 {
        let second = second(now);
        let seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seconds.iter().filter(|(at, _)| second.abs_diff(*at) < RATE_SECONDS as u64);
        let sum: u64 = recent.map(|(_, count)| count).sum();
        let sum = u32::try_from(sum).unwrap_or(u32::MAX);
        f64::from(sum) / 60.0
    }
}

fn second(time: Timestamp) -> u64 {
    u64::try_from(time.0 / 1_000_000).unwrap_or(0)
}
