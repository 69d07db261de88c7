//! A unit of work: messages decided in memory, in order, and everything that follows committed
//! together. The number of statements does not depend on the number of messages.

use std::any::Any as Payload;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uuid::Uuid;

use crate::answers::{self, StoredAnswer};
use crate::checkpoint::{self, Checkpoint};
use crate::clock::Timestamp;
use crate::core::Core;
use crate::database::Turn;
use crate::dead_letters::{self, Parked};
use crate::error::StoreError;
use crate::event::{Envelope, Event, EventId, Position, Recorded, Version};
use crate::failpoints::CommitPoint;
use crate::kept::{Left, State};
use crate::outbox::{self, Additions, OutboxEvent};
use crate::rows::{self, Fresh, Save};
use crate::sealed::{Committed, Evidence, Sealed};
use crate::service::{Answer, Context, Message, Service, TimerChange};
use crate::sql::{Answered, Statement};
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
    /// It concerns rows that are not in memory, and they cannot be read before the unit before this one is
    /// committed. The unit is as if it had not been there.
    Waits,
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

    /// Whether it changes dead letters or attempts.
    fn is_of_dead_letters(&self) -> bool {
        !(self.parked.is_empty()
            && self.revived.is_empty()
            && self.stopped_lanes.is_empty()
            && self.settled_attempts.is_empty())
    }
}

impl Hold {
    fn into_turn(self) -> Option<Turn> {
        match self {
            Self::Turn(turn) => Some(turn),
            Self::Ahead | Self::Behind => None,
        }
    }
}

/// A unit of work.
pub(crate) struct Unit<'a, S: Service> {
    core: &'a Core<S>,
    point: CommitPoint,
    hold: Hold,
    began: Timestamp,
    /// What it found, or expects to find.
    state: State,
    /// Whether rows are left to the next unit: not where another process has just written, for it may do
    /// so again.
    keeps_rows: bool,
    tables: S::Tables,
    drafts: Vec<Draft>,
    timers: BTreeMap<String, Option<StoredTimer>>,
    /// One for each message handled so far. They end with the unit; without its commit they were
    /// for nothing, and are told so.
    spans: Vec<Span>,
}

/// What a unit has of its owner's turn.
enum Hold {
    /// The turn: nobody else writes.
    Turn(Turn),
    /// Nothing yet: it takes the turn when it must read, or together with all that it writes. Either is
    /// refused if the state is not the expected one by then.
    Ahead,
    /// Nothing, and it cannot read: the unit before it is still being committed.
    Behind,
}

/// An event that waits for its place in the outbox and in its stream.
struct Draft {
    id: EventId,
    kind: &'static str,
    schema: i64,
    stream: String,
    /// Whether the stream is named by an id that was made for this message: nothing is in it yet.
    is_first: bool,
    order: Option<Uuid>,
    data: String,
    cause: Cause,
    /// Which span tells of the message that it follows from.
    span: Option<usize>,
}

/// A stream to which a unit adds.
struct Growing {
    /// How many events it has, or the unit has added.
    version: Version,
    /// Whether those before the unit are counted.
    is_counted: bool,
    /// The id of the stream's first event.
    first: String,
}

