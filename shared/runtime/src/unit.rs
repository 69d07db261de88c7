//! A unit of work: messages decided in memory, in order, and everything that follows committed
//! together. The number of statements does not depend on the number of messages.

use std::any::Any as Payload;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::answers::{self, StoredAnswer};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Timestamp;
use crate::core::Core;
use crate::database::Turn;
use crate::dead_letters::{self, Parked};
use crate::error::StoreError;
use crate::event::{Envelope, Event, EventId, Position, Recorded, Version};
use crate::outbox::{self, OutboxEvent};
use crate::rows::{Load, Save};
use crate::service::{Answer, Context, Message, Service, TimerChange};
use crate::tables::Tables;
use crate::timers::{self, StoredTimer};

/// What a message says of its origin, and the events that follow from it say of theirs.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The event, or the command, that led to this.
    pub(crate) causation: String,
    /// What it belongs to; nothing for a command, whose events say so themselves.
    pub(crate) correlation: Option<String>,
    /// Who asked.
    pub(crate) actor: String,
    /// W3C trace context, or empty.
    pub(crate) traceparent: String,
}

/// What became of one message.
#[derive(Debug)]
pub(crate) enum Verdict<R> {
    /// It was decided, and this many events follow.
    Decided {
        /// How many events follow.
        events: usize,
        /// The answer, where the message is a command.
        answer: Option<Answer>,
    },
    /// The service says no.
    Refused(R),
    /// The command was made for another version of its resource.
    Stale(Version),
    /// The service failed on it. The unit is as if it had not been there.
    Failed(String),
}

/// What a unit writes beside events, rows and timers.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// Answers to keep.
    pub(crate) answers: Vec<StoredAnswer>,
    /// The next checkpoint.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Messages to park, or to keep waiting behind such.
    pub(crate) parked: Vec<Parked>,
    /// Dead letters that were handled after all.
    pub(crate) revived: Vec<String>,
    /// Lanes whose retry failed: what is left of them waits again.
    pub(crate) stopped_lanes: Vec<String>,
    /// Messages whose attempts need not be counted any more.
    pub(crate) settled_attempts: Vec<String>,
}

impl Closing {
    fn is_empty(&self) -> bool {
        self.answers.is_empty()
            && self.checkpoint.is_none()
            && self.parked.is_empty()
            && self.revived.is_empty()
            && self.stopped_lanes.is_empty()
            && self.settled_attempts.is_empty()
    }
}

/// A unit of work that has its turn.
pub(crate) struct Unit<'a, S: Service> {
    core: &'a Core<S>,
    turn: Turn,
    began: Timestamp,
    head: Position,
    checkpoint: i64,
    lanes_held: bool,
    tables: S::Tables,
    drafts: Vec<Draft<S::Event>>,
    timers: BTreeMap<String, Option<StoredTimer>>,
}

struct Draft<E> {
    id: EventId,
    event: E,
    cause: Cause,
}

impl<'a, S: Service> Unit<'a, S> {
    /// Takes the service's turn and learns where its logs end.
    pub(crate) async fn begin(core: &'a Core<S>) -> Result<Self, StoreError> {
        let mut turn = core.database.take_turn().await?;
        let (head, checkpoint, held): (i64, i64, i64) = sqlx::query_as(
            "select coalesce((select max(position) from outbox), 0), \
             coalesce((select max(sequence) from checkpoints), 0), \
             (select count(*) from (select 1 from dead_letters \
              where status in ('parked', 'waiting', 'retrying') limit 1) as held)",
        )
        .fetch_one(&mut *turn)
        .await?;
        Ok(Self {
            core,
            turn,
            began: core.clock.now(),
            head: Position(head),
            checkpoint,
            lanes_held: held > 0,
            tables: S::Tables::default(),
            drafts: Vec::new(),
            timers: BTreeMap::new(),
        })
    }

    /// The newest checkpoint's sequence.
    pub(crate) fn checkpoint(&self) -> i64 {
        self.checkpoint
    }

    /// Whether any lane is held back.
    pub(crate) fn lanes_held(&self) -> bool {
        self.lanes_held
    }

    /// The connection, for what belongs to this unit alone.
    pub(crate) fn turn(&mut self) -> &mut Turn {
        &mut self.turn
    }

    /// Whether a message of this unit set or cleared the timer.
    pub(crate) fn touched_timer(&self, key: &str) -> bool {
        self.timers.contains_key(key)
    }

