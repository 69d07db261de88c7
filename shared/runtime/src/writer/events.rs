//! Events of the event store: read after the checkpoint, handled with it.

use std::sync::Arc;

use tracing::{error, warn};

use super::messages::{Attempt, behind, ended_often, tell_parked, to_message};
use super::{Step, Writer};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Timestamp;
use crate::dead_letters::{self, DeadLetterStatus, Kept, Parked};
use crate::error::{Divergence, StoreError};
use crate::event::{EventId, Position};
use crate::event_store::{Anchor, Page, StoredEvent};
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::runs;
use crate::service::Service;
use crate::unit::{Closing, Unit};

/// How far the consumer is: what is committed, and what was read since without any effect.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    committed: Checkpoint,
    seen: Checkpoint,
    /// The events handled since then: those without an effect, before they are committed with others.
    handled: Vec<EventId>,
    saved_at: Timestamp,
}

impl Consumer {
    /// How far it has read.
    pub(super) fn position(&self) -> Position {
        self.seen.anchor.position
    }

    fn pass(&mut self, end: Anchor, events: &[Kept]) {
        for event in events {
            let Kept::Event(StoredEvent { envelope, source_position, .. }) = event else {
                continue;
            };
            self.handled.push(envelope.id);
            let mark = self.seen.sources.entry(envelope.source.clone()).or_default();
            *mark = (*mark).max(*source_position);
        }
        self.seen.anchor = end;
    }
}

impl<S: Service> Writer<S> {
    /// Handles the next stretch of the event store, at most `limit` events of interest.
    pub async fn step_events(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        self.behind = true;
        self.read_checkpoint().await?;
        // Put back at the end: after trouble on the way it is read from the database again.
        let Some(mut consumer) = self.consumer.take() else { return Ok(Step::Idle) };
        let limit = if self.careful > 0 { limit.min(self.careful) } else { limit };
        let seen = &consumer.seen.anchor;
        let page = match core.event_store.newest_page(seen, S::HEARS, limit) {
            Some(page) => page,
            None => core.event_store.page(seen.position, &self.hears, limit).await?,
        };
        verify_anchor::<S>(&consumer.seen.anchor, &page)?;
        let Some(end) = page.end else {
            self.careful_stretch_over().await?;
            consumer.seen.anchor.log_id = page.log_id;
            self.consumer = Some(consumer);
            self.save_if_late().await?;
            self.behind = false;
            return Ok(Step::Idle);
        };
        let fresh: Vec<Kept> = page
            .events
            .into_iter()
            .filter(|event| S::HEARS.contains(&event.envelope.kind.as_str()))
            .filter(|event| {
                !consumer.seen.has_handled(&event.envelope.source, event.source_position)
            })
            .map(Kept::Event)
            .collect();
        let (count, is_last, place) = (fresh.len(), page.is_last, end.position);
        self.consumer = Some(consumer);
        if fresh.is_empty() {
            self.pass(end, &[]);
            self.save_if_late().await?;
        } else if self.careful > 0 {
            // Rare, and large enough to make every step's future too large.
            Box::pin(self.events_with_care(&fresh, end)).await?;
        } else {
            self.events_at_once(&fresh, end).await?;
        }
        core.gauges.handled.add(count, core.clock.now());
        let is_there = |consumer: &Consumer| consumer.seen.anchor.position >= place;
        self.behind = !is_last || !self.consumer.as_ref().is_some_and(is_there);
        if !self.behind {
            self.careful_stretch_over().await?;
        }
        Ok(Step::Did(count))
    }

    /// All events of a stretch as one unit; if the batch fails on its data, one by one next time.
    async fn events_at_once(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        match self.try_events(events, end).await {
            Err(cause) if cause.is_about_data() => {
                warn!(service = S::NAME, %cause, "a batch of events failed; each goes by itself");
                self.careful = events.len();
                Ok(())
            }
            other => other,
        }
    }

