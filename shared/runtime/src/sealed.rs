//! The end of a unit of work: everything that it decided, on its way into the database.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::clock::Timestamp;
use crate::core::Core;
use crate::database::Turn;
use crate::error::StoreError;
use crate::event::{EventId, Position};
use crate::failpoints::CommitPoint;
use crate::kept::State;
use crate::measure;
use crate::outbox::{Additions, OutboxEvent};
use crate::service::Service;
use crate::trace::Span;
use crate::unit::Closing;
use crate::writes::Writes;

/// A unit to which nothing is added any more.
pub(crate) struct Sealed<'a, S: Service> {
    pub(crate) core: &'a Core<S>,
    pub(crate) point: CommitPoint,
    /// Nothing if it takes the turn together with what it writes.
    pub(crate) turn: Option<Turn>,
    /// Since when it has the turn.
    pub(crate) since: Timestamp,
    /// What it was decided on.
    pub(crate) before: State,
    pub(crate) outbox: Additions,
    /// Nothing if it has no effects.
    pub(crate) writes: Option<Writes>,
    pub(crate) evidence: Evidence,
    pub(crate) changed: Vec<String>,
    pub(crate) next_due: Option<Timestamp>,
    pub(crate) written: BTreeMap<&'static str, u64>,
    pub(crate) spans: Vec<Span>,
}

impl<S: Service> Sealed<'_, S> {
    /// Writes everything and commits. What it committed is known when this returns.
    pub(crate) async fn commit(mut self) -> Result<Committed, StoreError> {
        let (core, events) = (self.core, self.outbox.events().len());
        let newest = self.write().await;
        if !matches!(newest, Ok(Some(_))) {
            // The rows left behind may not be those of the database.
            core.kept_rows.forget();
            core.streams.forget();
        }
        let newest = newest?.unwrap_or_default();
        let ended = core.clock.now();
        self.spans.into_iter().for_each(|span| span.end(ended));
        Ok(Committed {
            events,
            newest,
            before: self.before.newest,
            head: self.before.head.plus(events),
            changed: self.changed,
            next_due: self.next_due,
            turn_held: ended.since(self.since),
            written: self.written,
        })
    }

    /// The events as written; nothing if the answer was lost, and it is known only that they are.
    async fn write(&mut self) -> Result<Option<Vec<OutboxEvent>>, StoreError> {
        let (core, turn) = (self.core, self.turn.take());
        let Some(writes) = self.writes.take() else {
            return self.leave_no_trace(turn).await.map(|()| Some(Vec::new()));
        };
        let (is_ahead, sent) = (turn.is_none(), core.clock.now());
        if is_ahead {
            self.since = sent;
        }
        let answered = if let Some(turn) = turn {
            turn.commit(writes.into_statements()).await
        } else {
            let mut statements = vec![self.before.expect()];
            statements.extend(writes.into_statements());
            core.database.write_at_once(self.point, statements).await
        };
        measure::committed(S::NAME, core.clock.now().since(sent));
        match answered {
            // What is told of the outbox is told first, after what is expected.
            Ok(answers) => {
                let insert = answers.into_iter().nth(usize::from(is_ahead));
                let added = std::mem::take(&mut self.outbox).inserted(insert);
                core.streams.grew(self.before.newest, &added);
                Ok(Some(added))
            }
            Err(refused) if is_ahead && refused.is_for_want_of_a_turn() => Err(refused.into()),
            // Its answer may be one that was stored before: in its turn that is looked up.
            Err(lost)
                if is_ahead && lost.was_cut() && matches!(self.evidence, Evidence::Answer(_)) =>
            {
                Err(StoreError::Overtaken)
            }
            Err(lost) => {
                let was_cut = lost.was_cut();
                match core.find_out(&self.evidence, lost).await {
                    Ok(()) => Ok(None),
                    // As with a turn, of which another connection may have been asked.
                    Err(StoreError::Unavailable(_)) if is_ahead && was_cut => {
                        Err(StoreError::Overtaken)
                    }
                    Err(other) => Err(other),
                }
            }
        }
    }

    /// Ends without effects, which must hold under the turn.
    async fn leave_no_trace(&self, turn: Option<Turn>) -> Result<(), StoreError> {
        let turn = match turn {
            Some(turn) => turn,
            None => self.before.take_turn(&self.core.database, self.point).await?,
        };
        Ok(turn.rollback().await?)
    }
}

/// What a unit left behind.
#[derive(Debug)]
pub(crate) struct Committed {
    /// How many events it wrote.
    pub(crate) events: usize,
    /// Those events, unless it is not known with which versions they were written.
    pub(crate) newest: Vec<OutboxEvent>,
    /// The event before them, if there is one.
    pub(crate) before: Option<EventId>,
    /// Where the outbox ends now.
    pub(crate) head: Position,
    /// The rows it changed, each as `table/key`.
    pub(crate) changed: Vec<String>,
    /// The earliest timer it set.
    pub(crate) next_due: Option<Timestamp>,
    /// How long it held the turn.
    pub(crate) turn_held: Duration,
    /// How many events it wrote of each type.
    pub(crate) written: BTreeMap<&'static str, u64>,
}

/// What shows that a unit was committed, looked for when the answer to its commit is lost.
#[derive(Debug)]
pub(crate) enum Evidence {
    /// Its first event.
    Event(Position, EventId),
    /// The checkpoint it made.
    Checkpoint(Checkpoint),
    /// An answer it stored.
    Answer(String),
    /// Nothing: doing it again is harmless.
    None,
}

impl Evidence {
    /// Of a unit with these events.
    pub(crate) fn of(outbox: &[OutboxEvent], closing: &Closing) -> Self {
        if let Some(first) = outbox.first() {
            return Self::Event(first.position, first.envelope.id);
        }
        if let Some(checkpoint) = &closing.checkpoint {
            return Self::Checkpoint(checkpoint.clone());
        }
        closing.answers.first().map_or(Self::None, |stored| Self::Answer(stored.key.clone()))
    }
}
