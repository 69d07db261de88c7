//! A process that runs services: it opens them, repeats their steps, and stops them.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::clock::{Clock, Ids, Timestamp};
use crate::command::Job;
use crate::core::Core;
use crate::database::{Database, Dialect, FolderLock, Location, OpenError, in_time};
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
use crate::writer::{Step, Writer};

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
            admitting.commit().await.map_err(StoreError::from)?;
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
        let queue = Queue { receiver: jobs, in_hand: None };
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

/// The loop of a service's writer.
struct Writing<S: Service> {
    name: String,
    core: Arc<Core<S>>,
    jobs: Arc<tokio::sync::Mutex<Queue<S>>>,
    stopping: CancellationToken,
    health: Health,
}

impl<S: Service> Writing<S> {
    /// Commands first, then timers, then events; waits only when none of them had any.
    async fn run(self) {
        let jobs = Arc::clone(&self.jobs);
        let mut jobs = jobs.lock().await;
        let mut writer = Writer::new(Arc::clone(&self.core));
        let run = self.core.ids.next().to_string();
        let growth = self.core.event_store.growth_of(S::HEARS);
        let mut backoff = Backoff::default();
        let mut retries = true;
        let mut looked_at = Timestamp(0);
        let mut pruned_at = self.core.clock.now();
        while let Err(trouble) = in_time(limits::STEP, writer.start(&run)).await {
            self.note(&trouble);
            if self.stopping.is_cancelled() {
                return;
            }
            self.refuse_while(&mut writer, &mut jobs, backoff.longer()).await;
        }
        backoff.reset();
        while !self.stopping.is_cancelled() {
            // However busy: what an operator or another replica brought about is not always told.
            let look = retries || looked_at.is_long_ago(limits::POLL, self.core.clock.now());
            if look {
                looked_at = self.core.clock.now();
                self.prune(&mut writer, &mut pruned_at).await;
            }
            let news = growth.take() || look || writer.is_behind();
            let did = self.round(&mut writer, &mut jobs, Look { everywhere: look, news }).await;
            retries = false;
            match did {
                Ok(Step::Did(_)) => {
                    self.health.good(&self.name);
                    backoff.reset();
                }
                Ok(Step::Idle) => {
                    self.health.good(&self.name);
                    backoff.reset();
                    let now = self.core.clock.now();
                    let timer = writer.next_due().map(|due| due.since(now));
                    let wait = timer.unwrap_or(limits::POLL).min(limits::POLL);
                    tokio::select! {
                        biased;
                        () = self.stopping.cancelled() => {}
                        () = self.core.retry.notified() => retries = true,
                        () = jobs.arrived() => {}
                        () = growth.arrived() => {}
                        () = tokio::time::sleep(wait) => retries = true,
                    }
                }
                Err(trouble) => {
                    self.note(&trouble);
                    retries = true;
                    self.refuse_while(&mut writer, &mut jobs, backoff.longer()).await;
                }
            }
        }
        self.drain(&mut writer, &mut jobs, &run).await;
    }

    /// One step of each kind that there may be something for.
    async fn round(
        &self,
        writer: &mut Writer<S>,
        jobs: &mut Queue<S>,
        look: Look,
    ) -> Result<Step, StoreError> {
        let mut round = Round { idle: true, trouble: None };
        let waiting = jobs.take(limits::UNIT_WHILE_COMMANDS_WAIT.min(self.core.batch));
        // Where commands came just now, the next ones will not be long.
        let commands_wait = !waiting.is_empty();
        if commands_wait {
            round.heed(in_time(limits::STEP, writer.step_commands(waiting)).await)?;
        }
        let size = writer.unit_size(commands_wait || !jobs.is_empty());
        if look.everywhere || writer.next_due().is_some_and(|due| due <= self.core.clock.now()) {
            round.heed(in_time(limits::STEP, writer.step_timers(size)).await)?;
        }
        if look.everywhere {
            round.heed(in_time(limits::STEP, writer.step_retries(size)).await)?;
        }
        if look.news {
            round.heed(in_time(limits::STEP, writer.step_events(size)).await)?;
        }
        match round {
            Round { trouble: Some(trouble), .. } => Err(trouble),
            Round { idle: true, .. } => Ok(Step::Idle),
            Round { idle: false, .. } => Ok(Step::Did(1)),
        }
    }

    /// Forgets old answers now and then, a bounded number at a time until there are no more.
    async fn prune(&self, writer: &mut Writer<S>, pruned_at: &mut Timestamp) {
        let now = self.core.clock.now();
        if !pruned_at.is_long_ago(limits::PRUNE_EVERY, now) {
            return;
        }
        match in_time(limits::STEP, writer.step_prune()).await {
            Ok(Step::Did(_)) => {}
            Ok(Step::Idle) => *pruned_at = now,
            Err(trouble) => self.note(&trouble),
        }
    }

