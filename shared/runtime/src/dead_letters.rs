//! Dead letters: messages that could not be handled, and those that wait behind them.
//!
//! A lane is what keeps its order among itself: an order, a product, a user (the correlation id).
//! A parked message holds back only its own lane; nothing is skipped silently.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::database::Database;
use crate::error::StoreError;
use crate::event::Position;
use crate::event_store::{StoredEvent, limit_to_bind};
use crate::limits;
use crate::sql::{self, Connection};
use crate::timers::StoredTimer;
use crate::unit::Closing;

crate::text_enum! {
    /// What is to become of a dead letter.
    pub enum DeadLetterStatus {
        /// It failed; an operator decides.
        Parked = "parked",
        /// It waits behind a parked one of its lane.
        Waiting = "waiting",
        /// It is to be tried again, in its lane's order.
        Retrying = "retrying",
        /// It was handled after all.
        Handled = "handled",
        /// It was given up; its order or subject is unsettled.
        Discarded = "discarded",
    }
}

/// An event or timer that could not be handled, or that waits behind such a one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its id: that of the event; of a timer, the event that set it and the timer's key.
    pub id: String,
    /// What waits with it: an order's id, or the first event of a product or a user.
    pub lane: String,
    /// What is to become of it.
    pub status: DeadLetterStatus,
    /// The event's name, or `timer`.
    pub kind: String,
    /// Where it stands in the event store; 0 for a timer.
    pub position: Position,
    /// Why it could not be handled; empty if it only waits.
    pub cause: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it was parked.
    pub parked_at: Timestamp,
}

/// What became of an operator's wish about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// There is no such dead letter.
    Unknown,
    /// It is not parked (any more).
    NotParked,
}

/// A message as a dead letter keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kept {
    /// An event of another service.
    Event(StoredEvent),
    /// A timer of this one.
    Timer(StoredTimer),
}

impl Kept {
    /// The dead letter's id.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Event(event) => event.envelope.id.to_string(),
            Self::Timer(timer) => timer.id(),
        }
    }

    /// What keeps its order with it.
    pub(crate) fn lane(&self) -> &str {
        match self {
            Self::Event(event) => &event.envelope.correlation,
            Self::Timer(timer) => &timer.correlation,
        }
    }

    /// The timer, if it is one.
    pub(crate) fn timer(&self) -> Option<&StoredTimer> {
        match self {
            Self::Event(_) => None,
            Self::Timer(timer) => Some(timer),
        }
    }

    fn kind(&self) -> &str {
        match self {
            Self::Event(event) => &event.envelope.kind,
            Self::Timer(_) => "timer",
        }
    }

    fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Timer(_) => Position(0),
        }
    }
}

/// A message to be kept as a dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    /// The message.
    pub(crate) message: Kept,
    /// Parked, waiting or retrying.
    pub(crate) status: DeadLetterStatus,
    /// Why; empty if it only waits.
    pub(crate) cause: String,
    /// How often it was tried.
    pub(crate) attempts: i64,
}

/// Of these lanes those held back, each with whether a parked message heads it.
pub(crate) async fn held(
    connection: &mut Connection,
    lanes: &[&str],
) -> Result<BTreeMap<String, bool>, StoreError> {
    let rows: Vec<(String, i64)> = sql::query(
        "select lane, cast(max(case when status = 'parked' then 1 else 0 end) as bigint) \
         from dead_letters where status in ('parked', 'waiting', 'retrying') \
         and lane in (select atom from jsonb_each($1)) group by lane",
    )
    .bind(serde_json::to_string(lanes)?)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(lane, parked)| (lane, parked > 0)).collect())
}

/// Messages to be tried again, in order.
pub(crate) async fn retrying(
    database: &Database,
    limit: usize,
) -> Result<Vec<(String, i64, Kept)>, StoreError> {
    let mut follower = database.follower().await?;
    let rows: Vec<(String, i64, String)> = sql::query(
        "select id, attempts, message from dead_letters where status = 'retrying' \
         order by position, id limit $1",
    )
    .bind(limit_to_bind(limit))
    .fetch_all(&mut follower)
    .await?;
    follower.give_back();
    let read = |(id, attempts, kept): (String, i64, String)| {
        Ok((id, attempts, serde_json::from_str(&kept)?))
    };
    rows.into_iter().map(read).collect()
}

/// Which of these are still to be tried again.
pub(crate) async fn still_retrying(
    connection: &mut Connection,
    ids: &[&str],
) -> Result<Vec<String>, StoreError> {
    Ok(sql::query(
        "select id from dead_letters where status = 'retrying' \
         and id in (select atom from jsonb_each($1))",
    )
    .bind(serde_json::to_string(ids)?)
    .fetch_all(connection)
    .await?)
}