    /// Whether nothing follows so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// Loads what these messages concern, in as many rounds as rows lead to further rows.
    pub(crate) async fn prepare<'m>(
        &mut self,
        messages: impl Iterator<Item = &'m Message<S>> + Clone,
    ) -> Result<(), StoreError> {
        loop {
            for message in messages.clone() {
                // A defect here shows again, and is answered for, when the message is handled.
                let _ = unwinding(|| S::concerns(message, &mut self.tables));
            }
            if !self.load().await? {
                return Ok(());
            }
        }
    }

    /// Decides one message. Only a failing database is an error; all else is a verdict.
    pub(crate) async fn handle(
        &mut self,
        message: &Message<S>,
        cause: &Cause,
        if_match: Option<&[Version]>,
    ) -> Result<Verdict<S::Refusal>, StoreError> {
        loop {
            if let Err(panic) = unwinding(|| S::concerns(message, &mut self.tables)) {
                return Ok(Verdict::Failed(panic));
            }
            if !self.load().await? {
                break;
            }
        }
        let fresh_id = self.core.ids.next();
        let position = self.head.plus(self.drafts.len()).next();
        let (core, now) = (self.core, self.began);
        let context = Context { now, fresh_id, position, settings: &core.settings };
        if let (Message::Command(command), Some(seen)) = (message, if_match)
            && let Ok(Some(current)) = unwinding(|| S::version(command, &self.tables))
            && !seen.contains(&current)
        {
            return Ok(Verdict::Stale(current));
        }
        let events = match unwinding(|| S::decide(message, &self.tables, &context)) {
            Err(panic) => return Ok(Verdict::Failed(panic)),
            Ok(Err(refusal)) => return Ok(Verdict::Refused(refusal)),
            Ok(Ok(events)) => events,
        };
        for event in &events {
            self.tables.want_changed(event);
        }
        self.load().await?;
        let ids: Vec<EventId> = events.iter().map(|_| EventId(self.core.ids.next())).collect();
        let count = events.len();
        match self.apply(message, &events, &ids, &context) {
            Err(panic) => {
                self.tables.take_back();
                Ok(Verdict::Failed(panic))
            }
            Ok((answer, changes)) => {
                self.tables.keep();
                self.draft(events, &ids, cause, changes)?;
                Ok(Verdict::Decided { events: count, answer })
            }
        }
    }

    /// Changes the rows and makes the answer; a panic leaves the changes to be taken back.
    #[expect(clippy::type_complexity, reason = "an answer and the timers of each event, used once")]
    fn apply(
        &mut self,
        message: &Message<S>,
        events: &[S::Event],
        ids: &[EventId],
        context: &Context<'_, S>,
    ) -> Result<(Option<Answer>, Vec<Vec<TimerChange<S::Timer>>>), String> {
        let tables = &mut self.tables;
        unwinding(|| {
            for (event, id) in events.iter().zip(ids) {
                tables.evolve(&Recorded { id: *id, time: context.now, event });
            }
            let answer = match message {
                Message::Command(command) => Some(S::answer(command, tables, context)),
                Message::Heard(_) | Message::Due(_) => None,
            };
            (answer, events.iter().map(S::timers).collect())
        })
    }

    fn draft(
        &mut self,
        events: Vec<S::Event>,
        ids: &[EventId],
        cause: &Cause,
        changes: Vec<Vec<TimerChange<S::Timer>>>,
    ) -> Result<(), StoreError> {
        for ((event, id), changes) in events.into_iter().zip(ids).zip(changes) {
            for change in changes {
                match change {
                    TimerChange::Clear { key } => self.timers.insert(key, None),
                    TimerChange::Set { key, due_at, timer } => {
                        let stored = StoredTimer {
                            key: key.clone(),
                            due_at,
                            payload: serde_json::to_string(&timer)?,
                            event_id: id.to_string(),
                            // Filled in when the correlation of its event is known.
                            correlation: String::new(),
                            traceparent: cause.traceparent.clone(),
                        };
                        self.timers.insert(key, Some(stored))
                    }
                };
            }
            self.drafts.push(Draft { id: *id, event, cause: cause.clone() });
        }
        Ok(())
    }

    /// Loads the rows asked for; whether there were any.
    async fn load(&mut self) -> Result<bool, StoreError> {
        if !self.tables.any_wanted() {
            return Ok(false);
        }
        self.tables.visit(&mut Load(&mut self.turn)).await?;
        Ok(true)
    }

    /// Writes everything and commits. What it committed is known when this returns.
    pub(crate) async fn commit(mut self, closing: Closing) -> Result<Committed, StoreError> {
        let outbox = self.record().await?;
        let mut changed = Vec::new();
        if !outbox.is_empty() {
            outbox::insert(&mut self.turn, &outbox).await?;
            let mut save = Save { connection: &mut self.turn, changed: Vec::new() };
            self.tables.visit(&mut save).await?;
            changed = save.changed;
        }
        let next_due = self.timers.values().flatten().map(|timer| timer.due_at).min();
        timers::change(&mut self.turn, &self.timers).await?;
        let now = self.began;
        answers::store(&mut self.turn, &closing.answers, now).await?;
        dead_letters::close(&mut self.turn, &closing, now).await?;
        if let Some(next) = &closing.checkpoint {
            checkpoint::insert(&mut self.turn, next, now).await?;
        }
        let evidence = Evidence::of(&outbox, &closing);
        let committed = Committed {
            events: outbox.len(),
            head: self.head.plus(outbox.len()),
            changed,
            next_due,
            turn_micros: 0,
        };
        if outbox.is_empty() && self.timers.is_empty() && closing.is_empty() {
            self.turn.rollback().await?;
            return Ok(committed);
        }
        let (core, began) = (self.core, self.began);
        if let Err(lost) = self.turn.commit().await {
            core.find_out(&evidence, lost).await?;
        }
        let held = core.clock.now().since(began);
        Ok(Committed {
            turn_micros: u64::try_from(held.as_micros()).unwrap_or(u64::MAX),
            ..committed
        })
    }

    /// Gives up; nothing of this unit stays.
    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.turn.rollback().await?)
    }

    /// Deals positions, versions and correlations to the drafts.
    async fn record(&mut self) -> Result<Vec<OutboxEvent>, StoreError> {
        if self.drafts.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = self.drafts.iter().map(|draft| draft.event.stream()).collect();
        let mut distinct: Vec<&str> = names.iter().map(String::as_str).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let mut streams = outbox::streams(&mut self.turn, &distinct).await?;
        let mut events = Vec::with_capacity(names.len());
        let mut correlations = HashMap::with_capacity(names.len());
        let drafts = std::mem::take(&mut self.drafts);
        for ((draft, stream), position) in drafts.into_iter().zip(names).zip(self.head.0 + 1..) {
            let Some(head) = streams.get_mut(&stream) else {
                continue;
            };
            head.version = Version(head.version.0 + 1);
            let id = draft.id.to_string();
            if head.first.is_empty() {
                head.first.clone_from(&id);
            }
            let correlation = match (draft.event.order(), draft.cause.correlation) {
                (Some(order), _) => order.to_string(),
                (None, Some(inherited)) => inherited,
                (None, None) => head.first.clone(),
            };
            correlations.insert(id, correlation.clone());
            let envelope = Envelope {
                id: draft.id,
                source: S::NAME.to_owned(),
                kind: draft.event.kind().to_owned(),
                schema: draft.event.schema(),
                version: head.version,
                stream,
                time: self.began,
                correlation,
                causation: draft.cause.causation,
                actor: draft.cause.actor,
                traceparent: draft.cause.traceparent,
                data: draft.event.encode()?,
            };
            events.push(OutboxEvent { position: Position(position), envelope });
        }
        for timer in self.timers.values_mut().flatten() {
            if let Some(correlation) = correlations.get(&timer.event_id) {
                timer.correlation.clone_from(correlation);
            }
        }
        Ok(events)
    }
}

/// What a unit left behind.
#[derive(Debug)]
pub(crate) struct Committed {
    /// How many events it wrote.
    pub(crate) events: usize,
    /// Where the outbox ends now.
    pub(crate) head: Position,
    /// The rows it changed, each as `table/key`.
    pub(crate) changed: Vec<String>,
    /// The earliest timer it set.
    pub(crate) next_due: Option<Timestamp>,
    /// How long it held the turn.
    pub(crate) turn_micros: u64,
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
    fn of(outbox: &[OutboxEvent], closing: &Closing) -> Self {
        if let Some(first) = outbox.first() {
            return Self::Event(first.position, first.envelope.id);
        }
        if let Some(checkpoint) = &closing.checkpoint {
            return Self::Checkpoint(checkpoint.clone());
        }
        closing.answers.first().map_or(Self::None, |stored| Self::Answer(stored.key.clone()))
    }
}

/// Runs pure code of a service; a panic in it becomes a text.
fn unwinding<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Payload + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_else(|| "without a text".to_owned()))
}
