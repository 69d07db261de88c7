//! A process that runs services: it opens them, repeats their steps, and stops them.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::clock::{Clock, Ids};
use crate::command::{Job, Queue};
use crate::core::Core;
use crate::database::{Database, Dialect, FolderLock, Location, OpenError};
use crate::error::StoreError;
use crate::event_store::EventStore;
use crate::handle::Handle;
use crate::health::Health;
use crate::limits;
use crate::measure;
use crate::migrate::{self, Migrations};
use crate::notify;
use crate::relay::Relay;
use crate::roles::{self, Role};
use crate::service::Service;
use crate::trace::Tracer;

use loops::{Writing, relay, watch};

mod loops;

/// What runs in this process, and how it is stopped.
#[derive(Debug)]
pub struct Runtime {
    event_store: EventStore,
    location: Location,
    clock: Clock,
    ids: Ids,
    mode: Migrations,
    health: Health,
    tracer: Tracer,
    batch: usize,
    tasks: TaskTracker,
    /// Cancelled first: writers take no more commands, finish what they have, and end.
    stopping: CancellationToken,
    /// Cancelled when writers have ended: relays pass on what is left, and end.
    drained: CancellationToken,
    writers: TaskTracker,
    /// Closed at the end, so that SQLite leaves each of them in one file.
    databases: Mutex<Vec<Database>>,
    aborts: Aborts,
    _lock: Option<FolderLock>,
}

