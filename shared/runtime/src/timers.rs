//! Timers: what a service asked to be reminded of, set and cleared by its own events.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::database::Database;
use crate::error::StoreError;
use crate::event_store::limit_to_bind;
use crate::row::Cell;
use crate::sql::{self, Connection, Statement};
use crate::writes::Writes;

/// A timer as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredTimer {
    /// Names it.
    pub(crate) key: String,
    /// When it comes due.
    pub(crate) due_at: Timestamp,
    /// What comes back then, as JSON.
    pub(crate) payload: String,
    /// The event that set it.
    pub(crate) event_id: String,
    /// What it belongs to.
    pub(crate) correlation: String,
    /// W3C trace context, or empty.
    pub(crate) traceparent: String,
}

type TimerRow = (String, i64, String, String, String, String);

fn read((key, due_at, payload, event_id, correlation, traceparent): TimerRow) -> StoredTimer {
    StoredTimer { key, due_at: Timestamp(due_at), payload, event_id, correlation, traceparent }
}

/// Which timers may fire: those whose lane is not held back, and that were not given up.
macro_rules! free {
    () => {
        "correlation_id not in \
         (select lane from dead_letters where status in ('parked', 'waiting', 'retrying')) \
         and not exists (select 1 from dead_letters \
         where id = event_id || '.' || timer_key and status = 'discarded')"
    };
}

impl StoredTimer {
    /// Its id as a dead letter. An event may set several timers, so its id alone would not do.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.event_id, self.key)
    }
}

/// Timers due by then that may fire, the earliest first.
pub(crate) async fn due(
    database: &Database,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<StoredTimer>, StoreError> {
    let mut follower = database.follower().await?;
    let rows: Vec<TimerRow> = sql::query(concat!(
        "select timer_key, due_at, payload, event_id, correlation_id, traceparent from timers \
         where due_at <= $1 and ",
        free!(),
        " order by due_at, timer_key limit $2",
    ))
    .bind(now.0)
    .bind(limit_to_bind(limit))
    .fetch_all(&mut follower)
    .await?;
    follower.give_back();
    Ok(rows.into_iter().map(read).collect())
}

/// When the next timer comes due that may fire.
pub(crate) async fn next_due(database: &Database) -> Result<Option<Timestamp>, StoreError> {
    let mut follower = database.follower().await?;
    let due: Option<i64> = sql::query(concat!(
        "select due_at from timers where ",
        free!(),
        " order by due_at limit 1",
    ))
    .fetch_optional(&mut follower)
    .await?;
    follower.give_back();
    Ok(due.map(Timestamp))
}

/// The ids of those of these timers that are still set as they were read: another replica may
/// have been faster.
pub(crate) async fn still_set(
    connection: &mut Connection,
    timers: &[&StoredTimer],
) -> Result<BTreeSet<String>, StoreError> {
    if timers.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ids: Vec<String> = find_set(timers)?.fetch_all(connection).await?;
    Ok(ids.into_iter().collect())
}

/// Finds the ids of those of these timers' keys that are set now.
pub(crate) fn find_set(timers: &[&StoredTimer]) -> Result<Statement, StoreError> {
    let keys: Vec<&str> = timers.iter().map(|timer| timer.key.as_str()).collect();
    Ok(sql::query(
        "select event_id || '.' || timer_key from timers \
         where timer_key in (select atom from jsonb_each($1))",
    )
    .bind(serde_json::to_string(&keys)?))
}

/// Forgets the attempts at timers that are about to be cleared or set anew: whoever counted them may
/// have ended before it could settle them, and nobody will try those timers again.
pub(crate) async fn settle_attempts(
    connection: &mut Connection,
    changes: &BTreeMap<String, Option<StoredTimer>>,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let keys: Vec<&String> = changes.keys().collect();
    sql::query(
        "delete from attempts where message_id in (select event_id || '.' || timer_key \
         from timers where timer_key in (select atom from jsonb_each($1)))",
    )
    .bind(serde_json::to_string(&keys)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets and clears timers by key.
pub(crate) fn change(writes: &mut Writes, changes: &BTreeMap<String, Option<StoredTimer>>) {
    let cleared = changes.iter().filter(|(_, timer)| timer.is_none());
    writes.add(
        "delete from timers where timer_key in (select c0 from rows)",
        cleared.map(|(key, _)| vec![Cell::from(key.as_str())]).collect::<Vec<_>>(),
    );
    let row = |timer: &StoredTimer| {
        vec![
            timer.key.as_str().into(),
            timer.due_at.0.into(),
            timer.payload.as_str().into(),
            timer.event_id.as_str().into(),
            timer.correlation.as_str().into(),
            timer.traceparent.as_str().into(),
        ]
    };
    writes.add(
        "insert into timers (timer_key, due_at, payload, event_id, correlation_id, traceparent) \
         select * from rows where true \
         on conflict (timer_key) do update set due_at = excluded.due_at, \
         payload = excluded.payload, event_id = excluded.event_id, \
         correlation_id = excluded.correlation_id, traceparent = excluded.traceparent",
        changes.values().flatten().map(row).collect::<Vec<_>>(),
    );
}

/// Every timer, for a fold to compare with.
pub(crate) async fn all(connection: &mut Connection) -> Result<Vec<StoredTimer>, StoreError> {
    let rows: Vec<TimerRow> = sql::query(
        "select timer_key, due_at, payload, event_id, correlation_id, traceparent from timers \
         order by timer_key",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(read).collect())
}

/// Forgets every timer, to be set anew by a fold.
pub(crate) async fn clear(connection: &mut Connection) -> Result<(), StoreError> {
    sql::query("delete from timers").execute(connection).await?;
    Ok(())
}
