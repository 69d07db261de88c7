//! How an event's envelope lies in a table, the same in every outbox and in the event store.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Version};
use crate::sql::{self, Row};

/// The columns of an envelope but its source, in the order of [`envelope_values!`] and [`read`].
macro_rules! envelope_columns {
    () => {
        "id, type, schema_version, stream, stream_version, occurred_at, correlation_id, \
         causation_id, actor, traceparent, data"
    };
}
pub(crate) use envelope_columns;

/// How many columns those are.
pub(crate) const COUNT: usize = 11;

/// One row of a JSON parameter: some values, then what [`envelope_columns!`] names of an envelope.
macro_rules! envelope_values {
    ($envelope:expr, $($before:expr),*) => {
        (
            $($before,)*
            $envelope.id,
            &$envelope.kind,
            $envelope.schema,
            &$envelope.stream,
            $envelope.version,
            $envelope.time.0,
            &$envelope.correlation,
            &$envelope.causation,
            &$envelope.actor,
            &$envelope.traceparent,
            &$envelope.data,
        )
    };
}
pub(crate) use envelope_values;

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
