//! Rows that units of work leave to the next ones of the same process, which need not load them again.
//!
//! No unit changes a row without an event, and what else changes rows (`rebuild`) adds a checkpoint. So
//! where outbox and checkpoints still end as they did, the rows are as they were left.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::event::EventId;
use crate::service::Service;
use crate::tables::Tables as _;

/// What the last unit left.
pub(crate) struct KeptRows<S: Service>(Mutex<Option<Left<S>>>);

/// Rows, and the state of the database that they are of.
pub(crate) struct Left<S: Service> {
    pub(crate) tables: S::Tables,
    pub(crate) state: State,
}

/// What every change of rows changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The last event of the outbox, if there is any.
    pub(crate) newest: Option<EventId>,
    /// The sequence of the newest checkpoint.
    pub(crate) checkpoint: i64,
}

impl<S: Service> fmt::Debug for KeptRows<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRows").finish_non_exhaustive()
    }
}

impl<S: Service> Default for KeptRows<S> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<S: Service> KeptRows<S> {
    /// Takes what was left, if anything was.
    pub(crate) fn take(&self) -> Option<Left<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves the rows of a unit, of the state that it left behind.
    pub(crate) fn leave(&self, mut tables: S::Tables, state: State) {
        tables.settle();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Left { tables, state });
    }
}
