//! The event store: what all services said happened, in one order that all read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::{Clock, Ids, Timestamp};
use crate::database::{Database, Dialect, Location, OpenError, in_time};
use crate::envelope_columns::{self, envelope_columns};
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Position};
use crate::failpoints::CommitPoint;
use crate::growth::{Consumers, Growth};
use crate::limits;
use crate::measure;
use crate::migrate::{self, Migrations};
use crate::newest::Newest;
use crate::outbox::OutboxEvent;
use crate::roles::{self, Role};
use crate::row::Kind;
use crate::sql::{self, Answered, Connection, Field, Row, Rows, Statement};

/// The name of its owner: of its file or schema.
pub(crate) const OWNER: &str = "event_store";

/// The event store.
#[derive(Clone, Debug)]
pub struct EventStore {
    database: Database,
    clock: Clock,
    /// The newest position that this process knows of: a hint that readers wake on.
    grew: watch::Sender<Position>,
    /// The newest position that this process appended: what other processes are told.
    appended: watch::Sender<Position>,
    consumers: Consumers,
    /// Where it ends, as far as the last append of this process knows; nothing while one is at it, whom
    /// others need not wait for.
    ends: Arc<Mutex<Option<Ends>>>,
    /// What this process appended, for its consumers.
    newest: Arc<Mutex<Newest<StoredEvent>>>,
}

/// An event in the event store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its place in the event store.
    pub position: Position,
    /// When it came in; never decreases with the position.
    pub recorded_at: Timestamp,
    /// Its place in its source's outbox.
    pub source_position: Position,
    /// The event.
    pub envelope: Arc<Envelope>,
    /// A digest of the ids of all events up to this one, in order.
    pub chain: Arc<str>,
}

/// In the order of [`EventStore::insert_after`].
impl Rows for Vec<StoredEvent> {
    fn count(&self) -> usize {
        self.len()
    }

    fn kinds(&self) -> Cow<'static, [Kind]> {
        use Kind::{Bigint, Text};
        let own = [Bigint, Bigint, Bigint, Text, Text];
        own.into_iter().chain(envelope_columns::KINDS).collect()
    }

    fn value(&self, row: usize, column: usize) -> Option<Field<'_>> {
        let event = self.get(row)?;
        Some(match column {
            0 => Field::Bigint(event.position.0),
            1 => Field::Bigint(event.recorded_at.0),
            2 => Field::Bigint(event.source_position.0),
            3 => Field::Text(&event.envelope.source),
            4 => Field::Text(&event.chain),
            _ => return envelope_columns::value(&event.envelope, column - 5),
        })
    }
}

/// A place in one particular event store, with the event that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// The id of the event store; empty before the first event was read.
    pub log_id: String,
    /// The place.
    pub position: Position,
    /// The id of the event there; empty at position 0.
    pub event_id: String,
    /// The chain there. The id alone could be at its old place again by luck, in an event store
    /// that was restored older and filled anew in another order, with an event before it that was
    /// behind it once; two chains are equal only if everything up to there is.
    pub chain: String,
}

impl StoredEvent {
    /// Its place, in the event store of that id.
    pub(crate) fn anchor(&self, log_id: &str) -> Anchor {
        Anchor {
            log_id: log_id.to_owned(),
            position: self.position,
            event_id: self.envelope.id.to_string(),
            chain: self.chain.to_string(),
        }
    }
}

/// How much of a source's outbox the event store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The outbox position of the last event.
    pub position: Position,
    /// That event; nothing while there is none.
    pub event: Option<EventId>,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The events are in; this is the newest position.
    Done(Position),
    /// They do not begin right after what is here; nothing was written.
    NotNext(Cursor),
}

/// A stretch of the event store as one consumer reads it.
#[derive(Debug)]
pub(crate) struct Page {
    /// The id of the event store.
    pub(crate) log_id: String,
    /// The chain at the position read after, if an event is there.
    pub(crate) chain: Option<Arc<str>>,
    /// The events of interest after it.
    pub(crate) events: Vec<StoredEvent>,
    /// The last event of the stretch, of interest or not; nothing if there is nothing new.
    pub(crate) end: Option<Anchor>,
    /// Whether there was nothing behind the stretch.
    pub(crate) is_last: bool,
}

/// What [`read`] reads of an event.
macro_rules! stored_columns {
    () => {
        concat!("position, recorded_at, source_position, source, ", envelope_columns!(), ", chain")
    };
}

