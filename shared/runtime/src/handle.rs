//! What the world outside holds of a running service.

use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, Ids, Timestamp};
use crate::command::{CommandError, Outcome, Request};
use crate::error::StoreError;
use crate::event::{Position, Version};
use crate::row::{Listed, Row};
use crate::service::Service;

/// A running service, as its HTTP routes see it.
#[derive(Debug)]
pub struct Handle<S: Service> {
    service: std::marker::PhantomData<S>,
}

impl<S: Service> Clone for Handle<S> {
    fn clone(&self) -> Self {
        todo!()
    }
}

/// How far a service's consumer is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsumerStatus {
    /// The position it has handled everything up to.
    pub position: Position,
    /// The newest position of the event store.
    pub head: Position,
    /// How many positions lie between.
    pub lag: i64,
    /// Events handled per second, over the last minute.
    pub rate: f64,
    /// Age in seconds of the oldest event that waits, 0 if none does.
    pub oldest_waiting_seconds: f64,
}

/// How far a service's relay is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboxStatus {
    /// The outbox position that the event store has seen.
    pub position: Position,
    /// The newest position of the outbox.
    pub head: Position,
    /// How many events lie between.
    pub lag: i64,
    /// Events relayed per second, over the last minute.
    pub rate: f64,
    /// Age in seconds of the oldest event that waits, 0 if none does.
    pub oldest_waiting_seconds: f64,
}

/// An event or timer that could not be handled, or that waits behind such a one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its id: that of the event.
    pub id: String,
    /// What waits with it: an order's id, or the first event of a product or a user.
    pub lane: String,
    /// `parked`, `waiting`, `retrying`, `handled` or `discarded`.
    pub status: String,
    /// The event's name.
    pub kind: String,
    /// Where it stands in the event store; 0 for a timer.
    pub position: Position,
    /// Why it could not be handled; empty if it only waits.
    pub cause: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it was parked.
    pub parked_at: Timestamp,
}

/// What became of an operator's wish about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// There is no such dead letter.
    Unknown,
    /// It is not parked (any more).
    NotParked,
}

impl<S: Service> Handle<S> {
    /// Carries out a command and gives the answer after it is on disk.
    pub async fn submit(&self, request: Request<S>) -> Outcome<S> {
        todo!()
    }
    /// One row.
    pub async fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R>, StoreError> {
        todo!()
    }
    /// One row, as soon as its version is not among `seen`, or as it is after `patience`.
    pub async fn get_newer<R: Row>(&self, key: &R::Key, seen: &[Version], patience: Duration) -> Result<Option<R>, StoreError> {
        todo!()
    }
    /// A page of rows by these columns (a subset declared in the row's lists), after the value of
    /// the sorting column that a former page ended with.
    pub async fn list<R: Listed>(&self, filters: &[(&'static str, String)], after: Option<&str>, limit: usize) -> Result<Vec<R>, StoreError> {
        todo!()
    }
    /// How far the consumer is.
    pub async fn consumer_status(&self) -> Result<ConsumerStatus, StoreError> {
        todo!()
    }
    /// How far the relay is.
    pub async fn outbox_status(&self) -> Result<OutboxStatus, StoreError> {
        todo!()
    }
    /// A page of dead letters, the oldest first, after an id.
    pub async fn dead_letters(&self, status: Option<&str>, after: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        todo!()
    }
    /// Tries a parked message and what waits behind it again.
    pub async fn retry(&self, id: &str) -> Result<Settled, StoreError> {
        todo!()
    }
    /// Gives a parked message up, for good and on record; what waits behind it goes on.
    pub async fn discard(&self, id: &str) -> Result<Settled, StoreError> {
        todo!()
    }
    /// The clock and the ids that requests are stamped with.
    pub fn ids(&self) -> &Ids {
        todo!()
    }
    /// The clock.
    pub fn clock(&self) -> &Clock {
        todo!()
    }
}
