//! How an event's envelope lies in a table, the same in every outbox and in the event store.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Version};
use crate::row::Cell;
use crate::sql::{self, Row};

/// The columns of an envelope but its source, in the order of [`row`] and [`read`].
macro_rules! envelope_columns {
    () => {
        "id, type, schema_version, stream, stream_version, occurred_at, correlation_id, \
         causation_id, actor, traceparent, data"
    };
}
pub(crate) use envelope_columns;

/// How many columns those are.
pub(crate) const COUNT: usize = 11;

/// A row: some values, then what [`envelope_columns!`] names of an envelope.
pub(crate) fn row<const N: usize>(before: [Cell; N], envelope: &Envelope) -> Vec<Cell> {
    let mut row = Vec::with_capacity(N + COUNT);
    row.extend(before);
    row.extend([
        envelope.id.to_string().into(),
        envelope.kind.as_str().into(),
        envelope.schema.into(),
        envelope.stream.as_str().into(),
        envelope.version.0.into(),
        envelope.time.0.into(),
        envelope.correlation.as_str().into(),
        envelope.causation.as_str().into(),
        envelope.actor.as_str().into(),
        envelope.traceparent.as_str().into(),
        Cell::from(envelope.data.as_str()),
    ]);
    row
}

/// Reads an envelope from the columns that begin at `first`.
pub(crate) fn read(row: &mut Row, first: usize, source: String) -> Result<Envelope, StoreError> {
    let id: String = row.get(first)?;
    Ok(Envelope {
        id: EventId(parse_id(&id)?),
        source,
        kind: row.get(first + 1)?,
        schema: row.get(first + 2)?,
        stream: row.get(first + 3)?,
        version: Version(row.get(first + 4)?),
        time: Timestamp(row.get(first + 5)?),
        correlation: row.get(first + 6)?,
        causation: row.get(first + 7)?,
        actor: row.get(first + 8)?,
        traceparent: row.get(first + 9)?,
        data: row.get(first + 10)?,
    })
}

/// Reads an id that a database holds as text.
pub(crate) fn parse_id(text: &str) -> Result<uuid::Uuid, StoreError> {
    uuid::Uuid::parse_str(text).map_err(|cause| StoreError::from(sql::Error::bad_value(cause)))
}
