//! A service's relay: it appends the service's outbox to the event store, in order, once.

use std::sync::Arc;

use crate::core::Core;
use crate::error::{Divergence, StoreError};
use crate::event::Position;
use crate::event_store::{Appended, Cursor};
use crate::measure;
use crate::outbox::{self, OutboxEvent};
use crate::service::Service;
use crate::writer::Step;

/// The relay of one service.
#[derive(Debug)]
pub struct Relay<S: Service> {
    core: Arc<Core<S>>,
    /// How much of the outbox is in the event store, once the outbox was seen to hold the last of it.
    cursor: Option<Cursor>,
    behind: bool,
}

impl<S: Service> Relay<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        Self { core, cursor: None, behind: true }
    }

    /// Whether there may be events that it has not appended, as far as it saw the outbox.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Appends the next page of the outbox: what this process wrote just now, or else what it reads.
    pub async fn step(&mut self) -> Result<Step, StoreError> {
        let core = &self.core;
        // Put back at the end: after trouble on the way, and after another relay, it is found out again.
        let known = self.cursor.take();
        self.behind = true;
        let fresh = known.map_or_else(Vec::new, |cursor| core.newest_after(cursor, core.batch));
        let cursor = match known {
            Some(cursor) => cursor,
            None => core.event_store.cursor(S::NAME).await?,
        };
        let (page, is_full) = match fresh.len() {
            0 => self.read(cursor).await?,
            count => (fresh, count == core.batch),
        };
        let Some(last) = page.last() else {
            self.cursor = Some(cursor);
            self.behind = false;
            return Ok(Step::Idle);
        };
        let mut expected = (cursor.position.0 + 1..).map(Position);
        if let Some((_, position)) =
            page.iter().zip(&mut expected).find(|(event, position)| event.position != *position)
        {
            let service = S::NAME.to_owned();
            return Err(StoreError::Diverged(Divergence::OutboxGap { service, position }));
        }
        let next = Cursor { position: last.position, event: Some(last.envelope.id) };
        match core.event_store.append(&page).await? {
            Appended::Done(_) => {
                core.gauges.relayed.add(page.len(), core.clock.now());
                measure::appended(S::NAME, page.len());
                self.cursor = Some(next);
                self.behind = is_full;
                Ok(Step::Did(page.len()))
            }
            // Another relay of this service was faster.
            Appended::NotNext(_) => Ok(Step::Did(0)),
        }
    }

    /// Reads the next page of the outbox; whether there may be more of it.
    ///
    /// The page begins with the event that the event store has last: an outbox that does not hold
    /// it is not the one that the event store knows.
    async fn read(&self, cursor: Cursor) -> Result<(Vec<OutboxEvent>, bool), StoreError> {
        let core = &self.core;
        let mut reader = core.database.follower().await?;
        let first = cursor.position.max(Position(1));
        let most = core.batch + usize::from(cursor.event.is_some());
        let mut page = outbox::page(&mut reader, S::NAME, first, most).await?;
        reader.give_back();
        let is_full = page.len() == most;
        if let Some(event) = cursor.event {
            let shown = page.first().map(|first| first.envelope.id);
            if shown != Some(event) {
                let head = outbox::head(&mut *core.database.reader().await?).await?;
                let (service, known) = (S::NAME.to_owned(), cursor.position);
                return Err(StoreError::Diverged(Divergence::OlderService {
                    service,
                    known,
                    head,
                }));
            }
            page.remove(0);
        }
        Ok((page, is_full))
    }

    /// Whether everything that this process knows of the outbox is in the event store.
    pub(crate) fn has_all_known(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor.position.0 >= self.core.gauges.outbox_head.get())
    }
}
