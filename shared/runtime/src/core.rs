//! What all parts of one running service share.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use tracing::warn;

use crate::answers;
use crate::checkpoint;
use crate::clock::{Clock, Ids};
use crate::counts::Counts;
use crate::database::{Database, Location, OpenError};
use crate::error::StoreError;
use crate::event_store::EventStore;
use crate::failpoints::CommitPoint;
use crate::gauges::Gauges;
use crate::limits;
use crate::migrate::{self, Migrations};
use crate::outbox;
use crate::service::Service;
use crate::sql;
use crate::trace::Tracer;
use crate::unit::{Committed, Evidence};

/// One service with its database, as its writer, relay and handle share it.
#[derive(Debug)]
pub(crate) struct Core<S: Service> {
    pub(crate) database: Database,
    pub(crate) event_store: EventStore,
    pub(crate) settings: S::Settings,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    /// Rings when the outbox has grown.
    pub(crate) outbox_grew: Notify,
    /// Rings when dead letters are to be tried again.
    pub(crate) retry: Notify,
    /// Tells the rows that a unit changed.
    pub(crate) changes: broadcast::Sender<Arc<Vec<String>>>,
    pub(crate) gauges: Gauges,
    pub(crate) counts: Counts,
    pub(crate) tracer: Tracer,
    /// Messages that a unit, and events that an append takes at most.
    pub(crate) batch: usize,
}

impl<S: Service> Core<S> {
    pub(crate) async fn open(
        location: &Location,
        event_store: EventStore,
        settings: S::Settings,
        clock: Clock,
        ids: Ids,
        mode: Migrations,
    ) -> Result<Self, OpenError> {
        let migrations =
            |dialect| migrate::of_service(dialect, S::MIGRATIONS, S::POSTGRES_MIGRATIONS);
        let database = Database::open(location, S::NAME, migrations, mode).await?;
        Ok(Self {
            database,
            event_store,
            settings,
            clock,
            ids,
            outbox_grew: Notify::new(),
            retry: Notify::new(),
            changes: broadcast::channel(limits::CHANGES_KEPT).0,
            gauges: Gauges::default(),
            counts: Counts::default(),
            tracer: Tracer::default(),
            batch: limits::UNIT_MESSAGES,
        })
    }

    /// Tells everyone in this process what a unit did.
    pub(crate) fn announce(&self, committed: &Committed) {
        if committed.events == 0 {
            return;
        }
        self.gauges.outbox_head.set(committed.head.0);
        self.outbox_grew.notify_one();
        // Nobody may be waiting for rows, which is no error.
        let _ = self.changes.send(Arc::new(committed.changed.clone()));
    }

    /// Learns whether a unit was committed whose answer was lost.
    ///
    /// Taking the turn waits for the old connection to let go of it; then the unit's trace is
    /// either there for good or never will be.
    pub(crate) async fn find_out(
        &self,
        evidence: &Evidence,
        lost: sql::Error,
    ) -> Result<(), StoreError> {
        let lost = match StoreError::from(lost) {
            passing if passing.is_passing() => passing,
            refused => return Err(refused),
        };
        warn!(service = S::NAME, error = %lost, "the answer to a commit was lost; finding out");
        let began = self.clock.now();
        let mut pause = limits::BACKOFF_FIRST;
        loop {
            match self.shows(evidence).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(lost),
                Err(error) => {
                    if self.clock.now().since(began) > limits::RESOLVE_COMMIT {
                        warn!(service = S::NAME, %error, "could not find out");
                        return Err(StoreError::UnknownOutcome);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::BACKOFF_LONGEST);
        }
    }

    async fn shows(&self, evidence: &Evidence) -> Result<bool, StoreError> {
        let mut turn = self.database.take_turn(CommitPoint::Inquiry).await?;
        let shown = match evidence {
            Evidence::Event(position, id) => {
                outbox::id_at(&mut turn, *position).await? == Some(*id)
            }
            Evidence::Checkpoint(wanted) => checkpoint::exists(&mut turn, wanted).await?,
            Evidence::Answer(key) => answers::exists(&mut turn, key).await?,
            Evidence::None => false,
        };
        turn.rollback().await?;
        Ok(shown)
    }
}