    /// Events of which one may have ended the last run, as one unit: the attempt is committed before
    /// it runs, so that a crash counts. If it has come to no end before, they go one by one.
    async fn events_with_care(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let unit = Unit::begin(&core, CommitPoint::Attempt).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        if !self.begin_together(unit, events.iter().map(Kept::id).collect()).await? {
            // Few at a time: each takes two commits, and commands wait meanwhile.
            let few = &events[..events.len().min(limits::CAREFUL_MESSAGES)];
            let end = match few.last() {
                Some(Kept::Event(last)) if few.len() < events.len() => last.anchor(&end.log_id),
                _ => end,
            };
            return self.events_one_by_one(few, end).await;
        }
        match self.try_events(events, end).await {
            // Counted by now: one by one next time.
            Err(cause) if cause.is_about_data() => self.open_together.clear(),
            other => {
                other?;
                self.open_together.clear();
                self.careful = self.careful.saturating_sub(events.len());
            }
        }
        if self.careful == 0 { self.careful_stretch_over().await } else { Ok(()) }
    }

    /// One event after the other, each attempt committed before it runs.
    async fn events_one_by_one(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        for event in events {
            let Kept::Event(stored) = event else { continue };
            let place = stored.anchor(&end.log_id);
            let Some(attempt) = self.begin_attempt(event, Attempt::Next).await? else {
                self.consumer = None;
                return Ok(());
            };
            if attempt > limits::ATTEMPTS {
                self.park_event(event, place, ended_often(), limits::ATTEMPTS).await?;
            } else {
                let before = self.consumer.clone();
                match self.try_events(std::slice::from_ref(event), place.clone()).await {
                    Err(cause) if cause.is_about_data() && attempt == limits::ATTEMPTS => {
                        // Refused data is not committed for certain: nothing has moved.
                        self.consumer = before;
                        self.park_event(event, place, cause.to_string(), attempt).await?;
                    }
                    Err(cause) if cause.is_about_data() => {
                        // Tried again by the next step, and counted again.
                        self.open_attempt = None;
                        return Ok(());
                    }
                    other => other?,
                }
            }
            self.open_attempt = None;
            if self.consumer.is_none() {
                // Another replica is at work here; begin again where it is.
                return Ok(());
            }
            self.careful = self.careful.saturating_sub(1);
        }
        self.pass(end, &[]);
        if self.careful == 0 { self.careful_stretch_over().await } else { Ok(()) }
    }

    async fn try_events(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        match self.handle_events(events, end).await {
            Err(StoreError::Overtaken) => {
                self.forget_place();
                Ok(())
            }
            other => other,
        }
    }

    async fn handle_events(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let heard: Vec<_> = events.iter().map(|event| (event, to_message::<S>(event))).collect();
        let messages = heard.iter().filter_map(|(_, message)| message.as_ref().ok());
        let point = CommitPoint::Events;
        let mut unit = match Unit::ahead(&core, point, messages.clone()) {
            Some(unit) => unit,
            None => Unit::begin_for(&core, point, messages, Vec::new()).await?.0,
        };
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let counted = unit.state().attempts_left;
        let closing = self.handle_all(&mut unit, &heard).await?;
        let effects = !unit.is_empty() || !closing.parked.is_empty();
        if !effects && !counted {
            unit.rollback().await?;
            self.pass(end, events);
            return self.save_if_late().await;
        }
        self.commit_at(unit, closing, end, events).await
    }

