//! The one source of everything random in a run: the same seed, the same run.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;
use waybill_runtime::Ids;

/// Random choices that repeat with their seed.
#[derive(Debug)]
pub(crate) struct Chance(fastrand::Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number from 0 to below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(0..bound)
    }

    /// A number of this range, both ends included.
    pub(crate) fn between(&mut self, least: i64, most: i64) -> i64 {
        self.0.i64(least..=most)
    }

    /// Whether it happens this time, of so many times in a hundred.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.0.u32(0..100) < percent
    }

    /// One of these, of which there is at least one.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of these, of which there may be none.
    pub(crate) fn any<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { Some(self.pick(of)) }
    }

    /// One of these by its weight, of which at least one is not 0.
    pub(crate) fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let total: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.u32(0..total);
        for (weight, one) in of {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *one,
            }
        }
        of[of.len() - 1].1
    }
}

/// Ids in the order made, with a random half of their own seed.
pub(crate) fn ids(seed: u64) -> Ids {
    let state = Arc::new(Mutex::new((0_u64, fastrand::Rng::with_seed(!seed))));
    Ids::from_fn(move || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, random) = &mut *state;
        *count += 1;
        // The bits that make it a UUIDv7 of some moment.
        let high = (*count << 16) | 0x7000;
        let low = (random.u64(..) >> 2) | (1 << 63);
        Uuid::from_u64_pair(high, low)
    })
}
