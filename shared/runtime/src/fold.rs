//! The proof: every table is the fold of its outbox, and the event store is the outboxes.
//!
//! [`rebuild`] makes a service's tables anew from its outbox; [`verify()`] folds the outbox and compares
//! it with the tables and with the event store; [`rewind`] sends a consumer back to the beginning.

mod compare;
mod verify;

pub use verify::{Difference, EventStoreSnapshot, Finding, verify};

use std::collections::BTreeMap;

use crate::checkpoint::{self, Checkpoint};
use crate::clock::Clock;
use crate::database::{Database, Location, OpenError, Turn};
use crate::error::StoreError;
use crate::event::{Envelope, Event, Position, Recorded};
use crate::event_store::Anchor;
use crate::failpoints::CommitPoint;
use crate::limits;
use crate::migrate::{self, Migrations};
use crate::outbox::{self, OutboxEvent};
use crate::rows::{self, Clear, Save};
use crate::service::{Service, TimerChange};
use crate::tables::Tables;
use crate::timers::{self, StoredTimer};
use crate::writes::Writes;

/// Told how many events of how many are done.
pub type OnProgress<'a> = &'a (dyn Fn(i64, i64) + Send + Sync);

/// Makes a service's tables and timers anew from its outbox, in one transaction; how many events.
///
/// The service's turn is held throughout: a writer that runs meanwhile waits, or answers 503. A new
/// checkpoint at the old place tells it to load the rows that it has in memory anew.
pub async fn rebuild<S: Service>(
    location: &Location,
    clock: &Clock,
    progress: OnProgress<'_>,
) -> Result<i64, OpenError> {
    let database = open::<S>(location).await?;
    let mut turn = database.take_turn(CommitPoint::Rebuild).await?;
    S::Tables::default().visit(&mut Clear(&mut turn)).await?;
    timers::clear(&mut turn).await?;
    let total = outbox::head(&mut turn).await?;
    // Nobody adds to the outbox while the turn is held, so what follows is read beside what is
    // written.
    let mut reader = database.reader().await.map_err(StoreError::from)?;
    let mut position = Position(0);
    let mut page = outbox::page(&mut reader, S::NAME, Position(1), limits::FOLD_PAGE).await?;
    while let Some(last) = page.last() {
        position = last.position;
        let next = outbox::page(&mut reader, S::NAME, position.next(), limits::FOLD_PAGE);
        page = tokio::try_join!(next, replay::<S>(&mut turn, &page))?.0;
        progress(position.0, total.0);
    }
    reader.give_back();
    let newest = checkpoint::newest(&mut turn).await?;
    let same = Checkpoint { sequence: newest.sequence + 1, ..newest };
    let mut writes = Writes::default();
    checkpoint::insert(&mut writes, &same, clock.now())?;
    turn.commit(writes.into_statements()).await.map_err(StoreError::from)?;
    database.close().await;
    Ok(position.0)
}

/// Folds a page into the tables and timers.
async fn replay<S: Service>(turn: &mut Turn, page: &[OutboxEvent]) -> Result<(), StoreError> {
    let mut tables = S::Tables::default();
    let mut fold = TimerFold::default();
    let events = page.iter().map(decode::<S>).collect::<Result<Vec<_>, _>>()?;
    for event in &events {
        tables.want_changed(event);
    }
    rows::load(&mut tables, turn).await?;
    for (event, stored) in events.iter().zip(page) {
        tables.evolve(&recorded(event, stored));
        fold.take::<S>(event, &stored.envelope)?;
    }
    let mut writes = Writes::default();
    tables.visit(&mut Save { writes: &mut writes, changed: Vec::new() }).await?;
    timers::change(&mut writes, &fold.0);
    turn.run(writes.into_statements()).await?;
    Ok(())
}

/// Sends a service's consumer back to the beginning of the event store.
///
/// What it has handled of each source stays marked and is skipped, so nothing is done twice.
pub async fn rewind<S: Service>(location: &Location, clock: &Clock) -> Result<(), OpenError> {
    let database = open::<S>(location).await?;
    let mut turn = database.take_turn(CommitPoint::Rewind).await?;
    let newest = checkpoint::newest(&mut turn).await?;
    let sequence = newest.sequence + 1;
    let again = Checkpoint { sequence, anchor: Anchor::default(), sources: newest.sources };
    let mut writes = Writes::default();
    checkpoint::insert(&mut writes, &again, clock.now())?;
    turn.commit(writes.into_statements()).await.map_err(StoreError::from)?;
    database.close().await;
    Ok(())
}

async fn open<S: Service>(location: &Location) -> Result<Database, OpenError> {
    let migrations = |dialect| migrate::of_service(dialect, S::MIGRATIONS, S::POSTGRES_MIGRATIONS);
    Database::open(location, S::NAME, migrations, Migrations::Check).await
}

fn decode<S: Service>(stored: &OutboxEvent) -> Result<S::Event, StoreError> {
    let Envelope { kind, schema, data, .. } = &*stored.envelope;
    let position = stored.position;
    S::Event::decode(kind, *schema, data)
        .map_err(|cause| StoreError::Undecodable { position, cause })
}

fn recorded<'a, E>(event: &'a E, stored: &OutboxEvent) -> Recorded<'a, E> {
    Recorded { id: stored.envelope.id, time: stored.envelope.time, event }
}

/// The timers that a stretch of events leaves set or cleared.
#[derive(Debug, Default)]
struct TimerFold(BTreeMap<String, Option<StoredTimer>>);

impl TimerFold {
    fn take<S: Service>(
        &mut self,
        event: &S::Event,
        envelope: &Envelope,
    ) -> Result<(), StoreError> {
        for change in S::timers(event) {
            match change {
                TimerChange::Clear { key } => self.0.insert(key, None),
                TimerChange::Set { key, due_at, timer } => {
                    let stored = StoredTimer {
                        key: key.clone(),
                        due_at,
                        payload: serde_json::to_string(&timer)?,
                        event_id: envelope.id.to_string(),
                        correlation: envelope.correlation.clone(),
                        traceparent: envelope.traceparent.clone(),
                    };
                    self.0.insert(key, Some(stored))
                }
            };
        }
        Ok(())
    }
}
