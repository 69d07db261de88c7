//! How an event's envelope lies in a table, the same in every outbox and in the event store.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::{Envelope, EventId, Version};
use crate::row::Kind;
use crate::sql::{self, Field, Row};

/// The columns of an envelope but its source, in the order of [`value`] and [`read`].
macro_rules! envelope_columns {
    () => {
        "id, type, schema_version, stream, stream_version, occurred_at, correlation_id, \
         causation_id, actor, traceparent, data"
    };
}
pub(crate) use envelope_columns;

/// How many columns those are.
pub(crate) const COUNT: usize = KINDS.len();

/// What they hold.
pub(crate) const KINDS: [Kind; 11] = {
    use Kind::{Bigint, Text};
    [Text, Text, Bigint, Text, Bigint, Bigint, Text, Text, Text, Text, Text]
};

/// What an envelope has in one of them.
pub(crate) fn value(envelope: &Envelope, column: usize) -> Option<Field<'_>> {
    Some(match column {
        0 => Field::Id(envelope.id.0),
        1 => Field::Text(&envelope.kind),
        2 => Field::Bigint(envelope.schema),
        3 => Field::Text(&envelope.stream),
        4 => Field::Bigint(envelope.version.0),
        5 => Field::Bigint(envelope.time.0),
        6 => Field::Text(&envelope.correlation),
        7 => Field::Text(&envelope.causation),
        8 => Field::Text(&envelope.actor),
        9 => Field::Text(&envelope.traceparent),
        10 => Field::Text(&envelope.data),
        _ => return None,
    })
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

/// The same where nothing is the empty text.
pub(crate) fn parse_id_if_any(text: &str) -> Result<Option<EventId>, StoreError> {
    (!text.is_empty()).then(|| parse_id(text).map(EventId)).transpose()
}
