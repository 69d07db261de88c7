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

    /// Whether there was one, which is still to be taken.
    pub(crate) fn is_hinted(&self) -> bool {
        self.hinted.load(Ordering::Acquire)
    }

    /// Returns when there is a hint.
    pub(crate) async fn arrived(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Ids, Timestamp};
    use crate::database::Location;
    use crate::event::{Envelope, EventId, Position, Version};
    use crate::event_store::EventStore;
    use crate::migrate::Migrations;
    use crate::outbox::OutboxEvent;

    async fn append_first_of(source: &str, kind: &str, store: &EventStore) {
        let envelope = Envelope {
            id: EventId(Ids::system().next()),
            source: source.to_owned(),
            kind: kind.to_owned(),
            schema: 1,
            stream: source.to_owned(),
            version: Version(1),
            time: Timestamp(0),
            correlation: source.to_owned(),
            causation: String::new(),
            actor: String::new(),
            traceparent: String::new(),
            data: "{}".to_owned(),
        };
        let envelope = Arc::new(envelope);
        store.append(&[OutboxEvent { position: Position(1), envelope }]).await.expect("it fits");
    }

    #[tokio::test]
    async fn what_another_process_appended_is_told_with_what_this_one_appends_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Folder(folder.path().to_owned());
        let open = || async {
            EventStore::open(&location, Clock::system(), &Ids::system(), Migrations::Apply).await
        };
        let (here, elsewhere) = (open().await.expect("opens"), open().await.expect("opens"));
        let orders = here.growth_of(&["order.placed"]);
        assert!(orders.take());
        append_first_of("order", "order.placed", &elsewhere).await;
        append_first_of("logistics", "parcel.sent", &here).await;
        assert!(orders.take(), "the order is told, though this process appended a parcel only");
        here.announce(Position(1));
        assert!(!orders.take(), "it is no news any more");
    }

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
