//! What all parts of one running service share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};
use tracing::warn;

use crate::answers;
use crate::checkpoint;
use crate::clock::{Clock, Ids};
use crate::counts::Counts;
use crate::database::{Database, Location, OpenError};
use crate::error::StoreError;
use crate::event::EventId;
use crate::event_store::{Cursor, EventStore};
use crate::failpoints::CommitPoint;
use crate::gauges::Gauges;
use crate::kept::KeptRows;
use crate::limits;
use crate::migrate::{self, Migrations};
use crate::newest::Newest;
use crate::outbox::{self, OutboxEvent};
use crate::sealed::{Committed, Evidence};
use crate::service::Service;
use crate::sql;
use crate::streams::Streams;
use crate::trace::Tracer;

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
    /// What this process wrote to the outbox, for its relay.
    outbox_newest: Mutex<Newest<Following>>,
    /// Rows of former units, for the next.
    pub(crate) kept_rows: KeptRows<S>,
    /// Versions that former units gave, for the next.
    pub(crate) streams: Streams,
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

/// An event of the outbox.
#[derive(Debug)]
struct Following {
    /// The event before it, if there is one.
    before: Option<EventId>,
    event: OutboxEvent,
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
            outbox_newest: Mutex::default(),
            kept_rows: KeptRows::default(),
            streams: Streams::default(),
            retry: Notify::new(),
            changes: broadcast::channel(limits::CHANGES_KEPT).0,
            gauges: Gauges::default(),
            counts: Counts::default(),
            tracer: Tracer::default(),
            batch: limits::UNIT_MESSAGES,
        })
    }

    /// Tells everyone in this process what a unit did.
    pub(crate) fn announce(&self, committed: Committed) {
        if committed.events == 0 {
            return;
        }
        let mut before = committed.before;
        let mut newest = self.outbox_newest();
        for event in committed.newest {
            let (position, bytes) = (event.position, event.envelope.bytes());
            let id = Some(event.envelope.id);
            newest.push(position, Following { before, event }, bytes);
            before = id;
        }
        drop(newest);
        self.gauges.outbox_head.set(committed.head.0);
        self.outbox_grew.notify_one();
        // Nobody may be waiting for rows, which is no error.
        let _ = self.changes.send(Arc::new(committed.changed));
    }

    /// What this process wrote to the outbox after this, at most so many. Nothing if something else was
    /// there when it wrote: then only the outbox itself tells.
    pub(crate) fn newest_after(&self, cursor: Cursor, most: usize) -> Vec<OutboxEvent> {
        let mut before = cursor.event;
        let taken = self.outbox_newest().take_after(cursor.position, most);
        let follows = |next: Following| {
            let follows = next.before == before;
            before = Some(next.event.envelope.id);
            follows.then_some(next.event)
        };
        taken.into_iter().map_while(follows).collect()
    }

    fn outbox_newest(&self) -> MutexGuard<'_, Newest<Following>> {
        self.outbox_newest.lock().unwrap_or_else(PoisonError::into_inner)
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