macro_rules! stored_event {
    () => {
        concat!("select ", stored_columns!(), " from event")
    };
}

mod find;

pub use find::{Filter, Pages};

impl EventStore {
    /// Opens the event store, creating it where it may.
    pub async fn open(
        location: &Location,
        clock: Clock,
        ids: &Ids,
        mode: Migrations,
    ) -> Result<Self, OpenError> {
        let database = Database::open(location, OWNER, migrate::of_event_store, mode).await?;
        let store = Self {
            database,
            clock,
            grew: watch::Sender::new(Position(0)),
            appended: watch::Sender::new(Position(0)),
            consumers: Consumers::default(),
            ends: Arc::default(),
            newest: Arc::default(),
        };
        if mode == Migrations::Apply {
            store.name(ids.next()).await?;
        }
        Ok(store)
    }

    /// Gives a new event store its id.
    async fn name(&self, id: Uuid) -> Result<(), StoreError> {
        let mut reader = self.database.reader().await?;
        let known: i64 = sql::query("select count(*) from log").fetch_one(&mut reader).await?;
        reader.give_back();
        if known > 0 {
            return Ok(());
        }
        let mut turn = self.database.take_turn(CommitPoint::Naming).await?;
        sql::query(
            "insert into log (id, created_at) select $1, $2 where not exists (select 1 from log)",
        )
        .bind(id.to_string())
        .bind(self.clock.now().0)
        .execute(&mut turn)
        .await?;
        turn.commit(Vec::new()).await?;
        Ok(())
    }

    /// Lets a role (Postgres only) read everything, and append its own service's events if it
    /// writes any.
    pub async fn admit(&self, role: &Role, appends: bool) -> Result<(), StoreError> {
        let mut admitting = self.database.begin().await?;
        roles::admit_to_event_store(&mut admitting, OWNER, role, appends).await?;
        admitting.commit(Vec::new()).await?;
        Ok(())
    }

    /// Wakes whenever the event store has grown, as far as this process hears of it.
    ///
    /// Only a hint: a reader must look by itself now and then.
    pub fn growth(&self) -> watch::Receiver<Position> {
        self.grew.subscribe()
    }

    /// Wakes whenever this process has appended.
    pub(crate) fn appends(&self) -> watch::Receiver<Position> {
        self.appended.subscribe()
    }

