//! What the world outside holds of a running service.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::clock::{Clock, Ids};
use crate::command::{CommandError, Job, Outcome, Request};
use crate::core::Core;
use crate::counts::{self, RowCounts};
use crate::database::in_time;
use crate::dead_letters::{self, DeadLetter, DeadLetterStatus, Settled};
use crate::error::StoreError;
use crate::event::{Position, Version};
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::row::{Listed, Row};
use crate::rows;
use crate::service::Service;
use crate::{checkpoint, outbox};

/// A running service, as its HTTP routes see it.
#[derive(Debug)]
pub struct Handle<S: Service> {
    core: Arc<Core<S>>,
    queue: mpsc::Sender<Job<S>>,
}

impl<S: Service> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), queue: self.queue.clone() }
    }
}

/// How far a loop is in the log that it reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// The position up to which everything is done.
    pub position: Position,
    /// The newest position.
    pub head: Position,
    /// How many lie between.
    pub lag: i64,
    /// How many were done a second, over the last minute, by this process.
    pub rate: f64,
    /// Age in seconds of the oldest that waits, 0 if none does.
    pub oldest_waiting_seconds: f64,
}

/// What a service's gauges show; nothing where that could not be learnt in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// How far the relay is in the outbox.
    pub outbox: Option<Progress>,
    /// How far the consumer is in the event store.
    pub consumer: Option<Progress>,
    /// How many dead letters there are of each status that wants attention.
    pub dead_letters: Option<Vec<(DeadLetterStatus, i64)>>,
    /// How many rows there are in the tables that are counted.
    pub counts: Option<Arc<[RowCounts]>>,
}

impl<S: Service> Handle<S> {
    pub(crate) fn new(core: Arc<Core<S>>, queue: mpsc::Sender<Job<S>>) -> Self {
        Self { core, queue }
    }

