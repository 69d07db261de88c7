//! How many rows a service's tables have of each kind. That reads an index from end to end, so it
//! is done now and then only, and by one reader at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tracing::warn;

use crate::clock::Timestamp;
use crate::core::Core;
use crate::database::Database;
use crate::error::StoreError;
use crate::limits;
use crate::row::Evolve;
use crate::service::Service;
use crate::sql;
use crate::tables::{Table, Tables as _, Visitor};

/// The rows of one table by the value of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowCounts {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Every value that the column may have, with how many rows have it.
    pub rows: Vec<(&'static str, i64)>,
}

/// The newest counts of a service's tables.
#[derive(Debug)]
pub(crate) struct Counts {
    newest: watch::Sender<Newest>,
    counting: Arc<Semaphore>,
}

/// What the last count came to, and when the next one may begin.
#[derive(Clone, Debug, Default)]
struct Newest {
    counts: Option<Arc<[RowCounts]>>,
    began: Timestamp,
    good_for: Duration,
}

impl Default for Counts {
    fn default() -> Self {
        let newest = watch::Sender::new(Newest::default());
        Self { newest, counting: Arc::new(Semaphore::new(1)) }
    }
}

/// The counts of a service's tables; nothing if they could not be had. They are at most
/// [`limits::COUNTS_KEPT`] old, older only where counting takes so long that it would be felt.
///
/// The counting goes on where its caller has no more patience: the next one finds it done.
pub(crate) async fn counts<S: Service>(core: &Arc<Core<S>>) -> Option<Arc<[RowCounts]>> {
    let mut told = core.counts.newest.subscribe();
    let known = told.borrow_and_update().clone();
    if !known.began.is_long_ago(known.good_for, core.clock.now()) {
        return known.counts;
    }
    if let Ok(permit) = Arc::clone(&core.counts.counting).try_acquire_owned() {
        let core = Arc::clone(core);
        tokio::spawn(async move {
            let began = core.clock.now();
            let counted = count::<S>(&core.database).await.inspect_err(|error| {
                warn!(service = S::NAME, %error, "the rows could not be counted");
            });
            // What failed at once is tried at once: the database may be back.
            let least = if counted.is_ok() { limits::COUNTS_KEPT } else { Duration::ZERO };
            let took = core.clock.now().since(began);
            let good_for = least.max(took * limits::COUNTING_PAUSE);
            core.counts.newest.send_replace(Newest { counts: counted.ok(), began, good_for });
            drop(permit);
        });
    }
    told.changed().await.ok()?;
    told.borrow().counts.clone()
}

async fn count<S: Service>(database: &Database) -> Result<Arc<[RowCounts]>, StoreError> {
    let mut count = Count { database, counted: Vec::new() };
    S::Tables::default().visit(&mut count).await?;
    Ok(count.counted.into())
}

/// Counts the rows of the tables that say by which column.
struct Count<'a> {
    database: &'a Database,
    counted: Vec<RowCounts>,
}

impl Visitor for Count<'_> {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, _: &mut Table<R>) -> Result<(), StoreError> {
        let Some(counted) = R::COUNTED else { return Ok(()) };
        let mut reader = self.database.reader().await?;
        let found: Vec<(String, i64)> = sql::query(counted.sql).fetch_all(&mut reader).await?;
        reader.give_back();
        let of = |value: &&'static str| {
            let found = found.iter().find(|(found, _)| found == value);
            (*value, found.map_or(0, |(_, count)| *count))
        };
        let rows = counted.values.iter().map(of).collect();
        self.counted.push(RowCounts { table: R::TABLE, column: counted.column, rows });
        Ok(())
    }
}