    async fn park_event(
        &mut self,
        event: &Kept,
        place: Anchor,
        cause: String,
        attempts: i64,
    ) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core, CommitPoint::ParkedEvent).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let (id, lane) = (event.id(), event.lane());
        error!(service = S::NAME, id, lane, cause, "an event is parked");
        tell_parked(&mut unit, event, &cause);
        let held = dead_letters::held(unit.turn().await?, &[lane]).await?;
        let status = behind(held.get(lane).copied()).unwrap_or(DeadLetterStatus::Parked);
        let closing = Closing {
            parked: vec![Parked { message: event.clone(), status, cause, attempts }],
            ..Closing::default()
        };
        self.commit_at(unit, closing, place, std::slice::from_ref(event)).await
    }

    /// Commits a unit together with the checkpoint at `end`.
    ///
    /// Meanwhile this writer does not know where it is: if the commit fails, or is never waited
    /// for, that is read again from the database.
    async fn commit_at(
        &mut self,
        unit: Unit<'_, S>,
        mut closing: Closing,
        end: Anchor,
        events: &[Kept],
    ) -> Result<(), StoreError> {
        let Some(mut consumer) = self.consumer.take() else {
            return unit.rollback().await;
        };
        consumer.pass(end, events);
        let handled = std::mem::take(&mut consumer.handled);
        if unit.state().attempts_left {
            // Also those of another replica that began where this one had passed already.
            closing.settled_attempts = handled.iter().map(ToString::to_string).collect();
        }
        let sequence = consumer.committed.sequence + 1;
        consumer.committed = Checkpoint { sequence, ..consumer.seen.clone() };
        closing.checkpoint = Some(consumer.committed.clone());
        let committed = unit.commit(closing).await?;
        consumer.saved_at = self.core.clock.now();
        self.core.gauges.consumed.set(consumer.seen.anchor.position.0);
        self.consumer = Some(consumer);
        self.committed_beside_commands(committed, events.len());
        Ok(())
    }

    /// The messages that may have ended the last run are behind: it is forgotten.
    pub(super) async fn careful_stretch_over(&mut self) -> Result<(), StoreError> {
        self.careful = 0;
        if self.unclean_runs.is_empty() {
            return Ok(());
        }
        let mut turn = self.core.database.take_turn(CommitPoint::RunsForgotten).await?;
        runs::end(&mut turn, &self.unclean_runs).await?;
        turn.commit(Vec::new()).await?;
        self.unclean_runs.clear();
        Ok(())
    }

    /// Reads the checkpoint, at the beginning and after a commit that failed.
    async fn read_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.consumer.is_none() {
            let mut follower = self.core.database.follower().await?;
            let committed = checkpoint::newest(&mut follower).await?;
            follower.give_back();
            let saved_at = self.core.clock.now();
            let (seen, handled) = (committed.clone(), Vec::new());
            self.consumer = Some(Consumer { committed, seen, handled, saved_at });
        }
        Ok(())
    }

    /// Saves how far was read, if nothing else saved it for a second.
    async fn save_if_late(&mut self) -> Result<(), StoreError> {
        let late = self.consumer.as_ref().is_some_and(|consumer| {
            consumer.saved_at.is_long_ago(limits::CHECKPOINT_SAVE, self.core.clock.now())
        });
        if late { self.save_checkpoint().await } else { Ok(()) }
    }

    pub(super) async fn save_checkpoint(&mut self) -> Result<(), StoreError> {
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        if consumer.seen.anchor.position <= consumer.committed.anchor.position {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        let unit = Unit::begin(&core, CommitPoint::Checkpoint).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let end = consumer.seen.anchor.clone();
        self.commit_at(unit, Closing::default(), end, &[]).await
    }

    /// Whether nobody else has moved the checkpoint since it was read.
    pub(super) fn is_next(&self, unit: &Unit<'_, S>) -> bool {
        self.consumer
            .as_ref()
            .is_some_and(|known| known.committed.sequence == unit.state().checkpoint)
    }

    /// Another replica was faster: nothing is done, and the checkpoint is read again.
    async fn start_over(&mut self, unit: Unit<'_, S>) -> Result<(), StoreError> {
        self.forget_place();
        unit.rollback().await
    }

    /// Where it is now is in the database.
    fn forget_place(&mut self) {
        self.consumer = None;
        // Whoever moves the checkpoint past the attempts of this one settles them.
        self.open_attempt = None;
        self.open_together.clear();
    }

    /// Notes that everything up to `end` is handled, without committing it yet.
    fn pass(&mut self, end: Anchor, events: &[Kept]) {
        if let Some(consumer) = &mut self.consumer {
            consumer.pass(end, events);
            self.core.gauges.consumed.set(consumer.seen.anchor.position.0);
        }
    }
}

/// The page must begin at the checkpoint, with the history up to there that it was made in.
fn verify_anchor<S: Service>(anchor: &Anchor, page: &Page) -> Result<(), StoreError> {
    let service = S::NAME;
    if !anchor.log_id.is_empty() && anchor.log_id != page.log_id {
        let (known, found) = (anchor.log_id.clone(), page.log_id.clone());
        return Err(StoreError::Diverged(Divergence::OtherLog { service, known, found }));
    }
    if anchor.position == Position(0) {
        return Ok(());
    }
    if page.chain.as_deref() == Some(&*anchor.chain) {
        return Ok(());
    }
    let position = anchor.position;
    Err(StoreError::Diverged(Divergence::OtherPosition { service, position }))
}