/// Writes what a unit decided about dead letters and attempts.
pub(crate) async fn close(
    connection: &mut Connection,
    closing: &Closing,
    now: Timestamp,
) -> Result<(), StoreError> {
    if !closing.revived.is_empty() {
        set_status(connection, DeadLetterStatus::Handled, &closing.revived, now).await?;
    }
    if !closing.stopped_lanes.is_empty() {
        sql::query(
            "update dead_letters set status = 'waiting', changed_at = $1 \
             where status = 'retrying' and lane in (select atom from jsonb_each($2))",
        )
        .bind(now.0)
        .bind(serde_json::to_string(&closing.stopped_lanes)?)
        .execute(connection)
        .await?;
    }
    if !closing.parked.is_empty() {
        insert(connection, &closing.parked, now).await?;
    }
    if !closing.settled_attempts.is_empty() {
        sql::query("delete from attempts where message_id in (select atom from jsonb_each($1))")
            .bind(serde_json::to_string(&closing.settled_attempts)?)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut Connection,
    parked: &[Parked],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(parked.len());
    for Parked { message, status, cause, attempts } in parked {
        // Postgres has no place for U+0000 in a text, and a panic may say anything.
        let shown = cause.chars().filter(|character| *character != '\0');
        let cause: String = shown.take(limits::CAUSE_CHARS).collect();
        let kept = serde_json::to_string(message)?;
        let of_message = (message.id(), message.lane(), message.kind(), message.position());
        rows.push((of_message, status.as_str(), cause, attempts, now.0, kept));
    }
    sql::query(
        "insert into dead_letters \
         (id, lane, kind, position, status, cause, attempts, parked_at, changed_at, message) \
         select value -> 0 ->> 0, value -> 0 ->> 1, value -> 0 ->> 2, \
         cast(value -> 0 ->> 3 as bigint), value ->> 1, value ->> 2, \
         cast(value ->> 3 as bigint), cast(value ->> 4 as bigint), \
         cast(value ->> 4 as bigint), value ->> 5 from jsonb_each($1) where true \
         on conflict (id) do update set status = excluded.status, cause = excluded.cause, \
         attempts = excluded.attempts, changed_at = excluded.changed_at",
    )
    .bind(serde_json::to_string(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_status(
    connection: &mut Connection,
    status: DeadLetterStatus,
    ids: &[String],
    now: Timestamp,
) -> Result<(), StoreError> {
    sql::query(
        "update dead_letters set status = $1, changed_at = $2 \
         where id in (select atom from jsonb_each($3))",
    )
    .bind(status.as_str())
    .bind(now.0)
    .bind(serde_json::to_string(ids)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Settles a parked message as an operator says; what waits behind it is tried again.
pub(crate) async fn settle(
    connection: &mut Connection,
    id: &str,
    status: DeadLetterStatus,
    now: Timestamp,
) -> Result<Settled, StoreError> {
    let found: Option<(String, String)> =
        sql::query("select lane, status from dead_letters where id = $1")
            .bind(id.to_owned())
            .fetch_optional(connection)
            .await?;
    let Some((lane, present)) = found else {
        return Ok(Settled::Unknown);
    };
    if present != DeadLetterStatus::Parked.as_str() {
        return Ok(Settled::NotParked);
    }
    set_status(connection, status, &[id.to_owned()], now).await?;
    sql::query(
        "update dead_letters set status = 'retrying', changed_at = $1 \
         where lane = $2 and status = 'waiting'",
    )
    .bind(now.0)
    .bind(lane)
    .execute(connection)
    .await?;
    Ok(Settled::Done)
}

/// A page of dead letters by id, of one status or of all.
pub(crate) async fn list(
    database: &Database,
    status: Option<DeadLetterStatus>,
    after: &str,
    limit: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    type Row = (String, String, String, String, i64, String, i64, i64);
    let mut reader = database.reader().await?;
    let rows: Vec<Row> = sql::query(
        "select id, lane, status, kind, position, cause, attempts, parked_at from dead_letters \
         where id > $1 and ($2 = '' or status = $2) order by id limit $3",
    )
    .bind(after.to_owned())
    .bind(status.map_or("", DeadLetterStatus::as_str))
    .bind(limit_to_bind(limit))
    .fetch_all(&mut reader)
    .await?;
    reader.give_back();
    let read = |(id, lane, status, kind, position, cause, attempts, parked_at): Row| {
        let status = status.parse().map_err(|error: String| sql::Error::bad_value(error))?;
        let (position, parked_at) = (Position(position), Timestamp(parked_at));
        Ok(DeadLetter { id, lane, status, kind, position, cause, attempts, parked_at })
    };
    rows.into_iter().map(read).collect()
}

/// How many there are of each status that wants attention, none too.
pub(crate) async fn counts(
    database: &Database,
) -> Result<Vec<(DeadLetterStatus, i64)>, StoreError> {
    let mut reader = database.reader().await?;
    // The condition is that of the index, so that those that are settled cost nothing.
    let found: Vec<(String, i64)> = sql::query(
        "select status, count(*) from dead_letters \
         where status in ('parked', 'waiting', 'retrying') group by status",
    )
    .fetch_all(&mut reader)
    .await?;
    reader.give_back();
    let count = |status: DeadLetterStatus| {
        let found = found.iter().find(|(found, _)| found == status.as_str());
        (status, found.map_or(0, |(_, count)| *count))
    };
    let open = [DeadLetterStatus::Parked, DeadLetterStatus::Waiting, DeadLetterStatus::Retrying];
    Ok(open.map(count).into())
}

/// Counts the first attempt at each of these messages, in a transaction of its own, before it runs;
/// whether it is the first for all, without which nothing is counted.
pub(crate) async fn count_first_attempts(
    connection: &mut Connection,
    message_ids: &[String],
) -> Result<bool, StoreError> {
    let ids = serde_json::to_string(message_ids)?;
    let counted: i64 = sql::query(
        "select count(*) from attempts where message_id in (select atom from jsonb_each($1))",
    )
    .bind(ids.clone())
    .fetch_one(connection)
    .await?;
    if counted > 0 {
        return Ok(false);
    }
    sql::query("insert into attempts (message_id, number) select atom, 1 from jsonb_each($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(true)
}

/// Counts an attempt at a message, in a transaction of its own, before it runs.
pub(crate) async fn count_attempt(
    connection: &mut Connection,
    message_id: &str,
) -> Result<i64, StoreError> {
    Ok(sql::query(
        "insert into attempts (message_id, number) values ($1, 1) \
         on conflict (message_id) do update set number = attempts.number + 1 returning number",
    )
    .bind(message_id.to_owned())
    .fetch_one(connection)
    .await?)
}