type Aborts = Arc<Mutex<HashMap<String, AbortHandle>>>;
type Looping = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Runtime {
    /// Opens the event store; the services are added with [`Runtime::host`].
    pub async fn open(
        location: Location,
        event_store: Option<Location>,
        clock: Clock,
        ids: Ids,
        mode: Migrations,
    ) -> Result<Self, OpenError> {
        let lock = match &location {
            Location::Folder(folder) => Some(FolderLock::take(folder)?),
            Location::Postgres(_) => None,
        };
        let at = event_store.unwrap_or_else(|| location.clone());
        let store = EventStore::open(&at, clock.clone(), &ids, mode).await?;
        let runtime = Self {
            databases: Mutex::new(vec![store.database().clone()]),
            event_store: store,
            location,
            clock: clock.clone(),
            ids,
            mode,
            health: Health::new(clock),
            tracer: Tracer::default(),
            batch: limits::UNIT_MESSAGES,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            drained: CancellationToken::new(),
            writers: TaskTracker::new(),
            aborts: Aborts::default(),
            _lock: lock,
        };
        if let (Dialect::Postgres, Location::Postgres(url)) = (runtime.event_store.dialect(), at) {
            runtime.connect_processes(url);
        }
        Ok(runtime)
    }

    /// Tells of every message of the services that are hosted from now on.
    #[must_use]
    pub fn traced_by(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Lets no unit of the services that are hosted from now on take more messages than this, and no
    /// append more events: to measure what batches are worth.
    #[must_use]
    pub fn in_batches_of(mut self, most: NonZeroUsize) -> Self {
        self.batch = most.get();
        self
    }

    /// Opens a service and begins to run it.
    pub async fn host<S: Service>(&self, settings: S::Settings) -> Result<Handle<S>, OpenError> {
        let (location, store) = (&self.location, self.event_store.clone());
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let mut core = Core::<S>::open(location, store, settings, clock, ids, self.mode).await?;
        core.tracer = self.tracer.clone();
        core.batch = self.batch;
        let core = Arc::new(core);
        // A service that lost history must not write over what others have read of it.
        Relay::new(Arc::clone(&core)).step().await?;
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.push(core.database.clone());
        drop(databases);
        let (queue, jobs) = mpsc::channel(limits::COMMAND_QUEUE);
        self.run_writer(Arc::clone(&core), jobs);
        self.run_relay(Arc::clone(&core));
        Ok(Handle::new(core, queue))
    }

    /// Applies a service's migrations, without running it, and lets the role (Postgres only) do
    /// what the service does.
    pub async fn migrate<S: Service>(&self, role: Option<&Role>) -> Result<(), OpenError> {
        let migrations =
            |dialect| migrate::of_service(dialect, S::MIGRATIONS, S::POSTGRES_MIGRATIONS);
        let database = Database::open(&self.location, S::NAME, migrations, self.mode).await?;
        if let Some(role) = role {
            let mut admitting = database.begin().await.map_err(StoreError::from)?;
            roles::admit_to_service::<S>(&mut admitting, role).await?;
            admitting.commit(Vec::new()).await.map_err(StoreError::from)?;
            self.event_store.admit(role, true).await?;
        }
        database.close().await;
        Ok(())
    }

    /// Begins to look at the event store now and then, for those who only read it: whether it
    /// answers, and how far it is.
    pub fn watch_event_store(&self) {
        let (store, drained) = (self.event_store.clone(), self.drained.clone());
        let (health, name) = (self.health.clone(), "event_store.reader".to_owned());
        let make = {
            let name = name.clone();
            move || -> Looping {
                Box::pin(watch(name.clone(), store.clone(), drained.clone(), health.clone()))
            }
        };
        self.supervise(name, make, &self.tasks);
    }

    /// The event store.
    pub fn event_store(&self) -> &EventStore {
        &self.event_store
    }

    /// Whether everything here works.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Aborts a loop wherever it is, as a drill; it is started again. Whether there is such a loop.
    pub fn abort(&self, name: &str) -> bool {
        let aborts = self.aborts.lock().unwrap_or_else(PoisonError::into_inner);
        aborts.get(name).is_some_and(|handle| {
            handle.abort();
            true
        })
    }

    /// Ends everything: queues are drained, outboxes relayed, checkpoints saved, databases closed.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.writers.close();
        self.writers.wait().await;
        self.drained.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut closing = JoinSet::new();
        for database in self.databases.into_inner().unwrap_or_else(PoisonError::into_inner) {
            closing.spawn(async move { database.close().await });
        }
        closing.join_all().await;
    }

    fn run_writer<S: Service>(&self, core: Arc<Core<S>>, jobs: mpsc::Receiver<Job<S>>) {
        let queue = Queue::new(jobs);
        let jobs = Arc::new(tokio::sync::Mutex::new(queue));
        let (stopping, health) = (self.stopping.clone(), self.health.clone());
        let name = format!("{}.writer", S::NAME);
        let make = {
            let name = name.clone();
            move || -> Looping {
                let writing = Writing {
                    name: name.clone(),
                    core: Arc::clone(&core),
                    jobs: Arc::clone(&jobs),
                    stopping: stopping.clone(),
                    health: health.clone(),
                };
                Box::pin(writing.run())
            }
        };
        self.supervise(name, make, &self.writers);
    }

    fn run_relay<S: Service>(&self, core: Arc<Core<S>>) {
        let (drained, health) = (self.drained.clone(), self.health.clone());
        let name = format!("{}.relay", S::NAME);
        measure::relay_begins(S::NAME);
        let make = {
            let name = name.clone();
            move || -> Looping {
                Box::pin(relay(name.clone(), Arc::clone(&core), drained.clone(), health.clone()))
            }
        };
        self.supervise(name, make, &self.tasks);
    }

    /// Tells other processes when the event store grows here, and hears when it grows there.
    ///
    /// Both only hasten what polling does anyway, so their health is not asked for.
    fn connect_processes(&self, url: String) {
        let (store, drained) = (self.event_store.clone(), self.drained.clone());
        self.tasks.spawn(notify::tell(store.clone(), drained.clone()));
        self.tasks.spawn(notify::hear(url, store, drained));
    }

    /// Runs a loop, and again if it dies: not ready in the meantime, and never silently gone.
    fn supervise(
        &self,
        name: String,
        make: impl Fn() -> Looping + Send + 'static,
        tracker: &TaskTracker,
    ) {
        let (health, aborts) = (self.health.clone(), Arc::clone(&self.aborts));
        health.expect(&name);
        measure::loop_begins(&name);
        tracker.spawn(async move {
            loop {
                let running = tokio::spawn(make());
                aborts
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.clone(), running.abort_handle());
                let Err(died) = running.await else { break };
                error!(name, %died, "a loop died; it is started again");
                measure::step_failed(&name);
                health.bad(&name, "died; being started again".to_owned());
                tokio::time::sleep(limits::BACKOFF_LONGEST).await;
            }
            health.forget(&name);
        });
    }
}
