//! A service's writer: the one loop that changes its rows. Each of its steps is one bounded unit
//! of work that a test can call by itself: commands, events of the log, timers, retries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{error, warn};

use crate::answers::{self, StoredAnswer};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Timestamp;
use crate::command::{CommandError, Job, Outcome, Request, RequestKey};
use crate::core::Core;
use crate::dead_letters::{self, DeadLetterStatus, Kept, Parked};
use crate::error::{Divergence, StoreError};
use crate::event::{Position, Version};
use crate::event_store::{Anchor, Page, StoredEvent};
use crate::limits;
use crate::runs;
use crate::service::{Message, Service};
use crate::timers::{self, StoredTimer};
use crate::unit::{Cause, Closing, Committed, Unit, Verdict};

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
    /// Messages still to be handled one by one, each attempt counted.
    careful: usize,
    /// Runs that did not end cleanly, to be forgotten after the careful stretch.
    unclean_runs: Vec<String>,
    /// An attempt that is counted and has not come to an end, because the database was in trouble:
    /// that is not the message's fault, so going on with it is not one more.
    open_attempt: Option<(String, i64)>,
    unit_size: usize,
    next_due: Option<Timestamp>,
}

/// How far the consumer is: what is committed, and what was read since without any effect.
#[derive(Clone, Debug)]
struct Consumer {
    committed: Checkpoint,
    seen: Checkpoint,
    saved_at: Timestamp,
}

impl Consumer {
    fn pass(&mut self, end: Anchor, events: &[Kept]) {
        for event in events {
            let Kept::Event(StoredEvent { envelope, source_position, .. }) = event else {
                continue;
            };
            let mark = self.seen.sources.entry(envelope.source.clone()).or_default();
            *mark = (*mark).max(*source_position);
        }
        self.seen.anchor = end;
    }
}

/// A command taken out of its job.
struct Asked<S: Service> {
    message: Message<S>,
    cause: Cause,
    key: Option<RequestKey>,
    if_match: Option<Vec<Version>>,
}