impl Growing {
    fn from(known: Option<Version>, first: String) -> Self {
        Self { version: known.unwrap_or_default(), is_counted: known.is_some(), first }
    }
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
        let mut statements = vec![State::query()];
        let loads = rows::loads(&mut tables).await?;
        let (first_load, first_asked) = (statements.len(), statements.len() + loads.len());
        statements.extend(loads);
        statements.extend(asked);
        let (turn, mut answers) = core.database.take_turn_and(point, statements).await?;
        let asked = answers.split_off(first_asked);
        rows::loaded(&mut tables, answers.split_off(first_load)).await?;
        let state = State::read(answers.pop().unwrap_or_default())?;
        let kept = known.is_none_or(|known| known.has_rows_of(&state));
        if !kept {
            // Another process may have changed rows since.
            tables = S::Tables::default();
            want(messages, &mut tables);
        }
        let left = Left { tables, state };
        let mut unit = Self { keeps_rows: kept, ..Self::new(core, point, Hold::Turn(turn), left) };
        unit.load().await?;
        Ok((unit, asked))
    }

    /// Begins a unit without its turn, where all rows that these messages concern are in memory.
    pub(crate) fn ahead<'m>(
        core: &'a Core<S>,
        point: CommitPoint,
        messages: impl Iterator<Item = &'m Message<S>>,
    ) -> Option<Self> {
        let mut left = core.kept_rows.take()?;
        if left.state.is_calm() {
            want(messages, &mut left.tables);
            if !left.tables.any_wanted() {
                return Some(Self::new(core, point, Hold::Ahead, left));
            }
        }
        core.kept_rows.leave(left.tables, left.state);
        None
    }

    /// Begins the unit after one that is still being committed, on the rows that that one leaves. It can
    /// read nothing before it is told [`Unit::is_next`].
    pub(crate) fn behind(core: &'a Core<S>, point: CommitPoint) -> Option<Self> {
        let unit = Self::ahead(core, point, std::iter::empty())?;
        Some(Self { hold: Hold::Behind, ..unit })
    }

    /// The unit before it is committed.
    pub(crate) fn is_next(&mut self) {
        if matches!(self.hold, Hold::Behind) {
            self.hold = Hold::Ahead;
        }
    }

    fn new(core: &'a Core<S>, point: CommitPoint, hold: Hold, left: Left<S>) -> Self {
        let Left { tables, state } = left;
        Self {
            core,
            point,
            hold,
            began: core.clock.now(),
            state,
            keeps_rows: true,
            tables,
            drafts: Vec::new(),
            timers: BTreeMap::new(),
            spans: Vec::new(),
        }
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

    /// What it found, or expects to find.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The connection, for what belongs to this unit alone. Takes the turn, if it has none yet.
    pub(crate) async fn turn(&mut self) -> Result<&mut Turn, StoreError> {
        if matches!(self.hold, Hold::Ahead) {
            let turn = self.state.take_turn(&self.core.database, self.point).await?;
            self.hold = Hold::Turn(turn);
        }
        match &mut self.hold {
            Hold::Turn(turn) => Ok(turn),
            Hold::Ahead | Hold::Behind => Err(StoreError::Overtaken),
        }
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
            if self.must_wait() {
                return Ok(self.wait());
            }
            if !self.load_further().await? {
                break;
            }
        }
        let fresh_id = self.core.ids.next();
        let position = self.state.head.plus(self.drafts.len()).next();
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
        if self.must_wait() {
            return Ok(self.wait());
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
                following
                    .add::<S>(id, event, cause, context.fresh_id)
                    .map_err(|error| error.to_string())?;
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
        let statements = rows::loads(&mut self.tables).await?;
        let answers = self.turn().await?.run(statements).await?;
        rows::loaded(&mut self.tables, answers).await?;
        Ok(true)
    }

    /// The message is told of as given up, and anew when it is tried again.
    fn wait(&mut self) -> Verdict<S::Refusal> {
        drop(self.spans.pop());
        Verdict::Waits
    }

    /// Whether rows are missing that cannot be loaded yet.
    fn must_wait(&self) -> bool {
        matches!(self.hold, Hold::Behind) && self.tables.any_wanted()
    }

    /// Writes everything and commits. What it committed is known when this returns.
    pub(crate) async fn commit(self, closing: Closing) -> Result<Committed, StoreError> {
        self.seal(closing).await?.commit().await
    }

    /// Puts everything together that is to be written. From here on the next unit can be decided.
    pub(crate) async fn seal(mut self, closing: Closing) -> Result<Sealed<'a, S>, StoreError> {
        let mut written = BTreeMap::new();
        for draft in &self.drafts {
            *written.entry(draft.kind).or_default() += 1;
        }
        let outbox = self.record().await?;
        let events = outbox.events();
        let mut writes = Writes::default();
        let mut changed = Vec::new();
        if !events.is_empty() {
            outbox.insert(&mut writes);
            let mut save = Save { writes: &mut writes, changed: Vec::new() };
            self.tables.visit(&mut save).await?;
            changed = save.changed;
        }
        let next_due = self.timers.values().flatten().map(|timer| timer.due_at).min();
        let now = self.began;
        if self.state.attempts_left && !self.timers.is_empty() {
            let timers = std::mem::take(&mut self.timers);
            timers::settle_attempts(self.turn().await?, &timers).await?;
            self.timers = timers;
        }
        timers::change(&mut writes, &self.timers);
        answers::store(&mut writes, &closing.answers, now)?;
        if closing.is_of_dead_letters() {
            dead_letters::close(self.turn().await?, &closing, now).await?;
        }
        if let Some(next) = &closing.checkpoint {
            checkpoint::insert(&mut writes, next, now)?;
        }
        let is_empty = events.is_empty() && self.timers.is_empty() && closing.is_empty();
        let evidence = Evidence::of(events, &closing);
        let left = State {
            head: self.state.head.plus(events.len()),
            newest: events.last().map(|event| event.envelope.id).or(self.state.newest),
            checkpoint: closing.checkpoint.as_ref().map_or(self.state.checkpoint, |it| it.sequence),
            lanes_held: self.state.lanes_held || !closing.parked.is_empty(),
            attempts_left: self.state.attempts_left,
        };
        if self.keeps_rows {
            self.core.kept_rows.leave(self.tables, left);
        }
        Ok(Sealed {
            core: self.core,
            point: self.point,
            turn: self.hold.into_turn(),
            since: self.began,
            before: self.state,
            outbox,
            writes: (!is_empty).then_some(writes),
            evidence,
            changed,
            next_due,
            written,
            spans: self.spans,
        })
    }

    /// Gives up, but goes on holding the turn, which it must have.
    pub(crate) fn into_turn(self) -> Result<Turn, StoreError> {
        self.hold.into_turn().ok_or(StoreError::Overtaken)
    }

    /// Ends without a trace: what was handled has no effects, which must hold under the turn.
    pub(crate) async fn rollback(mut self) -> Result<(), StoreError> {
        self.turn().await?;
        if let Some(turn) = self.hold.into_turn() {
            turn.rollback().await?;
        }
        if self.drafts.is_empty() && self.keeps_rows {
            self.core.kept_rows.leave(self.tables, self.state);
        }
        let ended = self.core.clock.now();
        self.spans.into_iter().for_each(|span| span.end(ended));
        Ok(())
    }

    /// The first event of each stream that has one, where drafts correlate with it.
    async fn firsts(&mut self) -> Result<HashMap<String, String>, StoreError> {
        let drafts = std::mem::take(&mut self.drafts);
        let by_stream = drafts
            .iter()
            .filter(|draft| draft.order.is_none() && draft.cause.correlation.is_none());
        let by_stream: BTreeSet<&str> = by_stream.map(|draft| draft.stream.as_str()).collect();
        let firsts = if by_stream.is_empty() {
            HashMap::new()
        } else {
            outbox::first_events(self.turn().await?, &by_stream).await?
        };
        self.drafts = drafts;
        Ok(firsts)
    }

    /// Deals positions, correlations and versions to the drafts.
    async fn record(&mut self) -> Result<Additions, StoreError> {
        if self.drafts.is_empty() {
            return Ok(Additions::default());
        }
        let firsts = self.firsts().await?;
        let drafts = std::mem::take(&mut self.drafts);
        let mut streams = HashMap::<String, Growing>::new();
        let mut events = Additions::with_capacity(drafts.len());
        let versions = self.core.streams.at(self.state.newest);
        let mut correlations = HashMap::with_capacity(drafts.len());
        let mut told = None;
        for (draft, position) in drafts.into_iter().zip(self.state.head.0 + 1..) {
            let id = draft.id.to_string();
            let stream = if let Some(known) = streams.get_mut(&draft.stream) {
                known
            } else {
                let first = firsts.get(&draft.stream).unwrap_or(&id).clone();
                let none = draft.is_first.then(Version::default);
                let growing = Growing::from(none.or_else(|| versions.of(&draft.stream)), first);
                streams.entry(draft.stream.clone()).or_insert(growing)
            };
            stream.version.0 += 1;
            let is_counted = stream.is_counted;
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
            events.push(OutboxEvent { position: Position(position), envelope }, is_counted);
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
        fresh_id: Uuid,
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
        let stream = event.stream();
        self.drafts.push(Draft {
            id,
            kind: event.kind(),
            schema: event.schema(),
            is_first: stream
                .ends_with(&*fresh_id.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            stream,
            order: event.order(),
            data: event.encode()?,
            cause: cause.clone(),
            span: None,
        });
        Ok(())
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
