//! Who in this process waits for what in the event store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// Consumers, each with the types of events that it hears.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumers(Arc<Mutex<Vec<Weak<Growth>>>>);

/// What one consumer is told: a hint that there is something new for it.
///
/// It may be told in vain, and it may miss what another process appended: it looks by itself now
/// and then.
#[derive(Debug)]
pub(crate) struct Growth {
    types: &'static [&'static str],
    hinted: AtomicBool,
    wake: Notify,
}

impl Consumers {
    /// One more, that has not looked yet.
    pub(crate) fn join(&self, types: &'static [&'static str]) -> Arc<Growth> {
        let growth = Growth { types, hinted: AtomicBool::new(true), wake: Notify::new() };
        let growth = Arc::new(growth);
        let mut consumers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|gone| gone.strong_count() > 0);
        consumers.push(Arc::downgrade(&growth));
        growth
    }

    /// Tells those who hear an event of which this holds.
    pub(crate) fn tell(&self, came: impl Fn(&str) -> bool) {
        let consumers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for growth in consumers.iter().filter_map(Weak::upgrade) {
            if growth.types.iter().any(|kind| came(kind)) {
                growth.hinted.store(true, Ordering::Release);
                growth.wake.notify_one();
            }
        }
    }
}

impl Growth {
    /// Whether there was a hint since this was asked last.
    pub(crate) fn take(&self) -> bool {
        self.hinted.swap(false, Ordering::AcqRel)
    }

    /// Returns when there is a hint.
    pub(crate) async fn arrived(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_hear_the_type_are_told() {
        let consumers = Consumers::default();
        let (orders, parcels) =
            (consumers.join(&["order.placed"]), consumers.join(&["parcel.sent"]));
        assert!(orders.take() && parcels.take(), "both begin by looking");
        consumers.tell(|kind| kind == "order.placed");
        assert!(orders.take());
        assert!(!parcels.take());
        assert!(!orders.take(), "a hint is given once");
    }

    #[test]
    fn one_that_is_gone_is_forgotten() {
        let consumers = Consumers::default();
        drop(consumers.join(&["order.placed"]));
        let _there = consumers.join(&["order.placed"]);
        assert_eq!(consumers.0.lock().expect("not poisoned").len(), 1);
    }
}
