//! The loops that repeat the steps of a service, until they are told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Timestamp;
use crate::command::Queue;
use crate::core::Core;
use crate::database::in_time;
use crate::error::StoreError;
use crate::event_store::EventStore;
use crate::growth::Growth;
use crate::health::Health;
use crate::limits;
use crate::measure;
use crate::relay::Relay;
use crate::service::Service;
use crate::writer::{Further, Step, Writer};

/// The loop of a service's writer.
pub(super) struct Writing<S: Service> {
    pub(super) name: String,
    pub(super) core: Arc<Core<S>>,
    pub(super) jobs: Arc<tokio::sync::Mutex<Queue<S>>>,
    pub(super) stopping: CancellationToken,
    pub(super) health: Health,
}

impl<S: Service> Writing<S> {
    /// Commands first, then timers, then events; waits only when none of them had any, or when there were so
    /// many events that waiting for more makes each cheaper.
    pub(super) async fn run(self) {
        let jobs = Arc::clone(&self.jobs);
        let mut jobs = jobs.lock().await;
        let mut writer = Writer::new(Arc::clone(&self.core));
        let run = self.core.ids.next().to_string();
        let growth = self.core.event_store.growth_of(S::HEARS);
        let mut backoff = Backoff::default();
        let mut retries = true;
        let mut looked_at = Timestamp(0);
        let mut pruned_at = self.core.clock.now();
        let mut gathering_until = Timestamp(0);
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
            let gathering = gathering_until > self.core.clock.now();
            let told = !gathering && growth.take() && !writer.has_read_all_known();
            let news = told || look || writer.is_behind();
            let look = Look { everywhere: look, timers: !gathering, news };
            let did = self.round(&mut writer, &mut jobs, &growth, look).await;
            retries = false;
            match did {
                Ok(Step::Did(messages)) => {
                    self.health.good(&self.name);
                    backoff.reset();
                    if !gathering && !writer.is_behind() {
                        let pause = to_gather(messages, limits::GATHER_HEARD);
                        gathering_until = self.core.clock.now().plus(pause);
                    }
                }
                Ok(Step::Idle) => {
                    self.health.good(&self.name);
                    backoff.reset();
                    let now = self.core.clock.now();
                    let gathering = gathering_until > now;
                    let timer = writer.next_due().map(|due| due.max(gathering_until).since(now));
                    let mut wait = timer.unwrap_or(limits::POLL).min(limits::POLL);
                    if gathering {
                        wait = wait.min(gathering_until.since(now));
                    }
                    tokio::select! {
                        biased;
                        () = self.stopping.cancelled() => {}
                        () = self.core.retry.notified() => retries = true,
                        () = jobs.arrived() => {}
                        () = growth.arrived(), if !gathering => {}
                        () = tokio::time::sleep(wait) => retries = !gathering,
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

    /// One step of each kind that there may be something for; the most messages that one of them handled.
    async fn round(
        &self,
        writer: &mut Writer<S>,
        jobs: &mut Queue<S>,
        growth: &Growth,
        look: Look,
    ) -> Result<Step, StoreError> {
        let mut round = Round::default();
        let (began, due) = (self.core.clock.now(), writer.next_due());
        let others_wait = || {
            let now = self.core.clock.now();
            look.news
                || (look.timers && (growth.is_hinted() || due.is_some_and(|due| due <= now)))
                || now.since(began) > limits::COMMANDS_ALONE
                || self.stopping.is_cancelled()
        };
        // Where commands came just now, the next ones will not be long.
        let commands_wait = !jobs.is_empty();
        if commands_wait {
            let further = Further::Coming(&others_wait);
            let step = writer.step_commands(jobs, self.command_unit(), further);
            let step = in_time(limits::STEP, Box::pin(step)).await;
            // Nobody gathers commands: their callers wait.
            round.heed(step.map(|_| Step::Did(0)))?;
        }
        let size = writer.unit_size(commands_wait || !jobs.is_empty());
        let due = || writer.next_due().is_some_and(|due| due <= self.core.clock.now());
        if look.everywhere || (look.timers && due()) {
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
            Round { most: None, .. } => Ok(Step::Idle),
            Round { most: Some(messages), .. } => Ok(Step::Did(messages)),
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
        self.commands_alone(writer, jobs).await;
    }

    /// Carries out what is still in the queue, then saves how far was read.
    async fn drain(&self, writer: &mut Writer<S>, jobs: &mut Queue<S>, run: &str) {
        jobs.close();
        while !jobs.is_empty() {
            self.commands_alone(writer, jobs).await;
        }
        match in_time(limits::STEP, writer.stop(run)).await {
            Ok(()) => info!(name = self.name, "stopped"),
            Err(trouble) => {
                warn!(name = self.name, %trouble, "stopped without saving how far it was");
            }
        }
    }

    /// The commands that wait, if any do.
    async fn commands_alone(&self, writer: &mut Writer<S>, jobs: &mut Queue<S>) {
        let step = writer.step_commands(jobs, self.command_unit(), Further::Waiting);
        if let Err(trouble) = in_time(limits::STEP, Box::pin(step)).await {
            self.note(&trouble);
        }
    }

    /// How many commands a unit takes.
    fn command_unit(&self) -> usize {
        limits::UNIT_COMMANDS.min(self.core.batch)
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
    /// For timers that came due.
    timers: bool,
    /// For events.
    news: bool,
}

/// What the steps of a round came to.
#[derive(Default)]
struct Round {
    /// The most messages that one of them handled; nothing if none had any.
    most: Option<usize>,
    trouble: Option<StoreError>,
}

impl Round {
    /// Only a database that does not answer ends a round: other trouble of one step is told after
    /// it, and holds the other steps back no longer than that.
    fn heed(&mut self, did: Result<Step, StoreError>) -> Result<(), StoreError> {
        match did {
            Ok(Step::Idle) => {}
            Ok(Step::Did(messages)) => self.most = self.most.max(Some(messages)),
            Err(trouble) if trouble.is_passing() => return Err(trouble),
            Err(trouble) => {
                self.trouble.get_or_insert(trouble);
            }
        }
        Ok(())
    }
}

/// For how long a loop that has caught up gathers more, after so many messages.
fn to_gather(messages: usize, most: Duration) -> Duration {
    let count = if messages < limits::GATHER_FROM { 0 } else { messages };
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    limits::GATHER_EACH.saturating_mul(count).min(most)
}

/// The loop of a service's relay.
pub(super) async fn relay<S: Service>(
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
            Ok(step) => {
                health.good(&name);
                backoff.reset();
                if relay.is_behind() {
                    continue;
                }
                if let Step::Did(events) = step
                    && events >= limits::GATHER_FROM
                    && !ending
                {
                    let pause = to_gather(events, limits::GATHER_TOLD);
                    drained.run_until_cancelled(tokio::time::sleep(pause)).await;
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
        let paused = tokio::time::sleep(pause);
        let told = async {
            core.outbox_grew.notified().await;
            // It was told of what it has taken by now.
            while relay.has_all_known() {
                core.outbox_grew.notified().await;
            }
        };
        tokio::select! {
            () = drained.cancelled() => {}
            () = told => {}
            () = paused => {}
        }
    }
}

/// The loop that looks at the event store.
pub(super) async fn watch(
    name: String,
    store: EventStore,
    drained: CancellationToken,
    health: Health,
) {
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
