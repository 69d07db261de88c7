//! A unit of work: messages decided in memory, in order, and everything that follows committed
//! together. The number of statements does not depend on the number of messages.

use std::any::Any as Payload;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::answers::{self, StoredAnswer};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Timestamp;
use crate::core::Core;
use crate::database::Turn;
use crate::dead_letters::{self, Parked};
use crate::envelope_columns;
use crate::error::StoreError;
use crate::event::{Envelope, Event, EventId, Position, Recorded, Version};
use crate::failpoints::CommitPoint;
use crate::kept::{Left, State};
use crate::measure;
use crate::outbox::{self, OutboxEvent};
use crate::rows::{self, Fresh, Save};
use crate::service::{Answer, Context, Message, Service, TimerChange};
use crate::sql::{self, Answered, Statement};
use crate::tables::Tables;
use crate::timers::{self, StoredTimer};
use crate::trace::{Span, SpanKind};
use crate::writes::Writes;

/// What a message says of its origin, and the events that follow from it say of theirs.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The event, or the command, that led to this.
    pub(crate) causation: String,
    /// What it belongs to; nothing for a command, whose events say so themselves.
    pub(crate) correlation: Option<String>,
    /// The timer that fired, if one did: an event that follows must clear it or set it anew, or
    /// it would fire for ever.
    pub(crate) timer: Option<String>,
    /// Who asked.
    pub(crate) actor: String,
    /// W3C trace context, or empty.
    pub(crate) traceparent: String,
}

/// What became of one message.
#[derive(Debug)]
pub(crate) enum Verdict<R> {
    /// It was decided; the answer, where the message is a command.
    Decided(Option<Answer>),
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
    /// The event there, if there is one.
    newest: Option<EventId>,
    /// Whether rows are left to the next unit: not where another process has just written, for it may do
    /// so again.
    keeps_rows: bool,
    checkpoint: i64,
    lanes_held: bool,
    attempts_left: bool,
    tables: S::Tables,
    drafts: Vec<Draft>,
    timers: BTreeMap<String, Option<StoredTimer>>,
    /// One for each message handled so far. They end with the unit; without its commit they were
    /// for nothing, and are told so.
    spans: Vec<Span>,
}

/// An event that waits for its place in the outbox and in its stream.
struct Draft {
    id: EventId,
    kind: &'static str,
    schema: i64,
    stream: String,
    order: Option<Uuid>,
    data: String,
    cause: Cause,
    /// Which span tells of the message that it follows from.
    span: Option<usize>,
}

/// A stream to which a unit adds.
struct Growing {
    /// How many events the unit has added.
    version: Version,
    /// The id of the stream's first event.
    first: String,
}

/// What follows from one message.
#[derive(Default)]
struct Following {
    answer: Option<Answer>,
    drafts: Vec<Draft>,
    timers: Vec<(String, Option<StoredTimer>)>,
}

impl<'a, S: Service> Unit<'a, S> {
    /// Takes the service's turn and learns where its logs end.
    pub(crate) async fn begin(core: &'a Core<S>, point: CommitPoint) -> Result<Self, StoreError> {
        Ok(Self::begin_for(core, point, std::iter::empty(), Vec::new()).await?.0)
    }

