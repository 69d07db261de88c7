//! How many events streams have, of those that this process added to lately: the outbox need not be asked
//! for each event again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::{EventId, Version};
use crate::lately::Lately;
use crate::limits;
use crate::outbox::OutboxEvent;

/// The versions of streams. They hold while the outbox ends where this process left it: whoever else adds to a
/// stream moves that end.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// The last event of the outbox, if there is one.
    newest: Option<EventId>,
    versions: Lately<String, Version>,
}

impl Default for Known {
    fn default() -> Self {
        Self { newest: None, versions: Lately::new(limits::STREAMS_KEPT) }
    }
}

impl Streams {
    /// What is known where the outbox ends with this event.
    pub(crate) fn at(&self, newest: Option<EventId>) -> Versions<'_> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Versions { holds: known.newest == newest, known }
    }

    /// Forgets them.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    /// These events were added behind that one, and have their versions.
    pub(crate) fn grew(&self, before: Option<EventId>, added: &[OutboxEvent]) {
        let Some(last) = added.last() else { return };
        let Versions { mut known, holds } = self.at(before);
        if !holds {
            *known = Known::default();
        }
        known.newest = Some(last.envelope.id);
        for OutboxEvent { envelope, .. } in added {
            known.versions.put(envelope.stream.clone(), envelope.version);
        }
    }
}

/// What is known at one moment.
pub(crate) struct Versions<'a> {
    known: MutexGuard<'a, Known>,
    holds: bool,
}

impl Versions<'_> {
    /// The version of the stream's last event, if it is known.
    pub(crate) fn of(&self, stream: &String) -> Option<Version> {
        self.known.versions.get(stream).filter(|_| self.holds).copied()
    }
}
