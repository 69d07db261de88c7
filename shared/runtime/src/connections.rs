//! The connections of one owner to its database, each lent to one user at a time.
//!
//! Not sqlx's pool, which asks each connection that comes back for a sign of life, without a limit:
//! one that falls silent at that moment, while nobody says that it is broken, keeps its place until
//! the process ends; after a few of those nobody gets a connection any more. Here everything that a
//! connection is waited for has a limit, at its end the place is free whatever became of it, and a
//! connection that comes back from a transaction that ended is asked nothing.

use std::fmt;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::limits;

/// Which connections there are.
pub(crate) struct Plan {
    /// Where to.
    pub(crate) options: AnyConnectOptions,
    /// What each sets first.
    pub(crate) settings: String,
    /// How many at most.
    pub(crate) size: u16,
    /// After how long that nobody used one it is asked for a sign of life before it is lent.
    pub(crate) trusted: Duration,
    /// After how long that nobody used one it is closed.
    pub(crate) kept: Duration,
}

/// Lends connections, and opens them as they are needed.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Pool>);

struct Pool {
    plan: Plan,
    places: Arc<Semaphore>,
    /// Those that nobody uses, the one used last at the end; nothing once all is closed.
    idle: Mutex<Option<Vec<Idle>>>,
}

struct Idle {
    connection: Shared,
    since: Instant,
}

/// Only one at a time ever uses it. But what is being dropped cannot be moved elsewhere, only shared.
type Shared = Arc<tokio::sync::Mutex<AnyConnection>>;

impl Connections {
    pub(crate) fn new(plan: Plan) -> Self {
        let places = Arc::new(Semaphore::new(plan.size.into()));
        Self(Arc::new(Pool { plan, places, idle: Mutex::new(Some(Vec::new())) }))
    }

    /// Lends a connection that works, as far as can be told.
    pub(crate) async fn acquire(&self) -> Result<Lent, sqlx::Error> {
        let lent = timeout(limits::ACQUIRE, self.lend()).await;
        lent.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Lends a connection and begins a transaction on it, by this statement.
    pub(crate) async fn begin(&self, statement: &'static str) -> Result<Transaction, sqlx::Error> {
        let mut lent = self.acquire().await?;
        // Given up or refused half-way, it may have begun.
        lent.doubt = Some(Doubt::InTransaction);
        sqlx::raw_sql(statement).execute(&mut *lent).await?;
        Ok(Transaction(lent))
    }

    /// Waits until what is lent has come back, for a while, and closes everything.
    pub(crate) async fn close(&self) {
        let everyone = self.0.places.acquire_many(self.0.plan.size.into());
        // A read that nobody waits for any more may hold one; nothing is lost with it.
        drop(timeout(limits::CLOSE, everyone).await);
        self.0.places.close();
        let idle = self.idle().take();
        let closing = async {
            // One after the other: only the last one at a SQLite file puts the log into it.
            for Idle { connection, .. } in idle.into_iter().flatten() {
                close(connection).await;
            }
        };
        drop(timeout(limits::RELEASE, closing).await);
    }

    async fn lend(&self) -> Result<Lent, sqlx::Error> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let connection = match self.take_idle().await {
            Some(connection) => connection,
            None => Arc::new(tokio::sync::Mutex::new(self.connect().await?)).lock_owned().await,
        };
        Ok(Lent { connection, doubt: Some(Doubt::Used), home: self.clone(), place: Some(place) })
    }

    async fn take_idle(&self) -> Option<OwnedMutexGuard<AnyConnection>> {
        let Idle { connection, since } = self.idle().as_mut()?.pop()?;
        let mut connection = connection.lock_owned().await;
        if since.elapsed() < self.0.plan.trusted {
            return Some(connection);
        }
        let alive = timeout(limits::PROBE, connection.ping()).await;
        if matches!(alive, Ok(Ok(()))) {
            return Some(connection);
        }
        // Whatever ended it, such as a server that was restarted, ended those too that were there.
        if let Some(idle) = self.idle().as_mut() {
            idle.retain(|other| other.since > since);
        }
        None
    }