    /// What a consumer of these types waits on.
    pub(crate) fn growth_of(&self, types: &'static [&'static str]) -> Arc<Growth> {
        self.consumers.join(types)
    }

    /// Tells the readers of this process that the event store has grown, by what nobody knows.
    pub(crate) fn announce(&self, head: Position) {
        if raise(&self.grew, head) {
            self.consumers.tell(|_| true);
        }
    }

    /// Which database it lies in.
    pub fn dialect(&self) -> Dialect {
        self.database.dialect()
    }

    /// The newest position that this process knows of.
    pub(crate) fn known_head(&self) -> Position {
        *self.grew.borrow()
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.database.close().await;
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Adds events of one source, in order and without a gap after those already here.
    ///
    /// An append that does not begin right there writes nothing: a crashed, doubled or late relay
    /// can neither repeat, skip nor reorder.
    pub async fn append(&self, events: &[OutboxEvent]) -> Result<Appended, StoreError> {
        let Some(first) = events.first() else {
            return Ok(Appended::Done(self.head().await?));
        };
        let source = first.envelope.source.as_str();
        // Whatever becomes of this append: only its success tells where the log ends.
        let mut known = self.ends().take();
        if let Some(ends) = known.take_if(|ends| ends.admit(source, events)) {
            match self.append_after(ends, source, events).await {
                Ok(Some(ends)) => {
                    let head = ends.last.position;
                    *self.ends() = Some(ends);
                    return Ok(Appended::Done(head));
                }
                Ok(None) => {}
                // It may have been committed; what is there tells.
                Err(StoreError::Unavailable(cut)) if cut.was_cut() => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let (turn, mut answers) =
            self.database.take_turn_and(CommitPoint::Append, vec![Ends::find(source)]).await?;
        let mut ends = Ends::found(source, answers.pop())?;
        ends.learn_from(known);
        let cursor = ends.cursors.get(source).copied().unwrap_or_default();
        if !ends.admit(source, events) {
            turn.rollback().await?;
            *self.ends() = Some(ends);
            return Ok(Appended::NotNext(cursor));
        }
        let (insert, ends, stored) = self.insert_after(ends, source, events);
        // A commit whose answer is lost needs no inquiry: the relay asks for the cursor and goes on
        // from there.
        let sent = self.clock.now();
        let answered = turn.commit(vec![insert]).await;
        measure::committed(OWNER, self.clock.now().since(sent));
        answered?;
        let head = ends.last.position;
        self.appended(&stored, head);
        *self.ends() = Some(ends);
        Ok(Appended::Done(head))
    }

    /// Appends in one round trip after what this process knows the end to be; nothing if it is not, and
    /// then nothing is written.
    async fn append_after(
        &self,
        ends: Ends,
        source: &str,
        events: &[OutboxEvent],
    ) -> Result<Option<Ends>, StoreError> {
        let (insert, ends, stored) = self.insert_after(ends, source, events);
        let sent = self.clock.now();
        let answered = self.database.write_at_once(CommitPoint::Append, vec![insert]).await;
        measure::committed(OWNER, self.clock.now().since(sent));
        if answered?.iter().all(|answer| answer.changed() == 0) {
            return Ok(None);
        }
        self.appended(&stored, ends.last.position);
        Ok(Some(ends))
    }

    /// What adds events after this end, and only there, and where the end is then.
    fn insert_after(
        &self,
        mut ends: Ends,
        source: &str,
        events: &[OutboxEvent],
    ) -> (Statement, Ends, Arc<Vec<StoredEvent>>) {
        let before = ends.last.chain.to_string();
        let last = &mut ends.last;
        last.recorded_at = self.clock.now().max(last.recorded_at);
        let mut stored = Vec::with_capacity(events.len());
        for event in events {
            last.position = last.position.next();
            last.chain = link(&last.chain, event.envelope.id);
            stored.push(StoredEvent {
                position: last.position,
                recorded_at: last.recorded_at,
                source_position: event.position,
                envelope: Arc::clone(&event.envelope),
                chain: Arc::clone(&last.chain),
            });
        }
        if let Some(OutboxEvent { position, envelope }) = events.last() {
            let cursor = Cursor { position: *position, event: Some(envelope.id) };
            ends.cursors.insert(source.to_owned(), cursor);
        }
        let stored = Arc::new(stored);
        let insert = sql::over(
            Arc::<Vec<StoredEvent>>::clone(&stored),
            concat!(
                "insert into event (position, recorded_at, source_position, source, chain, ",
                envelope_columns!(),
                ") select * from rows \
                 where $1 = coalesce((select chain from event order by position desc limit 1), '')"
            ),
        )
        .bind(before);
        (insert, ends, stored)
    }

    /// Keeps these events for those who wait for them, and tells them that they are in.
    fn appended(&self, events: &[StoredEvent], head: Position) {
        // What another process appended before these, and did not tell yet: it is no news any more
        // when it does.
        let untold = self.grew.borrow().plus(events.len()) < head;
        let types: BTreeSet<&str> =
            events.iter().map(|event| event.envelope.kind.as_str()).collect();
        let mut newest = self.newest();
        for event in events {
            newest.push(event.position, event.clone(), event.envelope.bytes());
        }
        drop(newest);
        raise(&self.appended, head);
        raise(&self.grew, head);
        self.consumers.tell(|kind| untold || types.contains(kind));
    }

    fn ends(&self) -> MutexGuard<'_, Option<Ends>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> MutexGuard<'_, Newest<StoredEvent>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of a source's outbox is here.
    pub async fn cursor(&self, source: &str) -> Result<Cursor, StoreError> {
        let mut reader = self.database.reader().await?;
        let cursor = cursor(&mut reader, source).await?;
        reader.give_back();
        Ok(cursor)
    }

    /// The newest position.
    pub async fn head(&self) -> Result<Position, StoreError> {
        in_time(limits::READ, async {
            let mut reader = self.database.reader().await?;
            let head: i64 = sql::query("select coalesce(max(position), 0) from event")
                .fetch_one(&mut reader)
                .await?;
            reader.give_back();
            Ok(Position(head))
        })
        .await
    }

    /// The next stretch after a place, as [`EventStore::page`] gives it, where this process appended all of
    /// it a moment ago; nothing where it did not.
    pub(crate) fn newest_page(&self, after: &Anchor, types: &[&str], limit: usize) -> Option<Page> {
        let newest = self.newest();
        if *newest.get(after.position)?.chain != *after.chain {
            return None;
        }
        let (mut events, mut end, mut position) = (Vec::new(), None, after.position);
        let mut following = newest.after(after.position);
        while events.len() < limit
            && let Some(next) = following.next()
        {
            position = position.next();
            end = Some(next);
            if types.contains(&next.envelope.kind.as_str()) {
                events.push(next.clone());
            }
        }
        // Appends of this process may tell in another order than they were made in.
        let is_last = following.next().is_none() && position >= self.known_head();
        // Nothing here may be something elsewhere.
        let end = Some(end?.anchor(&after.log_id));
        let (log_id, chain) = (after.log_id.clone(), Some(after.chain.as_str().into()));
        Some(Page { log_id, chain, events, end, is_last })
    }

    /// The next stretch after a place: its events of these types (a JSON array), at most `limit`.
    ///
    /// The stretch is bounded by position as well: with a long backlog Postgres would otherwise
    /// sort all of it for each page.
    pub(crate) async fn page(
        &self,
        after: Position,
        types: &str,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let furthest = after.plus(limit * limits::LOG_WINDOW_FACTOR);
        let most = limit + usize::from(after > Position(0));
        let mut reader = self.database.follower().await?;
        let mut rows: Vec<Row> = sql::query(concat!(
            "select ",
            stored_columns!(),
            ", (select max(id) from log) from event where position >= $1 and position <= $2 and (position = $1 \
             or position = (select position from event where position <= $2 \
             order by position desc limit 1) \
             or type in (select atom from jsonb_each($3))) order by position limit $4"
        ))
        .bind(after.0)
        .bind(furthest.0)
        .bind(types)
        .bind(limit_to_bind(most))
        .fetch_all(&mut reader)
        .await?;
        let log_id: String = match rows.first_mut() {
            Some(row) => row.get(5 + envelope_columns::COUNT)?,
            None => {
                sql::query("select coalesce(max(id), '') from log").fetch_one(&mut reader).await?
            }
        };
        reader.give_back();
        let found = rows.len();
        let mut events: Vec<StoredEvent> = rows.into_iter().map(read).collect::<Result<_, _>>()?;
        let has_anchor = events.first().is_some_and(|event| event.position == after);
        let chain = has_anchor.then(|| events.remove(0).chain);
        let end = events.last().map(|event| event.anchor(&log_id));
        let is_last = found < most && end.as_ref().is_none_or(|end| end.position < furthest);
        Ok(Page { log_id, chain, events, end, is_last })
    }

    /// How long the oldest event after a place has been here.
    pub(crate) async fn age_after(&self, position: Position) -> Result<Duration, StoreError> {
        let mut reader = self.database.reader().await?;
        let recorded: Option<i64> = sql::query("select recorded_at from event where position = $1")
            .bind(position.next().0)
            .fetch_optional(&mut reader)
            .await?;
        reader.give_back();
        let now = self.clock.now();
        Ok(recorded.map_or(Duration::ZERO, |recorded| now.since(Timestamp(recorded))))
    }

    /// One event.
    pub async fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        in_time(limits::READ, async {
            let mut reader = self.database.reader().await?;
            let row: Option<Row> = sql::query(concat!(stored_event!(), " where id = $1"))
                .bind(id.to_string())
                .fetch_optional(&mut reader)
                .await?;
            reader.give_back();
            row.map(read).transpose()
        })
        .await
    }

    /// At most `limit` events of this source, from an outbox position on.
    pub(crate) async fn of_source(
        connection: &mut Connection,
        source: &str,
        first: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rows: Vec<Row> = sql::query(concat!(
            stored_event!(),
            " where source = $1 and source_position >= $2 and source_position < $3 \
             order by source_position"
        ))
        .bind(source)
        .bind(first.0)
        .bind(first.plus(limit).0)
        .fetch_all(connection)
        .await?;
        rows.into_iter().map(read).collect()
    }

    /// The last position recorded by then; 0 if none was.
    ///
    /// Times never decrease with positions, which have no gaps: the place is found by halving. In a damaged log
    /// that has a gap it may be an earlier place; `waybill verify` finds such.
    pub async fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        in_time(limits::READ, async {
            let mut reader = self.database.reader().await?;
            let position: i64 = sql::query(
                "with recursive halving (least, most) as ( \
                 select cast(0 as bigint), coalesce((select max(position) from event), 0) \
                 union all \
                 select case when recorded_at <= $1 then position else least end, \
                 case when recorded_at <= $1 then most else position - 1 end \
                 from halving join event on position = (least + most + 1) / 2 where least < most) \
                 select max(least) from halving",
            )
            .bind(time.0)
            .fetch_one(&mut reader)
            .await?;
            reader.give_back();
            Ok(Position(position))
        })
        .await
    }
}

