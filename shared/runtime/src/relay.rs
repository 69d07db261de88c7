//! A service's relay: it appends the service's outbox to the event store, in order, once.

use std::sync::Arc;

use crate::core::Core;
use crate::error::{Divergence, StoreError};
use crate::event::Position;
use crate::event_store::{Appended, Cursor};
use crate::measure;
use crate::outbox;
use crate::service::Service;
use crate::writer::Step;

/// The relay of one service.
#[derive(Debug)]
pub struct Relay<S: Service> {
    core: Arc<Core<S>>,
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

    /// Appends the next page of the outbox.
    ///
    /// The page begins with the event that the event store has last: an outbox that does not hold
    /// it is not the one that the event store knows.
    pub async fn step(&mut self) -> Result<Step, StoreError> {
        let core = &self.core;
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => core.event_store.cursor(S::NAME).await?,
        };
        self.cursor = None;
        self.behind = true;
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
            // Another relay of this service was faster; go on from where it is.
            Appended::NotNext(actual) => {
                self.cursor = Some(actual);
                Ok(Step::Did(0))
            }
        }
    }
}
