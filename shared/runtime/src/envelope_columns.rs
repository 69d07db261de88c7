//! How an event's envelope lies in a table, the same in every outbox and in the event store.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Version};

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
pub(crate) fn read(row: &AnyRow, first: usize, source: String) -> Result<Envelope, StoreError> {
    let id: String = row.try_get(first)?;
    Ok(Envelope {
        id: EventId(parse_id(&id)?),
        source,
        kind: row.try_get(first + 1)?,
        schema: row.try_get(first + 2)?,
        stream: row.try_get(first + 3)?,
        version: Version(row.try_get(first + 4)?),
        time: Timestamp(row.try_get(first + 5)?),
        correlation: row.try_get(first + 6)?,
        causation: row.try_get(first + 7)?,
        actor: row.try_get(first + 8)?,
        traceparent: row.try_get(first + 9)?,
        data: row.try_get(first + 10)?,
    })
}

/// Reads an id that a database holds as text.
pub(crate) fn parse_id(text: &str) -> Result<uuid::Uuid, StoreError> {
    uuid::Uuid::parse_str(text).map_err(|cause| StoreError::from(sqlx::Error::Decode(cause.into())))
}
