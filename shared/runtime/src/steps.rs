//! A service whose loops do not run by themselves: tests and simulations call their steps, in any
//! order, with a clock of their own.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::clock::{Clock, Ids};
use crate::command::Queue;
use crate::core::Core;
use crate::database::{Location, OpenError};
use crate::error::StoreError;
use crate::event_store::EventStore;
use crate::handle::Handle;
use crate::limits;
use crate::migrate::Migrations;
use crate::relay::Relay;
use crate::service::Service;
use crate::writer::{Further, Step, Writer};

/// One service, step by step.
#[derive(Debug)]
pub struct Steps<S: Service> {
    /// What its routes would hold.
    pub handle: Handle<S>,
    /// Its writer.
    pub writer: Writer<S>,
    /// Its relay.
    pub relay: Relay<S>,
    jobs: Queue<S>,
    core: Arc<Core<S>>,
}

impl<S: Service> Steps<S> {
    /// Opens a service, applying migrations, and runs none of its loops.
    ///
    /// Several of them on one location are replicas of the service.
    pub async fn open(
        location: &Location,
        event_store: EventStore,
        settings: S::Settings,
        clock: Clock,
        ids: Ids,
    ) -> Result<Self, OpenError> {
        let mode = Migrations::Apply;
        let core = Core::open(location, event_store, settings, clock, ids, mode).await?;
        let core = Arc::new(core);
        let (queue, jobs) = mpsc::channel(limits::COMMAND_QUEUE);
        Ok(Self {
            handle: Handle::new(Arc::clone(&core), queue),
            writer: Writer::new(Arc::clone(&core)),
            relay: Relay::new(Arc::clone(&core)),
            jobs: Queue::new(jobs),
            core,
        })
    }

    /// Carries out the commands that wait, at most `limit` in each unit. While one is being committed the
    /// next is decided.
    pub async fn step_commands(&mut self, limit: usize) -> Result<Step, StoreError> {
        self.writer.step_commands(&mut self.jobs, limit, Further::Waiting).await
    }

    /// Closes its connections.
    pub async fn close(self) {
        self.core.database.close().await;
    }
}
