//! Rows that a unit of work leaves to the next one of the same process, which need not load them again.
//!
//! No row changes without an event in the same transaction. So where the outbox still ends with the
//! event that it ended with, the rows are as they were left.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::event::EventId;
use crate::service::Service;
use crate::tables::Tables as _;

/// What the last unit left.
pub(crate) struct KeptRows<S: Service>(Mutex<Option<Left<S>>>);

/// Rows, and with which event the outbox ended when they were as they are.
pub(crate) struct Left<S: Service> {
    pub(crate) tables: S::Tables,
    pub(crate) newest: Option<EventId>,
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

    /// Leaves the rows of a unit after which the outbox ends with this event.
    pub(crate) fn leave(&self, mut tables: S::Tables, newest: Option<EventId>) {
        tables.settle();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Left { tables, newest });
    }
}
