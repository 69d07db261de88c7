//! Chance that can be repeated.

use std::time::Duration;

/// Numbers that look random and are the same again for the same seed (`SplitMix64`).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeded by `WAYBILL_TEST_SEED`, or else anew; tells how to have the same numbers again.
    pub(crate) fn thrown() -> Self {
        let seed = variable("WAYBILL_TEST_SEED", u64::from(std::process::id()));
        eprintln!("the same random numbers again: WAYBILL_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below this.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// A time between these, in milliseconds.
    pub(crate) fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        let count = u64::try_from(among.len()).expect("it fits");
        &among[usize::try_from(self.roll(count)).expect("it fits")]
    }
}

/// A number from the environment, or this.
pub(crate) fn variable(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}