    /// Waits, and meanwhile goes on trying commands, so that their callers hear soon.
    async fn refuse_while(&self, writer: &mut Writer<S>, jobs: &mut Queue<S>, pause: Duration) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = jobs.arrived() => {}
        }
        let waiting = jobs.take(limits::UNIT_WHILE_COMMANDS_WAIT.min(self.core.batch));
        if !waiting.is_empty()
            && let Err(trouble) = in_time(limits::STEP, writer.step_commands(waiting)).await
        {
            self.note(&trouble);
        }
    }

    /// Carries out what is still in the queue, then saves how far was read.
    async fn drain(&self, writer: &mut Writer<S>, jobs: &mut Queue<S>, run: &str) {
        jobs.receiver.close();
        loop {
            let waiting = jobs.take(self.core.batch);
            if waiting.is_empty() {
                break;
            }
            if let Err(trouble) = in_time(limits::STEP, writer.step_commands(waiting)).await {
                self.note(&trouble);
            }
        }
        match in_time(limits::STEP, writer.stop(run)).await {
            Ok(()) => info!(name = self.name, "stopped"),
            Err(trouble) => {
                warn!(name = self.name, %trouble, "stopped without saving how far it was");
            }
        }
    }

    fn note(&self, trouble: &StoreError) {
        warn!(name = self.name, %trouble, "a step failed");
        measure::step_failed(&self.name);
        self.health.bad(&self.name, trouble.to_string());
    }
}

/// Where a round looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Also for what nothing announces.
    everywhere: bool,
    /// For events.
    news: bool,
}

/// What the steps of a round came to.
struct Round {
    idle: bool,
    trouble: Option<StoreError>,
}

impl Round {
    /// Only a database that does not answer ends a round: other trouble of one step is told after
    /// it, and holds the other steps back no longer than that.
    fn heed(&mut self, did: Result<Step, StoreError>) -> Result<(), StoreError> {
        match did {
            Ok(step) => self.idle &= step == Step::Idle,
            Err(trouble) if trouble.is_passing() => return Err(trouble),
            Err(trouble) => {
                self.trouble.get_or_insert(trouble);
            }
        }
        Ok(())
    }
}

/// The queue of commands, of which one may be in hand already.
#[derive(Debug)]
struct Queue<S: Service> {
    receiver: mpsc::Receiver<Job<S>>,
    in_hand: Option<Job<S>>,
}

impl<S: Service> Queue<S> {
    /// Takes those that wait, at most so many.
    fn take(&mut self, most: usize) -> Vec<Job<S>> {
        let mut taken: Vec<Job<S>> = self.in_hand.take().into_iter().collect();
        while taken.len() < most
            && let Ok(job) = self.receiver.try_recv()
        {
            taken.push(job);
        }
        taken
    }

    fn is_empty(&self) -> bool {
        self.in_hand.is_none() && self.receiver.is_empty()
    }

    /// Returns when a command waits.
    async fn arrived(&mut self) {
        if self.in_hand.is_none() {
            self.in_hand = self.receiver.recv().await;
        }
        if self.in_hand.is_none() {
            // Nobody is left who could send one.
            std::future::pending::<()>().await;
        }
    }
}

/// The loop of a service's relay.
async fn relay<S: Service>(
    name: String,
    core: Arc<Core<S>>,
    drained: CancellationToken,
    health: Health,
) {
    let mut relay = Relay::new(Arc::clone(&core));
    let mut backoff = Backoff::default();
    loop {
        let ending = drained.is_cancelled();
        let pause = match in_time(limits::STEP, relay.step()).await {
            Ok(_) => {
                health.good(&name);
                backoff.reset();
                if relay.is_behind() {
                    continue;
                }
                limits::POLL
            }
            Err(trouble) => {
                warn!(name, %trouble, "a step failed");
                measure::step_failed(&name);
                health.bad(&name, trouble.to_string());
                backoff.longer()
            }
        };
        if ending {
            return;
        }
        tokio::select! {
            () = drained.cancelled() => {}
            () = core.outbox_grew.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The loop that looks at the event store.
async fn watch(name: String, store: EventStore, drained: CancellationToken, health: Health) {
    while !drained.is_cancelled() {
        match store.head().await {
            Ok(head) => {
                store.announce(head);
                health.good(&name);
            }
            Err(trouble) => {
                warn!(name, %trouble, "the event store cannot be read");
                health.bad(&name, trouble.to_string());
            }
        }
        drained.run_until_cancelled(tokio::time::sleep(limits::POLL)).await;
    }
}

/// Pauses that grow while trouble lasts.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(limits::BACKOFF_FIRST)
    }
}

impl Backoff {
    fn longer(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(limits::BACKOFF_LONGEST);
        pause
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}