/// Where the event store ends, which the next append begins after.
#[derive(Debug)]
struct Ends {
    last: Last,
    /// How much it holds of the outboxes of those sources that were asked for.
    cursors: BTreeMap<String, Cursor>,
}

/// The last event.
#[derive(Debug)]
struct Last {
    position: Position,
    recorded_at: Timestamp,
    chain: Arc<str>,
}

impl Ends {
    fn find(source: &str) -> Statement {
        sql::query(
            "select coalesce(newest.position, 0), coalesce(newest.recorded_at, 0), \
             coalesce(newest.chain, ''), coalesce(mine.source_position, 0), coalesce(mine.id, '') \
             from turn left join (select position, recorded_at, chain from event \
             order by position desc limit 1) as newest on 1 = 1 \
             left join (select source_position, id from event where source = $1 \
             order by source_position desc limit 1) as mine on 1 = 1",
        )
        .bind(source)
    }

    fn found(source: &str, answered: Option<Answered>) -> Result<Self, StoreError> {
        let (position, recorded_at, chain, source_position, id): (i64, i64, String, i64, String) =
            answered.unwrap_or_default().row()?;
        let (position, recorded_at) = (Position(position), Timestamp(recorded_at));
        let last = Last { position, recorded_at, chain: chain.into() };
        let cursor = read_cursor(source_position, &id)?;
        Ok(Self { last, cursors: BTreeMap::from([(source.to_owned(), cursor)]) })
    }

