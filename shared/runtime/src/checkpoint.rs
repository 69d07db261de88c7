//! A consumer's checkpoint: how far it is in the event store, committed with the effects.

use std::collections::BTreeMap;

use sqlx::AnyConnection;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::event::Position;
use crate::event_store::Anchor;
use crate::limits;

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
pub(crate) async fn newest(connection: &mut AnyConnection) -> Result<Checkpoint, StoreError> {
    let row: Option<(i64, String, i64, String, String)> = sqlx::query_as(
        "select sequence, log_id, position, event_id, sources from checkpoints \
         order by sequence desc limit 1",
    )
    .fetch_optional(connection)
    .await?;
    let Some((sequence, log_id, position, event_id, sources)) = row else {
        return Ok(Checkpoint::default());
    };
    let anchor = Anchor { log_id, position: Position(position), event_id };
    Ok(Checkpoint { sequence, anchor, sources: serde_json::from_str(&sources)? })
}

/// Adds the next checkpoint; its sequence is taken if another consumer was faster.
///
/// Old ones are pruned many at a time, now and then.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    next: &Checkpoint,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into checkpoints (sequence, log_id, position, event_id, sources, saved_at) \
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(next.sequence)
    .bind(next.anchor.log_id.clone())
    .bind(next.anchor.position.0)
    .bind(next.anchor.event_id.clone())
    .bind(serde_json::to_string(&next.sources)?)
    .bind(now.0)
    .execute(&mut *connection)
    .await?;
    if next.sequence % limits::CHECKPOINTS_KEPT == 0 {
        sqlx::query("delete from checkpoints where sequence <= $1")
            .bind(next.sequence - limits::CHECKPOINTS_KEPT)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Whether a checkpoint of that number was made.
pub(crate) async fn exists(
    connection: &mut AnyConnection,
    sequence: i64,
) -> Result<bool, StoreError> {
    let newest: i64 = sqlx::query_scalar("select coalesce(max(sequence), 0) from checkpoints")
        .fetch_one(connection)
        .await?;
    Ok(newest >= sequence)
}