    /// Opens a connection; while the server is still starting, again and again.
    async fn connect(&self) -> Result<AnyConnection, sqlx::Error> {
        let mut pause = limits::BACKOFF_FIRST;
        loop {
            match self.0.plan.options.connect().await {
                Ok(mut connection) => {
                    // Put together from the texts of this crate only.
                    let settings = AssertSqlSafe(self.0.plan.settings.clone());
                    match sqlx::raw_sql(settings).execute(&mut connection).await {
                        Ok(_) => return Ok(connection),
                        Err(error) => warn!(%error, "a new connection does not take its settings"),
                    }
                }
                Err(error) if is_starting(&error) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::BACKOFF_LONGEST);
        }
    }

    /// Makes sure that nothing is left on a connection of what it was used for, or closes it.
    async fn take_back(&self, connection: Shared, doubt: Doubt) {
        let checking = async {
            let mut locked = connection.lock().await;
            let fit = match doubt {
                Doubt::Used => locked.ping().await.is_ok(),
                // Refused where SQLite itself took it back, for want of room.
                Doubt::InTransaction => {
                    sqlx::raw_sql("rollback").execute(&mut *locked).await.is_ok()
                }
                Doubt::Spent => false,
            };
            drop(locked);
            if fit { self.keep(connection) } else { close(connection).await }
        };
        if timeout(limits::RELEASE, checking).await.is_err() {
            debug!("a connection did not answer when it was given back, and is dropped");
        }
    }

    fn keep(&self, connection: Shared) {
        let kept = self.0.plan.kept;
        if let Some(idle) = self.idle().as_mut() {
            idle.retain(|other| other.since.elapsed() < kept);
            idle.push(Idle { connection, since: now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Idle>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold a password.
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a connection lay idle changes nothing but whether it is asked"
)]
fn now() -> Instant {
    Instant::now()
}

/// Whether nobody could connect just now, to a server that may be there in a moment.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        // Postgres: `too_many_connections` (one that was closed may count still) and
        // `cannot_connect_now`.
        sqlx::Error::Database(refused) => {
            matches!(refused.code().as_deref(), Some("53300" | "57P03"))
        }
        _ => false,
    }
}

async fn close(connection: Shared) {
    if let Some(connection) = Arc::into_inner(connection) {
        // Whether it takes leave or not, it is gone.
        drop(connection.into_inner().close().await);
    }
}

/// Why a lent connection may not be fit for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Something may be under way on it.
    Used,
    /// A transaction may be open on it.
    InTransaction,
    /// It is not fit for others any more.
    Spent,
}

/// A connection that was lent. Dropped, it is asked whether it may be lent again, without anybody
/// waiting for that.
#[derive(Debug)]
pub(crate) struct Lent {
    // In this order: whoever gets the place finds the connection unlocked.
    connection: OwnedMutexGuard<AnyConnection>,
    /// Nothing once it is known to be fit.
    doubt: Option<Doubt>,
    home: Connections,
    place: Option<OwnedSemaphorePermit>,
}

impl Lent {
    /// Gives it back after everything that was asked of it was answered. It may be lent again at once.
    pub(crate) fn give_back(mut self) {
        self.doubt = None;
    }

    /// It will be closed when it comes back.
    pub(crate) fn spend(&mut self) {
        self.doubt = Some(Doubt::Spent);
    }
}

impl Deref for Lent {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = Arc::clone(OwnedMutexGuard::mutex(&self.connection));
        let home = self.home.clone();
        let Some(doubt) = self.doubt else {
            home.keep(connection);
            return;
        };
        // Without a runtime nobody could ask it anything: it ends here.
        if let Ok(runtime) = Handle::try_current() {
            let place = self.place.take();
            runtime.spawn(async move {
                home.take_back(connection, doubt).await;
                drop(place);
            });
        }
    }
}

/// A transaction on a connection of its own. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Transaction(Lent);

impl Transaction {
    /// Commits everything that was written.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    /// Takes everything back that was written.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(&mut *self.0).await?;
        self.0.give_back();
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.0
    }
}

#[cfg(test)]
mod tests;
