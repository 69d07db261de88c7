//! A consumer's checkpoint: how far it is in the event store, committed with the effects.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::Position;
use crate::event_store::Anchor;
use crate::limits;
use crate::row::Cell;
use crate::sql::{self, Connection};
use crate::writes::Writes;

/// How far a consumer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Counts checkpoints; the next one must be the next number.
    pub(crate) sequence: i64,
    /// The place, with the event found there.
    pub(crate) anchor: Anchor,
    /// Of each source the highest outbox position handled: the inbox, which makes repeats harmless
    /// and does not grow.
    pub(crate) sources: BTreeMap<String, Position>,
}

impl Checkpoint {
    /// Whether an event was handled already.
    pub(crate) fn has_handled(&self, source: &str, position: Position) -> bool {
        self.sources.get(source).is_some_and(|handled| position <= *handled)
    }
}

/// The newest checkpoint; a fresh one if there is none.
pub(crate) async fn newest(connection: &mut Connection) -> Result<Checkpoint, StoreError> {
    let row: Option<CheckpointRow> = sql::query(
        "select sequence, log_id, position, event_id, chain, sources from checkpoints \
         order by sequence desc limit 1",
    )
    .fetch_optional(connection)
    .await?;
    row.map_or_else(|| Ok(Checkpoint::default()), read)
}

type CheckpointRow = (i64, String, i64, String, String, String);

fn read(row: CheckpointRow) -> Result<Checkpoint, StoreError> {
    let (sequence, log_id, position, event_id, chain, sources) = row;
    let anchor = Anchor { log_id, position: Position(position), event_id, chain };
    Ok(Checkpoint { sequence, anchor, sources: serde_json::from_str(&sources)? })
}

/// Adds the next checkpoint; its sequence is taken if another consumer was faster.
///
/// Old ones are pruned many at a time, now and then.
pub(crate) fn insert(
    writes: &mut Writes,
    next: &Checkpoint,
    now: Timestamp,
) -> Result<(), StoreError> {
    let anchor = &next.anchor;
    writes.add(
        "insert into checkpoints (sequence, log_id, position, event_id, chain, sources, saved_at) \
         select * from rows",
        vec![vec![
            next.sequence.into(),
            anchor.log_id.as_str().into(),
            anchor.position.0.into(),
            anchor.event_id.as_str().into(),
            anchor.chain.as_str().into(),
            serde_json::to_string(&next.sources)?.into(),
            now.0.into(),
        ]],
    );
    if next.sequence % limits::CHECKPOINTS_KEPT == 0 {
        // From both ends: what was deleted before may still be there for a long snapshot, and
        // would be walked over each time.
        let last = next.sequence - limits::CHECKPOINTS_KEPT;
        let old = last - limits::CHECKPOINTS_KEPT + 1..=last;
        writes.add(
            "delete from checkpoints where sequence in (select c0 from rows)",
            old.map(|sequence| vec![Cell::from(sequence)]).collect::<Vec<_>>(),
        );
    }
    Ok(())
}

/// Whether this very checkpoint is there: another replica may have made one of that number.
pub(crate) async fn exists(
    connection: &mut Connection,
    wanted: &Checkpoint,
) -> Result<bool, StoreError> {
    let row: Option<CheckpointRow> = sql::query(
        "select sequence, log_id, position, event_id, chain, sources from checkpoints \
         where sequence = $1",
    )
    .bind(wanted.sequence)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(read).transpose()?.as_ref() == Some(wanted))
}