    /// Carries out a command and gives the answer after it is on disk.
    ///
    /// The writer does the work in a task of its own: a caller that goes away in the meantime
    /// interrupts nothing.
    pub async fn submit(&self, request: Request<S>) -> Outcome<S> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Job { request, reply }).map_err(|_| CommandError::Busy)?;
        // Without a reply, the writer ended after it took the command: it may have been done.
        answer.await.unwrap_or(Err(CommandError::UnknownOutcome))
    }

    /// One row.
    pub async fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R>, StoreError> {
        in_time(limits::READ, rows::get(&self.core.database, key)).await
    }

    /// One row, as soon as its version is not among `seen`, or as it is after `patience`.
    pub async fn get_newer<R: Row>(
        &self,
        key: &R::Key,
        seen: &[Version],
        patience: Duration,
    ) -> Result<Option<R>, StoreError> {
        let mut changes = self.core.changes.subscribe();
        let change = rows::change::<R>(key);
        let deadline = self.core.clock.now().plus(patience);
        loop {
            let row = self.get::<R>(key).await?;
            let newer = row.as_ref().is_none_or(|row| !seen.contains(&row.version()));
            let left = deadline.since(self.core.clock.now());
            if newer || left.is_zero() {
                return Ok(row);
            }
            // Another replica's changes are not told here, so look now and then anyway.
            let look = left.min(limits::POLL);
            let _ = tokio::time::timeout(look, told(&mut changes, &change)).await;
        }
    }

    /// A page of rows by these columns (as one of the row's lists declares them), after the value
    /// of the sorting column that a former page ended with.
    pub async fn list<R: Listed>(
        &self,
        filters: &[(&'static str, String)],
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<R>, StoreError> {
        in_time(limits::READ, rows::list(&self.core.database, filters, after, limit)).await
    }

    /// How far the consumer is in the event store.
    pub async fn consumer_status(&self) -> Result<Progress, StoreError> {
        in_time(limits::READ, async {
            let core = &self.core;
            let mut reader = core.database.reader().await?;
            let saved = checkpoint::newest(&mut reader).await?.anchor.position;
            reader.give_back();
            let position = saved.max(Position(core.gauges.consumed.get()));
            let head = core.event_store.head().await?;
            let age = core.event_store.age_after(position).await?;
            let rate = core.gauges.handled.per_second(core.clock.now());
            Ok(progress(position, head, rate, age))
        })
        .await
    }

    /// How far the relay is in the outbox.
    pub async fn outbox_status(&self) -> Result<Progress, StoreError> {
        in_time(limits::READ, async {
            let core = &self.core;
            let position = core.event_store.cursor(S::NAME).await?.position;
            let mut reader = core.database.reader().await?;
            let head = outbox::head(&mut reader).await?;
            let waiting = outbox::page(&mut reader, S::NAME, position.next(), 1).await?;
            reader.give_back();
            let now = core.clock.now();
            let age =
                waiting.first().map_or(Duration::ZERO, |event| now.since(event.envelope.time));
            Ok(progress(position, head, core.gauges.relayed.per_second(now), age))
        })
        .await
    }

    /// What the service's gauges show, as far as that can be learnt with this much patience.
    pub async fn readings(&self, patience: Duration) -> Readings {
        let (outbox, consumer, dead_letters, counts) = tokio::join!(
            tokio::time::timeout(patience, self.outbox_status()),
            tokio::time::timeout(patience, self.consumer_status()),
            tokio::time::timeout(patience, dead_letters::counts(&self.core.database)),
            tokio::time::timeout(patience, counts::counts(&self.core)),
        );
        Readings {
            outbox: outbox.ok().and_then(Result::ok),
            consumer: consumer.ok().and_then(Result::ok),
            dead_letters: dead_letters.ok().and_then(Result::ok),
            counts: counts.ok().flatten(),
        }
    }

    /// A page of dead letters by id, of one status or of all, after an id.
    pub async fn dead_letters(
        &self,
        status: Option<DeadLetterStatus>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let listing = dead_letters::list(&self.core.database, status, after.unwrap_or(""), limit);
        in_time(limits::READ, listing).await
    }

    /// Tries a parked message and what waits behind it again, in order.
    pub async fn retry(&self, id: &str) -> Result<Settled, StoreError> {
        self.settle(id, DeadLetterStatus::Retrying).await
    }

    /// Gives a parked message up, for good and on record; what waits behind it goes on.
    pub async fn discard(&self, id: &str) -> Result<Settled, StoreError> {
        self.settle(id, DeadLetterStatus::Discarded).await
    }

    async fn settle(&self, id: &str, status: DeadLetterStatus) -> Result<Settled, StoreError> {
        let core = Arc::clone(&self.core);
        let id = id.to_owned();
        // In a task of its own, so that a client that hangs up leaves no transaction half-way.
        let settling = tokio::spawn(in_time(limits::STEP, async move {
            let mut turn = core.database.take_turn(CommitPoint::Settlement).await?;
            let settled = dead_letters::settle(&mut turn, &id, status, core.clock.now()).await?;
            turn.commit(Vec::new()).await?;
            core.retry.notify_one();
            Ok(settled)
        }));
        settling.await.unwrap_or(Err(StoreError::UnknownOutcome))
    }

    /// Where fresh ids come from.
    pub fn ids(&self) -> &Ids {
        &self.core.ids
    }

    /// What tells the time.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }
}

/// Returns when the row was changed, or when that cannot be told.
async fn told(changes: &mut broadcast::Receiver<Arc<Vec<String>>>, change: &String) {
    while let Ok(changed) = changes.recv().await {
        if changed.contains(change) {
            return;
        }
    }
}

fn progress(position: Position, head: Position, rate: f64, age: Duration) -> Progress {
    let lag = (head.0 - position.0).max(0);
    let oldest_waiting_seconds = if lag == 0 { 0.0 } else { age.as_secs_f64() };
    Progress { position, head, lag, rate, oldest_waiting_seconds }
}