    /// The same, and loads what these messages concern and asks what the caller wants to know, all of it
    /// in one round trip.
    pub(crate) async fn begin_for<'m>(
        core: &'a Core<S>,
        point: CommitPoint,
        messages: impl Iterator<Item = &'m Message<S>> + Clone,
        asked: Vec<Statement>,
    ) -> Result<(Self, Vec<Answered>), StoreError> {
        let (mut tables, known) = match core.kept_rows.take() {
            Some(Left { tables, state }) => (tables, Some(state)),
            None => (S::Tables::default(), None),
        };
        want(messages.clone(), &mut tables);
        let mut statements = vec![sql::query(
            "select coalesce((select position from outbox order by position desc limit 1), 0), \
             coalesce((select id from outbox order by position desc limit 1), ''), \
             coalesce((select sequence from checkpoints order by sequence desc limit 1), 0), \
             (select count(*) from (select 1 from dead_letters \
             where status in ('parked', 'waiting', 'retrying') limit 1) as held), \
             (select count(*) from (select 1 from attempts limit 1) as counted)",
        )];
        let loads = rows::loads(&mut tables).await?;
        let (first_load, first_asked) = (statements.len(), statements.len() + loads.len());
        statements.extend(loads);
        statements.extend(asked);
        let (turn, mut answers) = core.database.take_turn_and(point, statements).await?;
        let began = core.clock.now();
        let asked = answers.split_off(first_asked);
        rows::loaded(&mut tables, answers.split_off(first_load)).await?;
        let (position, newest, checkpoint, lanes, attempts): (i64, String, i64, i64, i64) =
            answers.pop().unwrap_or_default().row()?;
        let newest = envelope_columns::parse_id_if_any(&newest)?;
        let kept = known.is_none_or(|known| known == State { newest, checkpoint });
        if !kept {
            // Another process may have changed rows since.
            tables = S::Tables::default();
            want(messages, &mut tables);
        }
        let mut unit = Self {
            core,
            turn,
            began,
            head: Position(position),
            newest,
            keeps_rows: kept,
            checkpoint,
            lanes_held: lanes > 0,
            attempts_left: attempts > 0,
            tables,
            drafts: Vec::new(),
            timers: BTreeMap::new(),
            spans: Vec::new(),
        };
        unit.load().await?;
        Ok((unit, asked))
    }

    /// Begins to tell of the message that is handled next.
    pub(crate) fn begin_span(
        &mut self,
        kind: SpanKind,
        parent: &str,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> &mut Span {
        self.spans.push(self.core.tracer.begin(kind, parent, self.began, name));
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// What is told of the message handled last, if anything is.
    pub(crate) fn span(&mut self) -> Option<&mut Span> {
        self.spans.last_mut()
    }

    /// The newest checkpoint's sequence.
    pub(crate) fn checkpoint(&self) -> i64 {
        self.checkpoint
    }

    /// Whether any lane is held back.
    pub(crate) fn lanes_held(&self) -> bool {
        self.lanes_held
    }

    /// Whether attempts are counted of any message, by this run or by one that ended meanwhile.
    pub(crate) fn attempts_left(&self) -> bool {
        self.attempts_left
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

    /// Loads what these messages concern and was not loaded yet, in as many rounds as rows lead to
    /// further rows.
    pub(crate) async fn prepare<'m>(
        &mut self,
        messages: impl Iterator<Item = &'m Message<S>> + Clone,
    ) -> Result<(), StoreError> {
        loop {
            self.tables.take_recalled();
            want(messages.clone(), &mut self.tables);
            if !self.load_further().await? {
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
            self.tables.take_recalled();
            if let Err(panic) = unwinding(|| S::concerns(message, &mut self.tables)) {
                return Ok(Verdict::Failed(panic));
            }
            if !self.load_further().await? {
                break;
            }
        }
        let fresh_id = self.core.ids.next();
        let position = self.head.plus(self.drafts.len()).next();
        let (core, now) = (self.core, self.began);
        let context = Context { now, fresh_id, position, settings: &core.settings };
        if let (Message::Command(command), Some(seen)) = (message, if_match) {
            match unwinding(|| S::version(command, &self.tables)) {
                Err(panic) => return Ok(Verdict::Failed(panic)),
                Ok(Some(current)) if !seen.contains(&current) => {
                    return Ok(Verdict::Stale(current));
                }
                Ok(_) => {}
            }
        }
        let events = match unwinding(|| S::decide(message, &self.tables, &context)) {
            Err(panic) => return Ok(Verdict::Failed(panic)),
            Ok(Err(refusal)) => return Ok(Verdict::Refused(refusal)),
            Ok(Ok(events)) => events,
        };
        let wanted = unwinding(|| events.iter().for_each(|event| self.tables.want_changed(event)));
        if let Err(panic) = wanted {
            return Ok(Verdict::Failed(panic));
        }
        if self.tables.any_wanted() {
            // Or each command that creates something would ask for a row that cannot be there.
            let Ok(()) = self.tables.visit(&mut Fresh(fresh_id.to_string())).await;
        }
        self.load().await?;
        match self.apply(message, &events, cause, &context) {
            Err(failed) => {
                self.tables.take_back();
                Ok(Verdict::Failed(failed))
            }
            Ok(Following { answer, mut drafts, timers }) => {
                self.tables.keep();
                let span = self.spans.len().checked_sub(1);
                for draft in &mut drafts {
                    draft.span = span;
                }
                self.drafts.append(&mut drafts);
                self.timers.extend(timers);
                Ok(Verdict::Decided(answer))
            }
        }
    }

    /// Changes the rows and makes everything else that follows. All code of the service that a
    /// message reaches runs in here or in what comes before: nothing of it can fail later, when it
    /// would take the whole unit down. A failure leaves the changes of rows to be taken back.
    fn apply(
        &mut self,
        message: &Message<S>,
        events: &[S::Event],
        cause: &Cause,
        context: &Context<'_, S>,
    ) -> Result<Following, String> {
        let (tables, ids) = (&mut self.tables, &self.core.ids);
        let applying = || -> Result<Following, String> {
            let mut following = Following::default();
            for event in events {
                let id = EventId(ids.next());
                tables.evolve(&Recorded { id, time: context.now, event });
                following.add::<S>(id, event, cause).map_err(|error| error.to_string())?;
            }
            if let Message::Command(command) = message {
                following.answer = Some(S::answer(command, tables, context));
            }
            match &cause.timer {
                Some(fired) if !following.timers.iter().any(|(key, _)| key == fired) => {
                    Err("the timer led to no event that clears it or sets it anew".to_owned())
                }
                _ => Ok(following),
            }
        };
        unwinding(applying)?
    }

    /// Loads the rows asked for; whether any came into hand that may lead to further ones.
    async fn load_further(&mut self) -> Result<bool, StoreError> {
        let recalled = self.tables.take_recalled();
        Ok(self.load().await? || recalled)
    }

    /// Loads the rows asked for; whether there were any.
    async fn load(&mut self) -> Result<bool, StoreError> {
        if !self.tables.any_wanted() {
            return Ok(false);
        }
        rows::load(&mut self.tables, &mut self.turn).await?;
        Ok(true)
    }

    /// Writes everything and commits. What it committed is known when this returns.
    pub(crate) async fn commit(mut self, closing: Closing) -> Result<Committed, StoreError> {
        let mut written = BTreeMap::new();
        for draft in &self.drafts {
            *written.entry(draft.kind).or_default() += 1;
        }
        let outbox = Arc::new(self.record().await?);
        let mut writes = Writes::default();
        let mut changed = Vec::new();
        if !outbox.is_empty() {
            outbox::insert(&mut writes, Arc::clone(&outbox));
            let mut save = Save { writes: &mut writes, changed: Vec::new() };
            self.tables.visit(&mut save).await?;
            changed = save.changed;
        }
        let next_due = self.timers.values().flatten().map(|timer| timer.due_at).min();
        if self.attempts_left {
            timers::settle_attempts(&mut self.turn, &self.timers).await?;
        }
        timers::change(&mut writes, &self.timers);
        let now = self.began;
        answers::store(&mut writes, &closing.answers, now)?;
        dead_letters::close(&mut self.turn, &closing, now).await?;
        if let Some(next) = &closing.checkpoint {
            checkpoint::insert(&mut writes, next, now)?;
        }
        let evidence = Evidence::of(&outbox, &closing);
        let (events, head) = (outbox.len(), self.head.plus(outbox.len()));
        let (before, mut newest) = (self.newest, Vec::new());
        let left = State {
            newest: outbox.last().map(|event| event.envelope.id).or(self.newest),
            checkpoint: closing.checkpoint.as_ref().map_or(self.checkpoint, |next| next.sequence),
        };
        let (core, began) = (self.core, self.began);
        let mut is_known = true;
        if outbox.is_empty() && self.timers.is_empty() && closing.is_empty() {
            self.turn.rollback().await?;
        } else {
            let sent = core.clock.now();
            let answered = self.turn.commit(writes.into_statements()).await;
            measure::committed(S::NAME, core.clock.now().since(sent));
            match answered {
                // What goes into the outbox goes first.
                Ok(answers) => newest = outbox::inserted(outbox, answers.into_iter().next()),
                Err(lost) => {
                    core.find_out(&evidence, lost).await?;
                    is_known = false;
                }
            }
        }
        if is_known && self.keeps_rows {
            core.kept_rows.leave(self.tables, left);
        }
        let ended = core.clock.now();
        self.spans.into_iter().for_each(|span| span.end(ended));
        let turn_held = ended.since(began);
        Ok(Committed { events, newest, before, head, changed, next_due, turn_held, written })
    }

    /// Gives up, but goes on holding the turn.
    pub(crate) fn into_turn(self) -> Turn {
        self.turn
    }

    /// Ends without a trace: what was handled has no effects.
    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        self.turn.rollback().await?;
        if self.drafts.is_empty() && self.keeps_rows {
            let state = State { newest: self.newest, checkpoint: self.checkpoint };
            self.core.kept_rows.leave(self.tables, state);
        }
        let ended = self.core.clock.now();
        self.spans.into_iter().for_each(|span| span.end(ended));
        Ok(())
    }

    /// Deals positions and correlations to the drafts, and versions that count from the first event of
    /// each stream in this unit.
    async fn record(&mut self) -> Result<Vec<OutboxEvent>, StoreError> {
        if self.drafts.is_empty() {
            return Ok(Vec::new());
        }
        let drafts = std::mem::take(&mut self.drafts);
        let by_stream = drafts
            .iter()
            .filter(|draft| draft.order.is_none() && draft.cause.correlation.is_none());
        let by_stream = by_stream.map(|draft| draft.stream.as_str()).collect();
        let firsts = outbox::first_events(&mut self.turn, &by_stream).await?;
        let mut streams = HashMap::<String, Growing>::new();
        let mut events = Vec::with_capacity(drafts.len());
        let mut correlations = HashMap::with_capacity(drafts.len());
        let mut told = None;
        for (draft, position) in drafts.into_iter().zip(self.head.0 + 1..) {
            let id = draft.id.to_string();
            let stream = match streams.get_mut(&draft.stream) {
                Some(known) => known,
                None => streams.entry(draft.stream.clone()).or_insert_with(|| Growing {
                    version: Version::default(),
                    first: firsts.get(&draft.stream).unwrap_or(&id).clone(),
                }),
            };
            stream.version.0 += 1;
            let is_command = draft.cause.correlation.is_none();
            let correlation = match (draft.order, draft.cause.correlation) {
                (Some(order), _) => order.to_string(),
                (None, Some(inherited)) => inherited,
                (None, None) => stream.first.clone(),
            };
            if let Some(span) = draft.span.and_then(|index| self.spans.get_mut(index)) {
                // A command does not say what it belongs to; its first event does.
                if is_command && told != draft.span {
                    span.describe(|| [("waybill.correlation.id", correlation.clone().into())]);
                }
                told = draft.span;
                span.note(draft.kind, self.began, || [("waybill.event.id", id.clone().into())]);
            }
            correlations.insert(id, correlation.clone());
            let envelope = Envelope {
                id: draft.id,
                source: S::NAME.to_owned(),
                kind: draft.kind.to_owned(),
                schema: draft.schema,
                version: stream.version,
                stream: draft.stream,
                time: self.began,
                correlation,
                causation: draft.cause.causation,
                actor: draft.cause.actor,
                traceparent: draft.cause.traceparent,
                data: draft.data,
            };
            let envelope = Arc::new(envelope);
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

impl Following {
    fn add<S: Service>(
        &mut self,
        id: EventId,
        event: &S::Event,
        cause: &Cause,
    ) -> Result<(), serde_json::Error> {
        for change in S::timers(event) {
            self.timers.push(match change {
                TimerChange::Clear { key } => (key, None),
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
                    (key, Some(stored))
                }
            });
        }
        self.drafts.push(Draft {
            id,
            kind: event.kind(),
            schema: event.schema(),
            stream: event.stream(),
            order: event.order(),
            data: event.encode()?,
            cause: cause.clone(),
            span: None,
        });
        Ok(())
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

/// Asks for the rows that these messages concern.
fn want<'m, S: Service>(messages: impl Iterator<Item = &'m Message<S>>, tables: &mut S::Tables) {
    for message in messages {
        // A defect here shows again, and is answered for, when the message is handled.
        let _ = unwinding(|| S::concerns(message, tables));
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