impl<S: Service> Writer<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        let hears = serde_json::to_string(S::HEARS).unwrap_or_default();
        Self {
            core,
            hears,
            consumer: None,
            careful: 0,
            unclean_runs: Vec::new(),
            open_attempt: None,
            unit_size: limits::UNIT_MESSAGES,
            next_due: Some(Timestamp(0)),
        }
    }

    /// Begins a run; after an unclean end the first messages are handled with care.
    pub async fn start(&mut self, run: &str) -> Result<(), StoreError> {
        let core = &self.core;
        let mut turn = core.database.take_turn().await?;
        self.unclean_runs = runs::begin(&mut turn, run, core.clock.now()).await?;
        if !self.unclean_runs.is_empty() {
            self.careful = limits::UNIT_MESSAGES;
            let parked = dead_letters::park_interrupted(&mut turn, core.clock.now()).await?;
            warn!(
                service = S::NAME,
                parked, "the last run did not end cleanly; going on with care"
            );
        }
        Ok(turn.commit().await?)
    }

    /// Ends a run cleanly: everything read is saved.
    pub async fn stop(&mut self, run: &str) -> Result<(), StoreError> {
        self.save_checkpoint().await?;
        let mut turn = self.core.database.take_turn().await?;
        runs::end(&mut turn, &[run.to_owned()]).await?;
        Ok(turn.commit().await?)
    }

    /// When the next timer may come due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.next_due
    }

    /// How many messages the next unit may take.
    pub fn unit_size(&self, commands_wait: bool) -> usize {
        if commands_wait {
            self.unit_size.min(limits::UNIT_WHILE_COMMANDS_WAIT)
        } else {
            limits::UNIT_MESSAGES
        }
    }

    /// Carries out commands as one unit and answers each. Nobody hears anything before the commit.
    pub(crate) async fn step_commands(&mut self, jobs: Vec<Job<S>>) -> Result<Step, StoreError> {
        let count = jobs.len();
        let (asked, replies): (Vec<Asked<S>>, Vec<_>) =
            jobs.into_iter().map(|job| (asked(job.request), job.reply)).unzip();
        let (outcomes, trouble) = match self.try_commands(&asked).await {
            Ok(outcomes) => (outcomes, None),
            Err(cause) if cause.is_about_data() && count > 1 => {
                warn!(service = S::NAME, %cause, "a batch of commands failed; each goes by itself");
                self.commands_one_by_one(&asked).await
            }
            Err(trouble) => (asked.iter().map(|_| Err(excuse(&trouble))).collect(), Some(trouble)),
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A client that hung up is not waiting for the answer; what was done is done.
            let _ = reply.send(outcome);
        }
        trouble.filter(StoreError::is_passing).map_or(Ok(Step::Did(count)), Err)
    }

    async fn commands_one_by_one(
        &mut self,
        asked: &[Asked<S>],
    ) -> (Vec<Outcome<S>>, Option<StoreError>) {
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut trouble = None;
        for one in asked {
            match self.try_commands(std::slice::from_ref(one)).await {
                Ok(mut outcome) => outcomes.append(&mut outcome),
                Err(cause) => {
                    error!(service = S::NAME, %cause, "a command failed on its data");
                    outcomes.push(Err(excuse(&cause)));
                    trouble = Some(cause);
                }
            }
        }
        (outcomes, trouble)
    }

    async fn try_commands(&mut self, asked: &[Asked<S>]) -> Result<Vec<Outcome<S>>, StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        let keys: Vec<&str> =
            asked.iter().filter_map(|one| one.key.as_ref()).map(|key| key.key.as_str()).collect();
        let mut stored = answers::load(unit.turn(), &keys).await?;
        let fresh =
            |one: &&Asked<S>| one.key.as_ref().is_none_or(|key| !stored.contains_key(&key.key));
        let messages: Vec<&Message<S>> =
            asked.iter().filter(fresh).map(|one| &one.message).collect();
        unit.prepare(messages.iter().copied()).await?;
        let mut outcomes = Vec::with_capacity(asked.len());
        let mut closing = Closing::default();
        for one in asked {
            if let Some(known) = one.key.as_ref().and_then(|key| stored.get(&key.key)) {
                outcomes.push(repeat(one, known));
                continue;
            }
            let verdict = unit.handle(&one.message, &one.cause, one.if_match.as_deref()).await?;
            let outcome = outcome::<S>(verdict);
            if let (Some(key), Ok(answer)) = (&one.key, &outcome) {
                let answer = StoredAnswer {
                    key: key.key.clone(),
                    fingerprint: key.fingerprint.clone(),
                    answer: answer.clone(),
                };
                stored.insert(key.key.clone(), answer.clone());
                closing.answers.push(answer);
            }
            outcomes.push(outcome);
        }
        let committed = unit.commit(closing).await?;
        self.committed(&committed, asked.len());
        Ok(outcomes)
    }

    /// Handles the next stretch of the event store, at most `limit` events of interest.
    pub async fn step_events(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        self.read_checkpoint().await?;
        // Put back at the end: after trouble on the way it is read from the database again.
        let Some(mut consumer) = self.consumer.take() else { return Ok(Step::Idle) };
        let limit = match self.careful {
            0 => limit,
            // Few at a time: each takes two commits, and commands wait meanwhile.
            careful => limit.min(careful).min(limits::CAREFUL_MESSAGES),
        };
        let page = core.event_store.page(consumer.seen.anchor.position, &self.hears, limit).await?;
        verify_anchor::<S>(&consumer.seen.anchor, &page)?;
        let Some(end) = page.end else {
            self.careful_stretch_over().await?;
            consumer.seen.anchor.log_id = page.log_id;
            self.consumer = Some(consumer);
            self.save_if_late().await?;
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
        let count = fresh.len();
        self.consumer = Some(consumer);
        if fresh.is_empty() {
            self.pass(end, &[]);
            self.save_if_late().await?;
        } else if self.careful > 0 {
            self.events_with_care(&fresh, end).await?;
        } else {
            self.events_at_once(&fresh, end).await?;
        }
        core.gauges.handled.add(count, core.clock.now());
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

    /// One event after the other, each attempt committed before it runs, so that a crash counts.
    async fn events_with_care(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        for event in events {
            let Kept::Event(stored) = event else { continue };
            let place = stored.anchor(&end.log_id);
            let Some(attempt) = self.begin_attempt(event).await? else { return Ok(()) };
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

    /// Counts an attempt at a message, committed before it runs; nothing if it is not this
    /// replica's to try any more.
    async fn begin_attempt(&mut self, kept: &Kept) -> Result<Option<i64>, StoreError> {
        let id = kept.id();
        if let Some((open, number)) = &self.open_attempt
            && *open == id
        {
            return Ok(Some(*number));
        }
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        let mine = match kept {
            Kept::Event(_) => self.is_next(&unit),
            Kept::Timer(timer) => {
                timers::still_set(unit.turn(), &[timer]).await?.contains(&timer.id())
            }
        };
        if !mine {
            self.consumer = None;
            unit.rollback().await?;
            return Ok(None);
        }
        let mut turn = unit.into_turn();
        let number = dead_letters::count_attempt(&mut turn, &id).await?;
        turn.commit().await?;
        self.open_attempt = Some((id, number));
        Ok(Some(number))
    }

    /// Reads the checkpoint, at the beginning and after a commit that failed.
    async fn read_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.consumer.is_none() {
            let mut reader = self.core.database.reader().acquire().await?;
            let committed = checkpoint::newest(&mut reader).await?;
            let saved_at = self.core.clock.now();
            self.consumer = Some(Consumer { seen: committed.clone(), committed, saved_at });
        }
        Ok(())
    }

    /// The messages that may have ended the last run are behind: it is forgotten.
    async fn careful_stretch_over(&mut self) -> Result<(), StoreError> {
        self.careful = 0;
        if self.unclean_runs.is_empty() {
            return Ok(());
        }
        let mut turn = self.core.database.take_turn().await?;
        runs::end(&mut turn, &self.unclean_runs).await?;
        turn.commit().await?;
        self.unclean_runs.clear();
        Ok(())
    }

    async fn try_events(&mut self, events: &[Kept], end: Anchor) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let counted = unit.attempts_left();
        let mut closing = self.handle_all(&mut unit, events).await?;
        let effects = !unit.is_empty() || !closing.parked.is_empty();
        if !effects && !counted {
            unit.rollback().await?;
            self.pass(end, events);
            return self.save_if_late().await;
        }
        if counted {
            closing.settled_attempts = events.iter().map(Kept::id).collect();
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
        let mut unit = Unit::begin(&core).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let (id, lane) = (event.id(), event.lane());
        error!(service = S::NAME, id, lane, cause, "an event is parked");
        let held = dead_letters::held(unit.turn(), &[lane]).await?;
        let status = behind(held.get(lane).copied()).unwrap_or(DeadLetterStatus::Parked);
        let closing = Closing {
            parked: vec![Parked { message: event.clone(), status, cause, attempts }],
            settled_attempts: vec![event.id()],
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
        let sequence = consumer.committed.sequence + 1;
        consumer.committed = Checkpoint { sequence, ..consumer.seen.clone() };
        closing.checkpoint = Some(consumer.committed.clone());
        let committed = unit.commit(closing).await?;
        consumer.saved_at = self.core.clock.now();
        self.core.gauges.consumed.set(consumer.seen.anchor.position.0);
        self.consumer = Some(consumer);
        self.committed(&committed, events.len());
        Ok(())
    }

    /// Decides kept messages in order: what fails is parked, and its lane waits behind it.
    async fn handle_all(
        &self,
        unit: &mut Unit<'_, S>,
        kept: &[Kept],
    ) -> Result<Closing, StoreError> {
        let mut held = BTreeMap::new();
        if unit.lanes_held() {
            let lanes: BTreeSet<&str> = kept.iter().map(Kept::lane).collect();
            let lanes: Vec<&str> = lanes.into_iter().collect();
            held = dead_letters::held(unit.turn(), &lanes).await?;
        }
        let heard: Vec<Result<Message<S>, String>> = kept.iter().map(to_message::<S>).collect();
        let free =
            |(kept, _): &(&Kept, &Result<Message<S>, String>)| !held.contains_key(kept.lane());
        let messages: Vec<&Message<S>> =
            kept.iter().zip(&heard).filter(free).filter_map(|(_, m)| m.as_ref().ok()).collect();
        unit.prepare(messages.iter().copied()).await?;
        let mut closing = Closing::default();
        for (kept, message) in kept.iter().zip(&heard) {
            let lane_held = held.get(kept.lane()).copied();
            if let Kept::Timer(timer) = kept
                && (lane_held.is_some() || unit.touched_timer(&timer.key))
            {
                // It stays set, and comes due again when its lane is free.
                continue;
            }
            let mut keep = |status, cause, attempts| {
                closing.parked.push(Parked { message: kept.clone(), status, cause, attempts });
            };
            if let Some(behind) = behind(lane_held) {
                keep(behind, String::new(), 0);
                continue;
            }
            if let Some(cause) = self.try_one(unit, kept, message).await? {
                let (id, lane) = (kept.id(), kept.lane());
                error!(service = S::NAME, id, lane, cause, "a message is parked");
                held.insert(kept.lane().to_owned(), true);
                keep(DeadLetterStatus::Parked, cause, 1);
            }
        }
        Ok(closing)
    }

    /// Decides one kept message; why it failed, if it did.
    async fn try_one(
        &self,
        unit: &mut Unit<'_, S>,
        kept: &Kept,
        message: &Result<Message<S>, String>,
    ) -> Result<Option<String>, StoreError> {
        let message = match message {
            Ok(message) => message,
            Err(cause) => return Ok(Some(cause.clone())),
        };
        Ok(match unit.handle(message, &cause_of::<S>(kept), None).await? {
            Verdict::Decided(_) => None,
            Verdict::Refused(refusal) => Some(format!("refused: {refusal}")),
            Verdict::Stale(version) => Some(format!("stale at version {version}")),
            Verdict::Failed(cause) => Some(cause),
        })
    }

    /// Handles timers that came due, as one unit.
    pub async fn step_timers(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        let due = timers::due(core.database.reader(), core.clock.now(), limit).await?;
        if due.is_empty() {
            self.next_due = timers::next_due(core.database.reader()).await?;
            return Ok(Step::Idle);
        }
        let count = due.len();
        self.next_due = Some(Timestamp(0));
        if self.careful == 0 {
            match self.try_timers(&due).await {
                Err(cause) if cause.is_about_data() => {
                    warn!(service = S::NAME, %cause, "a batch of timers failed; each goes by itself");
                }
                other => return other.map(|()| Step::Did(count)),
            }
        }
        for timer in due.into_iter().take(limits::CAREFUL_MESSAGES) {
            self.timer_with_care(timer).await?;
        }
        Ok(Step::Did(count))
    }

    async fn try_timers(&mut self, due: &[StoredTimer]) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        let set = timers::still_set(unit.turn(), &due.iter().collect::<Vec<_>>()).await?;
        let still_set = |timer: &&StoredTimer| set.contains(&timer.id());
        let kept: Vec<Kept> = due.iter().filter(still_set).cloned().map(Kept::Timer).collect();
        let mut closing = self.handle_all(&mut unit, &kept).await?;
        if unit.attempts_left() {
            closing.settled_attempts = due.iter().map(StoredTimer::id).collect();
        }
        let committed = unit.commit(closing).await?;
        self.committed(&committed, due.len());
        Ok(())
    }

    async fn timer_with_care(&mut self, timer: StoredTimer) -> Result<(), StoreError> {
        let kept = Kept::Timer(timer.clone());
        let Some(attempt) = self.begin_attempt(&kept).await? else { return Ok(()) };
        let failed = if attempt > limits::ATTEMPTS {
            Some(ended_often())
        } else {
            match self.try_timers(std::slice::from_ref(&timer)).await {
                Err(cause) if cause.is_about_data() && attempt == limits::ATTEMPTS => {
                    Some(cause.to_string())
                }
                // Comes due again at once, and is counted again.
                Err(cause) if cause.is_about_data() => None,
                other => other.map(|()| None)?,
            }
        };
        if let Some(cause) = failed {
            self.park_timer(&timer, cause).await?;
        }
        self.open_attempt = None;
        Ok(())
    }

    async fn park_timer(&mut self, timer: &StoredTimer, cause: String) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        let (id, lane) = (timer.id(), timer.correlation.as_str());
        let mut closing = Closing { settled_attempts: vec![id.clone()], ..Closing::default() };
        let set = timers::still_set(unit.turn(), &[timer]).await?.contains(&id);
        if set && dead_letters::held(unit.turn(), &[lane]).await?.is_empty() {
            error!(service = S::NAME, id, lane, cause, "a timer is parked");
            let (message, status) = (Kept::Timer(timer.clone()), DeadLetterStatus::Parked);
            closing.parked.push(Parked { message, status, cause, attempts: limits::ATTEMPTS });
        }
        unit.commit(closing).await?;
        Ok(())
    }

    /// Tries dead letters again that an operator wants tried, in the order of their lanes.
    pub async fn step_retries(&mut self, limit: usize) -> Result<Step, StoreError> {
        let core = Arc::clone(&self.core);
        let listed = dead_letters::retrying(core.database.reader(), limit).await?;
        if listed.is_empty() {
            return Ok(Step::Idle);
        }
        match self.try_retries(&listed, None).await {
            Err(cause) if cause.is_about_data() => {
                warn!(service = S::NAME, %cause, "a batch of retries failed; each goes by itself");
            }
            other => return other.map(|()| Step::Did(listed.len())),
        }
        for one in &listed {
            let one = std::slice::from_ref(one);
            match self.try_retries(one, None).await {
                Err(cause) if cause.is_about_data() => {
                    self.try_retries(one, Some(cause.to_string())).await?;
                }
                other => other?,
            }
        }
        Ok(Step::Did(listed.len()))
    }

    /// Tries dead letters again as one unit; with `failed`, their retry is known to fail so.
    async fn try_retries(
        &mut self,
        listed: &[(String, i64, Kept)],
        failed: Option<String>,
    ) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let mut unit = Unit::begin(&core).await?;
        let ids: Vec<&str> = listed.iter().map(|(id, _, _)| id.as_str()).collect();
        let still = dead_letters::still_retrying(unit.turn(), &ids).await?;
        let timers: Vec<&StoredTimer> =
            listed.iter().filter_map(|(_, _, kept)| kept.timer()).collect();
        let set = timers::still_set(unit.turn(), &timers).await?;
        let listed: Vec<_> = listed.iter().filter(|(id, _, _)| still.contains(id)).collect();
        let messages: Vec<_> = listed.iter().map(|(_, _, kept)| to_message::<S>(kept)).collect();
        if failed.is_none() {
            unit.prepare(messages.iter().filter_map(|message| message.as_ref().ok())).await?;
        }
        let mut closing = Closing::default();
        for ((id, attempts, kept), message) in listed.into_iter().zip(&messages) {
            if closing.stopped_lanes.iter().any(|lane| lane == kept.lane()) {
                continue;
            }
            let cleared = kept
                .timer()
                .is_some_and(|timer| !set.contains(id) || unit.touched_timer(&timer.key));
            let cause = match &failed {
                _ if cleared => None,
                Some(cause) => Some(cause.clone()),
                None => self.try_one(&mut unit, kept, message).await?,
            };
            match cause {
                None => closing.revived.push(id.clone()),
                Some(cause) => {
                    closing.stopped_lanes.push(kept.lane().to_owned());
                    let (message, status) = (kept.clone(), DeadLetterStatus::Parked);
                    closing.parked.push(Parked { message, status, cause, attempts: attempts + 1 });
                }
            }
        }
        let handled = closing.revived.len();
        let committed = unit.commit(closing).await?;
        self.committed(&committed, handled);
        Ok(())
    }

    /// Forgets stored answers that are older than they are kept.
    pub async fn step_prune(&mut self) -> Result<Step, StoreError> {
        let before = self.core.clock.now().minus(limits::ANSWERS_KEPT);
        let mut turn = self.core.database.take_turn().await?;
        let pruned = answers::prune(&mut turn, before).await?;
        turn.commit().await?;
        Ok(if pruned == 0 {
            Step::Idle
        } else {
            Step::Did(usize::try_from(pruned).unwrap_or(usize::MAX))
        })
    }

    /// Saves how far was read, if nothing else saved it for a second.
    async fn save_if_late(&mut self) -> Result<(), StoreError> {
        let late = self.consumer.as_ref().is_some_and(|consumer| {
            consumer.saved_at.is_long_ago(limits::CHECKPOINT_SAVE, self.core.clock.now())
        });
        if late { self.save_checkpoint().await } else { Ok(()) }
    }

    async fn save_checkpoint(&mut self) -> Result<(), StoreError> {
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        if consumer.seen.anchor.position <= consumer.committed.anchor.position {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        let unit = Unit::begin(&core).await?;
        if !self.is_next(&unit) {
            return self.start_over(unit).await;
        }
        let end = consumer.seen.anchor.clone();
        self.commit_at(unit, Closing::default(), end, &[]).await
    }

    /// Whether nobody else has moved the checkpoint since it was read.
    fn is_next(&self, unit: &Unit<'_, S>) -> bool {
        self.consumer.as_ref().is_some_and(|known| known.committed.sequence == unit.checkpoint())
    }

    /// Another replica was faster: nothing is done, and the checkpoint is read again.
    async fn start_over(&mut self, unit: Unit<'_, S>) -> Result<(), StoreError> {
        self.consumer = None;
        let mut turn = unit.into_turn();
        if let Some((id, _)) = self.open_attempt.take() {
            dead_letters::take_attempt_back(&mut turn, &id).await?;
        }
        Ok(turn.commit().await?)
    }

    /// Notes that everything up to `end` is handled, without committing it yet.
    fn pass(&mut self, end: Anchor, events: &[Kept]) {
        if let Some(consumer) = &mut self.consumer {
            consumer.pass(end, events);
            self.core.gauges.consumed.set(consumer.seen.anchor.position.0);
        }
    }

    /// Tells what was done, and fits the size of units to how long turns take.
    fn committed(&mut self, committed: &Committed, messages: usize) {
        let long = u128::from(committed.turn_micros) > limits::LONG_TURN.as_micros();
        self.unit_size = if long {
            (messages / 2).clamp(limits::UNIT_MESSAGES_MIN, self.unit_size)
        } else {
            (self.unit_size * 2).min(limits::UNIT_MESSAGES)
        };
        if let Some(due) = committed.next_due {
            self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
        }
        metrics::histogram!("waybill_unit_messages", "service" => S::NAME)
            .record(u32::try_from(messages).unwrap_or(u32::MAX));
        metrics::counter!("waybill_events_written_total", "service" => S::NAME)
            .increment(committed.events as u64);
        self.core.announce(committed);
    }
}

fn asked<S: Service>(request: Request<S>) -> Asked<S> {
    let Request { command, id, key, if_match, actor, traceparent } = request;
    let (causation, correlation, timer) = (id.to_string(), None, None);
    let cause = Cause { causation, correlation, timer, actor, traceparent };
    Asked { message: Message::Command(command), cause, key, if_match }
}

/// The answer to a repeated request: the stored one, if it is the same request.
fn repeat<S: Service>(asked: &Asked<S>, known: &StoredAnswer) -> Outcome<S> {
    let same = asked.key.as_ref().is_some_and(|key| key.fingerprint == known.fingerprint);
    if same { Ok(known.answer.clone()) } else { Err(CommandError::KeyReused) }
}

fn outcome<S: Service>(verdict: Verdict<S::Refusal>) -> Outcome<S> {
    match verdict {
        Verdict::Decided(Some(answer)) => Ok(answer),
        Verdict::Decided(None) => Err(CommandError::Failed("no answer".to_owned())),
        Verdict::Refused(refusal) => Err(CommandError::Refused(refusal)),
        Verdict::Stale(current) => Err(CommandError::Stale { current }),
        Verdict::Failed(cause) => {
            error!(service = S::NAME, cause, "a command failed");
            Err(CommandError::Failed(cause))
        }
    }
}

fn excuse<R: std::error::Error>(trouble: &StoreError) -> CommandError<R> {
    match trouble {
        StoreError::UnknownOutcome => CommandError::UnknownOutcome,
        StoreError::Unavailable(_) => CommandError::Unavailable,
        other => CommandError::Failed(other.to_string()),
    }
}

fn to_message<S: Service>(kept: &Kept) -> Result<Message<S>, String> {
    match kept {
        Kept::Event(event) => {
            S::hear(&event.envelope).map(Message::Heard).map_err(|error| error.to_string())
        }
        Kept::Timer(timer) => serde_json::from_str(&timer.payload)
            .map(Message::Due)
            .map_err(|error| format!("the timer's payload cannot be read: {error}")),
    }
}

fn cause_of<S: Service>(kept: &Kept) -> Cause {
    let (causation, correlation, traceparent) = match kept {
        Kept::Event(StoredEvent { envelope, .. }) => {
            (envelope.id.to_string(), envelope.correlation.clone(), envelope.traceparent.clone())
        }
        Kept::Timer(timer) => {
            (timer.event_id.clone(), timer.correlation.clone(), timer.traceparent.clone())
        }
    };
    let actor = format!("/services/{}", S::NAME);
    let timer = kept.timer().map(|timer| timer.key.clone());
    Cause { causation, correlation: Some(correlation), timer, actor, traceparent }
}

/// What a message becomes in a lane that is held back, by whether a parked one heads it.
fn behind(held: Option<bool>) -> Option<DeadLetterStatus> {
    held.map(|parked| if parked { DeadLetterStatus::Waiting } else { DeadLetterStatus::Retrying })
}

/// Why a message is parked that nobody saw fail.
fn ended_often() -> String {
    format!("ended the process {} times", limits::ATTEMPTS)
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
    if page.anchor.as_ref().is_some_and(|event| event.chain == anchor.chain) {
        return Ok(());
    }
    let position = anchor.position;
    Err(StoreError::Diverged(Divergence::OtherPosition { service, position }))
}
