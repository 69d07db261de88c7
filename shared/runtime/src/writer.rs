//! A service's writer: the one loop that changes its rows. Each of its steps is one bounded unit
//! of work that a test can call by itself.
//!
//! - `commands`: what clients ask for, answered after the commit.
//! - `events`: what other services say, with the checkpoint.
//! - `due`: timers; `retries`: dead letters that are tried again.
//! - `messages`: what events, timers and retries have in common; `spans`: what is told of them.

mod commands;
mod due;
mod events;
mod messages;
mod retries;
mod spans;

use std::sync::Arc;

use tracing::warn;

use crate::answers;
use crate::clock::Timestamp;
use crate::core::Core;
use crate::error::StoreError;
use crate::failpoints::CommitPoint;
use crate::lately::Lately;
use crate::limits;
use crate::measure;
use crate::runs;
use crate::sealed::Committed;
use crate::service::Service;

pub(crate) use self::commands::Further;
use self::events::Consumer;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It handled this many messages; there may be more.
    Did(usize),
    /// There was nothing to do.
    Idle,
}

/// The writer of one service.
#[derive(Debug)]
pub struct Writer<S: Service> {
    core: Arc<Core<S>>,
    hears: String,
    consumer: Option<Consumer>,
    /// Whether there may be events after those read last.
    behind: bool,
    /// Messages still to be handled with each attempt counted.
    careful: usize,
    /// Whether a dead letter that is being tried again may have ended the last run.
    careful_retries: bool,
    /// Runs that did not end cleanly, to be forgotten after the careful stretch.
    unclean_runs: Vec<String>,
    /// An attempt that is counted and has not come to an end, because the database was in trouble:
    /// that is not the message's fault, so going on with it is not one more.
    open_attempt: Option<(String, i64)>,
    /// The same of messages that were begun together.
    open_together: Vec<String>,
    /// Keys of commands that were answered lately: one that comes again is answered in its turn.
    answered: Lately<String, ()>,
    unit_size: usize,
    next_due: Option<Timestamp>,
}

impl<S: Service> Writer<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        let hears = serde_json::to_string(S::HEARS).unwrap_or_default();
        Self {
            unit_size: core.batch,
            core,
            hears,
            consumer: None,
            behind: true,
            careful: 0,
            careful_retries: false,
            unclean_runs: Vec::new(),
            open_attempt: None,
            open_together: Vec::new(),
            answered: Lately::new(limits::KEYS_KEPT),
            next_due: Some(Timestamp(0)),
        }
    }

    /// Begins a run; after an unclean end the first messages are handled with care.
    ///
    /// Another replica's run that goes on looks like one that did not end cleanly. That costs this
    /// one some speed in the beginning, and the other one nothing.
    pub async fn start(&mut self, run: &str) -> Result<(), StoreError> {
        let core = &self.core;
        let mut turn = core.database.take_turn(CommitPoint::RunBegun).await?;
        self.unclean_runs = runs::begin(&mut turn, run, core.clock.now()).await?;
        if !self.unclean_runs.is_empty() {
            self.careful = limits::UNIT_MESSAGES;
            self.careful_retries = true;
            warn!(
                service = S::NAME,
                "another run has not ended, or not cleanly; beginning with care"
            );
        }
        turn.commit(Vec::new()).await?;
        Ok(())
    }

    /// Ends a run cleanly: everything read is saved.
    pub async fn stop(&mut self, run: &str) -> Result<(), StoreError> {
        self.save_checkpoint().await?;
        let mut turn = self.core.database.take_turn(CommitPoint::RunEnded).await?;
        runs::end(&mut turn, &[run.to_owned()]).await?;
        turn.commit(Vec::new()).await?;
        Ok(())
    }

    /// When the next timer may come due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.next_due
    }

    /// Whether there may be events that it has not read, as far as it saw the event store.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether everything that this process knows of the event store has been read.
    pub(crate) fn has_read_all_known(&self) -> bool {
        let head = self.core.event_store.known_head();
        self.consumer.as_ref().is_some_and(|consumer| consumer.position() >= head)
    }

    /// How many events or timers the next unit may take: while commands wait, as many as should fit into a turn
    /// that is not long. No fewer, or a service would accept what it is not going to carry out for long, whose
    /// rows fall out of memory meanwhile and are read again for each step.
    pub fn unit_size(&self, commands_wait: bool) -> usize {
        if commands_wait { self.unit_size } else { self.core.batch }
    }

    /// Forgets stored answers that are older than they are kept.
    pub async fn step_prune(&mut self) -> Result<Step, StoreError> {
        let before = self.core.clock.now().minus(limits::ANSWERS_KEPT);
        let mut turn = self.core.database.take_turn(CommitPoint::Pruning).await?;
        let pruned = answers::prune(&mut turn, before).await?;
        turn.commit(Vec::new()).await?;
        Ok(if pruned == 0 {
            Step::Idle
        } else {
            Step::Did(usize::try_from(pruned).unwrap_or(usize::MAX))
        })
    }

    /// Tells what a unit of events, timers or retries did, and fits the size of the next such that makes
    /// commands wait to how long it held its turn.
    fn committed_beside_commands(&mut self, committed: Committed, messages: usize) {
        self.unit_size = if committed.turn_held > limits::LONG_TURN {
            (messages / 2).max(limits::UNIT_MESSAGES_MIN).min(self.unit_size)
        } else {
            (self.unit_size * 2).min(self.core.batch)
        };
        self.committed(committed, messages);
    }

    /// Tells what a unit did.
    fn committed(&mut self, committed: Committed, messages: usize) {
        if let Some(due) = committed.next_due {
            self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
        }
        measure::unit_ended(S::NAME, messages, committed.turn_held, &committed.written);
        self.core.announce(committed);
    }
}
