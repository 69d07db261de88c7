//! A service's outbox: what it says happened, written in the transaction that made it happen.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::envelope_columns::{self, envelope_columns};
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Position, Version};
use crate::row::Kind;
use crate::sql::{self, Answered, Connection, Field, Row, Rows};
use crate::writes::Writes;

/// An event in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its place in the outbox.
    pub position: Position,
    /// The event.
    pub envelope: Arc<Envelope>,
}

impl Rows for Vec<OutboxEvent> {
    fn count(&self) -> usize {
        self.len()
    }

    fn kinds(&self) -> Cow<'static, [Kind]> {
        [Kind::Bigint].into_iter().chain(envelope_columns::KINDS).collect()
    }

    fn value(&self, row: usize, column: usize) -> Option<Field<'_>> {
        let event = self.get(row)?;
        match column.checked_sub(1) {
            None => Some(Field::Bigint(event.position.0)),
            Some(column) => envelope_columns::value(&event.envelope, column),
        }
    }
}

/// Events on their way into the outbox, in order. The caller deals their positions.
#[derive(Debug, Default)]
pub(crate) struct Additions {
    events: Vec<OutboxEvent>,
    /// Indexes of those whose streams' versions are not known: theirs count from the first of each stream
    /// in here.
    uncounted: Vec<usize>,
}

impl Additions {
    /// With room for so many.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { events: Vec::with_capacity(count), uncounted: Vec::new() }
    }

    /// Adds one, whose version is that in its stream, or is not known yet.
    pub(crate) fn push(&mut self, event: OutboxEvent, is_counted: bool) {
        if !is_counted {
            self.uncounted.push(self.events.len());
        }
        self.events.push(event);
    }

    /// All of them, not all with their versions.
    pub(crate) fn events(&self) -> &[OutboxEvent] {
        &self.events
    }

    /// Adds them at the end, before anything else: those whose versions are not known go first, because only
    /// what the first text finds is told. The caller holds the turn.
    ///
    /// `order by` makes Postgres look up all versions before it inserts the first row: for each further row
    /// of a stream it would walk over those that the statement itself has inserted, which it must not count.
    pub(crate) fn insert(&self, writes: &mut Writes) {
        let mut uncounted = self.uncounted.iter().copied().peekable();
        let parted = self.events.iter().cloned().enumerate();
        let (uncounted, counted): (Vec<_>, Vec<_>) =
            parted.partition(|(index, _)| uncounted.next_if_eq(index).is_some());
        let rows = |part: Vec<(usize, OutboxEvent)>| -> Vec<OutboxEvent> {
            part.into_iter().map(|(_, event)| event).collect()
        };
        writes.add(
            concat!(
                "insert into outbox (position, ",
                envelope_columns!(),
                ") select c0, c1, c2, c3, c4, c5 + present, c6, c7, c8, c9, c10, c11 from (select rows.*, \
                 coalesce((select max(stream_version) from outbox where stream = c4), 0) as present \
                 from rows order by c0) as located returning position, stream_version"
            ),
            rows(uncounted),
        );
        writes.add(
            concat!("insert into outbox (position, ", envelope_columns!(), ") select * from rows"),
            rows(counted),
        );
    }

    /// All of them with the versions that were given where they were not known; none if the answer does
    /// not tell all of those.
    pub(crate) fn inserted(self, answer: Option<Answered>) -> Vec<OutboxEvent> {
        let Self { mut events, uncounted } = self;
        if uncounted.is_empty() {
            return events;
        }
        let told = answer.unwrap_or_default().rows().unwrap_or_default();
        let versions: HashMap<i64, i64> = told.into_iter().collect();
        for index in uncounted {
            let event = &mut events[index];
            let Some(version) = versions.get(&event.position.0) else { return Vec::new() };
            Arc::make_mut(&mut event.envelope).version = Version(*version);
        }
        events
    }
}

/// The id of the first event of each of these streams that has any.
pub(crate) async fn first_events(
    connection: &mut Connection,
    streams: &BTreeSet<&str>,
) -> Result<HashMap<String, String>, StoreError> {
    if streams.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, String)> = sql::query(
        "select atom, \
         coalesce((select id from outbox where stream = atom and stream_version = 1), '') \
         from jsonb_each($1)",
    )
    .bind(serde_json::to_string(streams)?)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter(|(_, id)| !id.is_empty()).collect())
}

/// At most `limit` events from `first` on, in order.
pub(crate) async fn page(
    connection: &mut Connection,
    source: &str,
    first: Position,
    limit: usize,
) -> Result<Vec<OutboxEvent>, StoreError> {
    let rows: Vec<Row> = sql::query(concat!(
        "select position, ",
        envelope_columns!(),
        " from outbox where position >= $1 and position < $2 order by position"
    ))
    .bind(first.0)
    .bind(first.plus(limit).0)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| read(row, source)).collect()
}

/// The place of the last event, 0 if there is none.
pub(crate) async fn head(connection: &mut Connection) -> Result<Position, StoreError> {
    let head: i64 =
        sql::query("select coalesce(max(position), 0) from outbox").fetch_one(connection).await?;
    Ok(Position(head))
}

/// The id of the event at a position, if there is one.
pub(crate) async fn id_at(
    connection: &mut Connection,
    position: Position,
) -> Result<Option<EventId>, StoreError> {
    let id: Option<String> = sql::query("select id from outbox where position = $1")
        .bind(position.0)
        .fetch_optional(connection)
        .await?;
    id.map(|id| envelope_columns::parse_id(&id).map(EventId)).transpose()
}

fn read(mut row: Row, source: &str) -> Result<OutboxEvent, StoreError> {
    Ok(OutboxEvent {
        position: Position(row.get(0)?),
        envelope: Arc::new(envelope_columns::read(&mut row, 1, source.to_owned())?),
    })
}