    /// Takes over what was known of other sources, if nothing was appended since.
    fn learn_from(&mut self, known: Option<Self>) {
        if let Some(known) = known.filter(|known| known.last.chain == self.last.chain) {
            for (source, cursor) in known.cursors {
                self.cursors.entry(source).or_insert(cursor);
            }
        }
    }

    /// Whether these events of a source begin right after what is here of it, without a gap.
    fn admit(&self, source: &str, events: &[OutboxEvent]) -> bool {
        let Some(cursor) = self.cursors.get(source) else { return false };
        let follows = |(event, expected): (&OutboxEvent, i64)| {
            event.position.0 == expected && event.envelope.source == source
        };
        events.iter().zip(cursor.position.0 + 1..).all(follows)
    }
}

/// The chain with one more event.
pub(crate) fn link(chain: &str, id: EventId) -> Arc<str> {
    let mut text = Uuid::encode_buffer();
    let id = id.0.hyphenated().encode_lower(&mut text);
    hex::encode(Sha256::new().chain_update(chain).chain_update(id).finalize()).into()
}

async fn cursor(connection: &mut Connection, source: &str) -> Result<Cursor, StoreError> {
    let last: Option<(i64, String)> = sql::query(
        "select source_position, id from event where source = $1 \
         order by source_position desc limit 1",
    )
    .bind(source)
    .fetch_optional(connection)
    .await?;
    let (position, id) = last.unwrap_or_default();
    read_cursor(position, &id)
}

fn read_cursor(position: i64, id: &str) -> Result<Cursor, StoreError> {
    Ok(Cursor { position: Position(position), event: envelope_columns::parse_id_if_any(id)? })
}

fn read(mut row: Row) -> Result<StoredEvent, StoreError> {
    let source: String = row.get(3)?;
    Ok(StoredEvent {
        position: Position(row.get(0)?),
        recorded_at: Timestamp(row.get(1)?),
        source_position: Position(row.get(2)?),
        envelope: Arc::new(envelope_columns::read(&mut row, 4, source)?),
        chain: row.get::<String>(4 + envelope_columns::COUNT)?.into(),
    })
}

/// Whether it is news.
fn raise(level: &watch::Sender<Position>, head: Position) -> bool {
    level.send_if_modified(|known| {
        let newer = head > *known;
        *known = head.max(*known);
        newer
    })
}

/// A limit as databases take it.
pub(crate) fn limit_to_bind(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
