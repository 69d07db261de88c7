//! One process of one service: its steps, one at a time, and its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use waybill_runtime::failpoints::{self, Reached};
use waybill_runtime::{
    Clock, EventStore, Handle, Ids, Location, ManualClock, OpenError, Service, Step, Steps,
    StoreError, Timestamp,
};

use crate::fault::{Gate, Planned, plan};
use crate::poison;
use crate::tally::Fault;

/// A step of a replica, with how many messages it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Commands(usize),
    Events(usize),
    Timers(usize),
    Retries(usize),
    Relay,
    Prune,
    Stop,
}

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Stepped {
    /// It came to its end.
    Ended(Result<Step, StoreError>),
    /// It is paused, and goes on when the replica is woken.
    Paused,
    /// The process ended in it.
    Died,
}

/// A process of a service.
pub(crate) struct Replica<S: Service> {
    pub(crate) handle: Handle<S>,
    /// Whether its run has begun.
    pub(crate) started: bool,
    /// Whether another replica changed something while this one was paused.
    pub(crate) overtaken: bool,
    state: State<S>,
    clock: OwnClock,
}

/// A clock that is off by so many microseconds.
#[derive(Debug)]
pub(crate) struct OwnClock {
    pub(crate) hand: ManualClock,
    pub(crate) off_by: i64,
}

impl OwnClock {
    /// A clock that is right at first.
    pub(crate) fn new(now: Timestamp) -> (Clock, Self) {
        let (clock, hand) = Clock::manual(now);
        (clock, Self { hand, off_by: 0 })
    }

    pub(crate) fn show(&self, now: Timestamp) {
        self.hand.set(Timestamp(now.0 + self.off_by));
    }
}

enum State<S: Service> {
    Resting(Box<Running<S>>),
    Paused {
        kind: Kind,
        gate: Arc<Gate>,
        step: Stepping<S>,
    },
    /// Only while it is handed on.
    Moving,
}

/// The process itself.
struct Running<S: Service> {
    steps: Steps<S>,
    run: String,
}

type Outcome = Option<Result<Step, StoreError>>;
type Stepping<S> = Pin<Box<dyn Future<Output = (Box<Running<S>>, Outcome)>>>;

impl<S: Service> Replica<S> {
    pub(crate) async fn open(
        location: &Location,
        store: EventStore,
        settings: S::Settings,
        now: Timestamp,
        ids: &Ids,
    ) -> Result<Self, OpenError> {
        let (clock, own) = OwnClock::new(now);
        let steps = Steps::open(location, store, settings, clock, ids.clone()).await?;
        let handle = steps.handle.clone();
        let run = ids.next().to_string();
        let state = State::Resting(Box::new(Running { steps, run }));
        Ok(Self { handle, started: false, overtaken: false, state, clock: own })
    }

    pub(crate) fn clock(&mut self) -> &mut OwnClock {
        &mut self.clock
    }

    /// The step in which it is paused, if it is.
    pub(crate) fn paused(&self) -> Option<Kind> {
        match &self.state {
            State::Paused { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// Takes a step, with what happens inside it; what happened.
    pub(crate) async fn step(
        &mut self,
        kind: Kind,
        planned: Planned,
    ) -> (Stepped, Vec<(Reached, Fault)>) {
        let mut running = match std::mem::replace(&mut self.state, State::Moving) {
            State::Resting(running) => running,
            // It is paused: nothing happens before it is woken.
            other => {
                self.state = other;
                return (Stepped::Paused, Vec::new());
            }
        };
        let gate = Arc::new(Gate::default());
        let (plan, ending) = (plan(planned, Arc::clone(&gate)), Arc::clone(&gate));
        let step = Box::pin(async move {
            let outcome = tokio::select! {
                biased;
                ended = failpoints::scope(plan, running.step(kind)) => Some(ended),
                () = ending.end.notified() => None,
            };
            (running, outcome)
        });
        self.go_on(kind, gate, step).await
    }

    /// Lets a paused step go on.
    pub(crate) async fn wake(&mut self) -> (Stepped, Vec<(Reached, Fault)>) {
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Paused { kind, gate, step } => {
                self.overtaken = false;
                gate.let_go();
                self.go_on(kind, gate, step).await
            }
            other => {
                self.state = other;
                (Stepped::Ended(Ok(Step::Idle)), Vec::new())
            }
        }
    }

    async fn go_on(
        &mut self,
        kind: Kind,
        gate: Arc<Gate>,
        mut step: Stepping<S>,
    ) -> (Stepped, Vec<(Reached, Fault)>) {
        poison::process_begins();
        let ended = tokio::select! {
            biased;
            ended = &mut step => Some(ended),
            () = gate.stuck.notified() => None,
        };
        let happened = gate.take();
        let Some((running, outcome)) = ended else {
            self.state = State::Paused { kind, gate, step };
            return (Stepped::Paused, happened);
        };
        self.state = State::Resting(running);
        let stepped = match outcome {
            Some(Ok(_)) if poison::is_deadly() => Stepped::Died,
            Some(ended) => {
                self.started |= kind == Kind::Start && ended.is_ok();
                Stepped::Ended(ended)
            }
            None => Stepped::Died,
        };
        (stepped, happened)
    }

    /// Ends the process, wherever it is.
    pub(crate) async fn end(self) {
        let running = match self.state {
            State::Resting(running) => running,
            State::Paused { gate, step, .. } => {
                gate.end_process();
                step.await.0
            }
            State::Moving => return,
        };
        running.steps.close().await;
    }
}

impl<S: Service> Running<S> {
    async fn step(&mut self, kind: Kind) -> Result<Step, StoreError> {
        match kind {
            Kind::Start => self.steps.writer.start(&self.run).await.map(|()| Step::Did(1)),
            Kind::Commands(limit) => self.steps.step_commands(limit).await,
            Kind::Events(limit) => self.steps.writer.step_events(limit).await,
            Kind::Timers(limit) => self.steps.writer.step_timers(limit).await,
            Kind::Retries(limit) => self.steps.writer.step_retries(limit).await,
            Kind::Relay => self.steps.relay.step().await,
            Kind::Prune => self.steps.writer.step_prune().await,
            Kind::Stop => self.steps.writer.stop(&self.run).await.map(|()| Step::Did(1)),
        }
    }
}
