//! The connections of one owner to its database, each lent to one user at a time.
//!
//! Everything that a connection is waited for has a limit, at its end the place is free whatever became
//! of it, and a connection that comes back from a transaction that ended is asked nothing. A pool that
//! asks each connection that comes back for a sign of life, without a limit, loses a place for each that
//! falls silent at that moment while nobody says that it is broken.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::limits;
use crate::sql::{Answered, Connection, Error, Statement, Target, plain};

/// Which connections there are.
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: Target,
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
type Shared = Arc<tokio::sync::Mutex<Connection>>;

impl Connections {
    pub(crate) fn new(plan: Plan) -> Self {
        let places = Arc::new(Semaphore::new(plan.size.into()));
        Self(Arc::new(Pool { plan, places, idle: Mutex::new(Some(Vec::new())) }))
    }

    /// Lends a connection that works, as far as can be told.
    pub(crate) async fn acquire(&self) -> Result<Lent, Error> {
        let lent = timeout(limits::ACQUIRE, self.lend()).await;
        lent.unwrap_or(Err(Error::NoneFree))
    }

    /// Connects once, without waiting for a server that is starting, and takes leave.
    pub(crate) async fn try_once(&self) -> Result<(), Error> {
        self.0.plan.target.connect().await?.close().await;
        Ok(())
    }

    /// Lends a connection and begins a transaction on it: by these statements, which are sent together,
    /// and whose answers come along.
    pub(crate) async fn begin(
        &self,
        statements: Vec<Statement>,
    ) -> Result<(Transaction, Vec<Answered>), Error> {
        let mut lent = self.acquire().await?;
        // Given up or refused half-way, it may have begun.
        lent.doubt = Some(Doubt::InTransaction);
        let answers = lent.run(statements).await?;
        Ok((Transaction(lent), answers))
    }

    /// Lends a connection for a whole transaction, whose statements are sent together. If it fails, it
    /// may have been committed all the same.
    pub(crate) async fn transact(
        &self,
        mut statements: Vec<Statement>,
    ) -> Result<Vec<Answered>, Error> {
        let mut lent = self.acquire().await?;
        lent.doubt = Some(Doubt::InTransaction);
        statements.push(plain("commit"));
        let answers = lent.run(statements).await?;
        lent.give_back();
        Ok(answers)
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

    async fn lend(&self) -> Result<Lent, Error> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| Error::Closed)?;
        let connection = match self.take_idle().await {
            Some(connection) => connection,
            None => Arc::new(tokio::sync::Mutex::new(self.connect().await?)).lock_owned().await,
        };
        Ok(Lent { connection, doubt: Some(Doubt::Used), home: self.clone(), place: Some(place) })
    }

    async fn take_idle(&self) -> Option<OwnedMutexGuard<Connection>> {
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
    async fn connect(&self) -> Result<Connection, Error> {
        let mut pause = limits::BACKOFF_FIRST;
        loop {
            match self.0.plan.target.connect().await {
                Ok(mut connection) => {
                    match plain(self.0.plan.settings.clone()).execute(&mut connection).await {
                        Ok(_) => return Ok(connection),
                        Err(error) => warn!(%error, "a new connection does not take its settings"),
                    }
                }
                Err(error) if error.is_starting() => {}
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
                Doubt::InTransaction => plain("rollback").execute(&mut locked).await.is_ok(),
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

async fn close(connection: Shared) {
    if let Some(connection) = Arc::into_inner(connection) {
        // Whether it takes leave or not, it is gone.
        connection.into_inner().close().await;
    }
}

/// Why a lent connection may not be fit for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Something may be under way on it.
    Used,
    /// A transaction may be open on it.
    InTransaction,
}

/// A connection that was lent. Dropped, it is asked whether it may be lent again, without anybody
/// waiting for that.
#[derive(Debug)]
pub(crate) struct Lent {
    // In this order: whoever gets the place finds the connection unlocked.
    connection: OwnedMutexGuard<Connection>,
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
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
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
    /// Commits everything that was written, and what these statements write before.
    pub(crate) async fn commit(self, statements: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        self.end(statements, "commit").await
    }

    /// Takes everything back that was written.
    pub(crate) async fn rollback(self) -> Result<(), Error> {
        self.end(Vec::new(), "rollback").await.map(drop)
    }

    async fn end(
        mut self,
        mut statements: Vec<Statement>,
        end: &'static str,
    ) -> Result<Vec<Answered>, Error> {
        statements.push(plain(end));
        let answers = self.0.run(statements).await?;
        self.0.give_back();
        Ok(answers)
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

#[cfg(test)]
mod tests;
