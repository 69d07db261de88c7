//! A service: its replicas, and the desk where its clients ask.

use waybill_runtime::{EventStore, Ids, Location, OpenError, Timestamp};

use crate::desk::Desk;
use crate::poison::{Plain, Poisoned};
use crate::replica::Replica;

/// How many replicas of a service there may be.
pub(crate) const REPLICAS: usize = 2;

/// A service.
pub(crate) struct Site<S: Plain> {
    pub(crate) replicas: [Option<Replica<Poisoned<S>>>; REPLICAS],
    pub(crate) desk: Desk<Poisoned<S>>,
    settings: S::Settings,
}

impl<S: Plain> Site<S> {
    pub(crate) fn new(settings: S::Settings) -> Self {
        Self { replicas: [None, None], desk: Desk::default(), settings }
    }

    /// Opens the replica at this place, which is empty.
    pub(crate) async fn open(
        &mut self,
        index: usize,
        location: &Location,
        store: EventStore,
        now: Timestamp,
        ids: &Ids,
    ) -> Result<(), OpenError> {
        let settings = self.settings.clone();
        let replica = Replica::open(location, store, settings, now, ids).await?;
        self.replicas[index] = Some(replica);
        Ok(())
    }

    /// Ends the process of the replica at this place, if there is one.
    pub(crate) async fn end(&mut self, index: usize) {
        if let Some(replica) = self.replicas[index].take() {
            replica.end().await;
        }
    }

    /// The places of replicas that can take a step.
    pub(crate) fn resting(&self) -> Vec<usize> {
        self.places(|replica| replica.paused().is_none())
    }

    /// The places of replicas that are paused in a step.
    pub(crate) fn paused(&self) -> Vec<usize> {
        self.places(|replica| replica.paused().is_some())
    }

    /// The places where there is no replica.
    pub(crate) fn empty(&self) -> Vec<usize> {
        (0..REPLICAS).filter(|index| self.replicas[*index].is_none()).collect()
    }

    fn places(&self, fits: impl Fn(&Replica<Poisoned<S>>) -> bool) -> Vec<usize> {
        (0..REPLICAS).filter(|index| self.replicas[*index].as_ref().is_some_and(&fits)).collect()
    }

    /// Shows all replicas what time it is.
    pub(crate) fn show_time(&mut self, now: Timestamp) {
        for replica in self.replicas.iter_mut().flatten() {
            replica.clock().show(now);
        }
    }
}
