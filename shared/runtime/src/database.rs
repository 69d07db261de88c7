//! An owner's database, and the one home of what differs between SQLite and Postgres:
//! how it is found and opened, its session settings, the turn, snapshots, and the checks at start.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _};

use crate::connections::{Connections, Lent, Plan, Transaction};
use crate::error::StoreError;
use crate::failpoints::{CommitPoint, Moment, Place};
use crate::limits;
use crate::migrate::{self, Migration, Migrations, SchemaError};
use crate::sql::{self, Answered, Connection, Error, File, Server, Statement, Target};

/// Where owners keep their tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file per owner in this folder. For one process at a time.
    Folder(PathBuf),
    /// A schema per owner in this Postgres database.
    Postgres(String),
}

/// Which of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite, linked in.
    Sqlite,
    /// A Postgres server.
    Postgres,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address of the database cannot be read.
    #[error(
        "{given:?} is not the address of a Postgres database, such as postgres://user@host/name"
    )]
    BadAddress {
        /// What was given.
        given: String,
    },
    /// The folder cannot be made or used.
    #[error("the data folder {} cannot be used: {cause}", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Another process has it.
    #[error("the data folder {} is in use by another process", folder.display())]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// There is nothing in the folder.
    #[error("there is no Waybill data in {}", folder.display())]
    NoData {
        /// Which folder.
        folder: PathBuf,
    },
    /// The server cannot be reached, or refuses.
    #[error("the database of {owner} cannot be opened: {cause}")]
    Unreachable {
        /// Whose database.
        owner: &'static str,
        /// Why.
        cause: Error,
    },
    /// A setting would lose answered commits.
    #[error(
        "the database server has {setting} = {value}, with which it can lose commits that were \
         answered; set {setting} = on"
    )]
    NotDurable {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        value: String,
    },
    /// The SQLite in this build can corrupt its files.
    #[error("this build links SQLite {found}; {least} or later is needed")]
    OldSqlite {
        /// The version linked.
        found: String,
        /// The first one without the defect.
        least: &'static str,
    },
    /// The tables are not those of this build.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Its contents cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first SQLite without the WAL-reset defect (<https://www.sqlite.org/wal.html#walresetbug>).
pub const LEAST_SQLITE: &str = "3.51.3";

/// What every connection to SQLite sets. An answered commit is on disk: in WAL mode only `full`
/// syncs the log at every commit.
///
/// A page that many units write goes from the log into the file once for 16 MB of log, in place of 4.
const SQLITE_SETTINGS: &str = "pragma busy_timeout = 5000; pragma journal_mode = wal; \
     pragma wal_autocheckpoint = 4000; pragma synchronous = full; pragma foreign_keys = on; \
     pragma temp_store = memory";

/// One owner's database: a service's, or the event store's.
#[derive(Clone, Debug)]
pub struct Database {
    owner: &'static str,
    dialect: Dialect,
    write: Connections,
    /// For loops: what is new or came due.
    follow: Connections,
    /// For requests, counts and folds; of the event store also for what loops look at now and then.
    read: Connections,
    /// For migrations, which sqlx applies.
    migrating: AnyConnectOptions,
}

/// A transaction that holds its owner's turn. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Turn {
    transaction: Transaction,
    place: Place,
}

impl Turn {
    /// Commits everything that was written, and what these statements write before. Their answers.
    pub(crate) async fn commit(self, writes: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        self.place.reach(Moment::Before).await?;
        let answers = self.transaction.commit(writes).await?;
        self.place.reach(Moment::After).await?;
        Ok(answers)
    }

    /// Takes everything back that was written.
    pub(crate) async fn rollback(self) -> Result<(), Error> {
        self.transaction.rollback().await
    }
}

impl Deref for Turn {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.transaction
    }
}

impl Database {
    /// Opens an owner's database, creating it where it may, and checks it.
    pub(crate) async fn open(
        location: &Location,
        owner: &'static str,
        migrations: impl FnOnce(Dialect) -> Vec<Migration>,
        mode: Migrations,
    ) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let database = match location {
            Location::Folder(folder) => Self::sqlite(folder, owner, mode)?,
            Location::Postgres(url) => {
                let database = Self::postgres(url, owner)?;
                // Who is lent one hears only that time ran out while the server is away.
                let once = tokio::time::timeout(limits::ACQUIRE, database.write.try_once()).await;
                let once = once.unwrap_or(Err(Error::NoneFree));
                once.map_err(|cause| OpenError::Unreachable { owner, cause })?;
                database
            }
        };
        let mode = database.check(mode).await?;
        migrate::migrate(&database, owner, &migrations(database.dialect), mode).await?;
        Ok(database)
    }

    /// Which of the two databases it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A connection for reading. Never to be asked for while another one is held, or those who
    /// wait for their second one would wait for each other.
    pub(crate) async fn reader(&self) -> Result<Lent, Error> {
        self.read.acquire().await
    }

    /// A connection for a loop that reads the next stretch of a log, or what came due, and that looks again
    /// anyway if the connection was cut. As [`Database::reader`], never asked for while another one is held.
    pub(crate) async fn follower(&self) -> Result<Lent, Error> {
        self.follow.acquire().await
    }

    /// Begins a unit of work: from here to its commit nobody else writes for this owner.
    pub(crate) async fn take_turn(&self, point: CommitPoint) -> Result<Turn, StoreError> {
        Ok(self.take_turn_and(point, Vec::new()).await?.0)
    }

    /// The same, and reads what is to be known under the turn, in the same round trip.
    pub(crate) async fn take_turn_and(
        &self,
        point: CommitPoint,
        read: Vec<Statement>,
    ) -> Result<(Turn, Vec<Answered>), StoreError> {
        let place = Place::of(self.owner, point);
        place.reach(Moment::Turn).await?;
        let mut statements = self.taking_turn();
        let taken = statements.len();
        statements.extend(read);
        let (transaction, mut answers) = self.begin_by(statements).await?;
        let read = answers.split_off(taken);
        Ok((Turn { transaction, place }, read))
    }

    /// Takes a turn, writes and commits in one round trip, where nothing is to be known before. If it
    /// fails, it may have been committed all the same.
    pub(crate) async fn write_at_once(
        &self,
        point: CommitPoint,
        writes: Vec<Statement>,
    ) -> Result<Vec<Answered>, Error> {
        let place = Place::of(self.owner, point);
        place.reach(Moment::Turn).await?;
        place.reach(Moment::Before).await?;
        let mut statements = self.taking_turn();
        let taken = statements.len();
        statements.extend(writes);
        let mut answers = self.write.transact(statements).await?;
        place.reach(Moment::After).await?;
        Ok(answers.split_off(taken))
    }

    /// On Postgres the row is locked and not changed. On SQLite the transaction begins as a writer,
    /// so that it never has to become one half-way, which fails at once if another wrote since.
    fn taking_turn(&self) -> Vec<Statement> {
        match self.dialect {
            Dialect::Sqlite => vec![sql::plain("begin immediate")],
            Dialect::Postgres => {
                vec![sql::plain("begin"), sql::query("select owner from turn for update")]
            }
        }
    }

    /// A connection that may write, for what needs no turn.
    pub(crate) async fn connect(&self) -> Result<Lent, Error> {
        self.write.acquire().await
    }

    /// A connection of sqlx's, which applies migrations.
    pub(crate) async fn connect_to_migrate(&self) -> Result<AnyConnection, sqlx::Error> {
        let mut connection = self.migrating.connect().await?;
        let settings = match self.dialect {
            Dialect::Sqlite => SQLITE_SETTINGS.to_owned(),
            // Whoever waits for a table to itself makes all who use the table wait behind it, so it
            // waits for less time than they do.
            Dialect::Postgres => format!("{}; set lock_timeout = '2s'", session(self.owner)),
        };
        // Put together from the texts of this crate only.
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Begins a transaction on a connection that is alive. All of them may have been cut since they
    /// were used; nothing was asked of them yet, so there is no harm in trying again.
    pub(crate) async fn begin(&self) -> Result<Transaction, Error> {
        Ok(self.begin_by(vec![sql::plain("begin")]).await?.0)
    }

    async fn begin_by(
        &self,
        statements: Vec<Statement>,
    ) -> Result<(Transaction, Vec<Answered>), Error> {
        for _ in 0..limits::WRITE_CONNECTIONS {
            match self.write.begin(statements.clone()).await {
                Err(cut) if cut.was_cut() => {}
                other => return other,
            }
        }
        self.write.begin(statements).await
    }

    /// Begins a transaction that sees one moment throughout, and writes nothing.
    pub(crate) async fn snapshot(&self) -> Result<Transaction, StoreError> {
        let begin = match self.dialect {
            Dialect::Sqlite => "begin",
            Dialect::Postgres => "begin isolation level repeatable read read only",
        };
        let mut statements = vec![sql::plain(begin)];
        if self.dialect == Dialect::Postgres {
            // The limits of a request do not fit a walk over the whole history.
            statements.push(sql::plain(
                "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0",
            ));
        }
        // SQLite takes its snapshot at the first read.
        statements.push(sql::query("select count(*) from turn"));
        Ok(self.read.begin(statements).await?.0)
    }

    /// Closes every connection, after waiting a moment for those that are in use.
    pub async fn close(&self) {
        self.read.close().await;
        self.follow.close().await;
        self.write.close().await;
    }

    fn sqlite(folder: &Path, owner: &'static str, mode: Migrations) -> Result<Self, OpenError> {
        let file = folder.join(format!("{owner}.db"));
        if mode == Migrations::Check && !file.exists() {
            return Err(OpenError::NoData { folder: folder.to_owned() });
        }
        let url =
            SqliteConnectOptions::new().filename(&file).create_if_missing(true).to_url_lossy();
        let migrating = AnyConnectOptions::from_url(&url)
            .map_err(|cause| OpenError::Unreachable { owner, cause: cause.into() })?;
        let lending = |size| {
            let (target, settings) =
                (Target::Sqlite(File(file.clone())), SQLITE_SETTINGS.to_owned());
            // Nobody else can end a connection to a file.
            let (trusted, kept) = (Duration::MAX, Duration::MAX);
            Connections::new(Plan { target, settings, size, trusted, kept })
        };
        Ok(Self {
            owner,
            dialect: Dialect::Sqlite,
            write: lending(1),
            follow: lending(limits::FOLLOW_CONNECTIONS),
            read: lending(limits::READ_CONNECTIONS),
            migrating,
        })
    }

    fn postgres(url: &str, owner: &'static str) -> Result<Self, OpenError> {
        let bad = || OpenError::BadAddress { given: url.to_owned() };
        let options: AnyConnectOptions = url.parse().map_err(|_| bad())?;
        if !matches!(options.database_url.scheme(), "postgres" | "postgresql") {
            return Err(bad());
        }
        let server =
            Server::at(&options).map_err(|cause| OpenError::Unreachable { owner, cause })?;
        let session = session(owner);
        // Statements are prepared while tables are empty; the plans of that moment, scans and
        // hashes of whole tables, would stay. Loops look rows up by key, always.
        let by_key = format!(
            "{session}; set enable_seqscan = off; set enable_hashjoin = off; \
             set enable_mergejoin = off"
        );
        let following = format!("{by_key}; set statement_timeout = '10s'");
        // Readers filter by what the request says, which a plan for all requests cannot know. All they
        // ever commit is a notification, which is no worse for being lost.
        let reading = format!(
            "{session}; set plan_cache_mode = force_custom_plan; set statement_timeout = '10s'; \
             set default_transaction_read_only = on; set synchronous_commit = off"
        );
        let lending = |size, trusted, settings| {
            let (target, kept) = (Target::Postgres(server.clone()), limits::IDLE_KEPT);
            Connections::new(Plan { target, settings, size, trusted, kept })
        };
        Ok(Self {
            owner,
            dialect: Dialect::Postgres,
            // Who takes a turn begins anew on another connection if this one was cut, and who follows a
            // log looks again; a request has one try.
            write: lending(limits::WRITE_CONNECTIONS, limits::IDLE_TRUSTED, by_key.clone()),
            follow: lending(limits::FOLLOW_CONNECTIONS, limits::IDLE_TRUSTED, following),
            read: lending(limits::READ_CONNECTIONS, Duration::ZERO, reading),
            migrating: options,
        })
    }

    /// Refuses a database that would lose answered commits, and makes the schema on Postgres;
    /// whether migrations may be applied there.
    async fn check(&self, mode: Migrations) -> Result<Migrations, OpenError> {
        let unreachable = |cause| OpenError::Unreachable { owner: self.owner, cause };
        let mut connection = self.connect().await.map_err(unreachable)?;
        match self.dialect {
            Dialect::Sqlite => {
                let version: String = sql::query("select sqlite_version()")
                    .fetch_one(&mut connection)
                    .await
                    .map_err(unreachable)?;
                check_sqlite_version(&version)?;
                Ok(mode)
            }
            Dialect::Postgres => {
                let mut row: sql::Row = sql::query(
                    "select current_setting('fsync'), current_setting('full_page_writes'), \
                     current_setting('synchronous_commit')",
                )
                .fetch_one(&mut connection)
                .await
                .map_err(unreachable)?;
                for (index, setting) in
                    ["fsync", "full_page_writes", "synchronous_commit"].into_iter().enumerate()
                {
                    let value: String = row.get(index).map_err(unreachable)?;
                    if value == "off" {
                        return Err(OpenError::NotDurable { setting, value });
                    }
                }
                let allowed = mode == Migrations::Apply
                    && self.make_schema(&mut connection).await.map_err(unreachable)?;
                Ok(if allowed { Migrations::Apply } else { Migrations::Check })
            }
        }
    }

    /// Makes the schema if there is none; whether this user may make tables in it.
    async fn make_schema(&self, connection: &mut Connection) -> Result<bool, Error> {
        let (missing, allowed): (i64, i64) = sql::query(
            "select cast(case when count(*) = 0 then 1 else 0 end as bigint), cast(case when coalesce( \
             bool_or(has_schema_privilege(oid, 'create')), \
             has_database_privilege(current_database(), 'create')) then 1 else 0 end as bigint) \
             from pg_namespace where nspname = $1",
        )
        .bind(self.owner)
        .fetch_one(connection)
        .await?;
        if missing == 1 && allowed == 1 {
            let create = format!("create schema if not exists \"{}\"", self.owner);
            // The name is one of ours, a constant of the build.
            match sql::plain(create).execute(connection).await {
                // Another process made it at the same moment, which `if not exists` does not see.
                Err(refused) if refused.sqlstate() == Some("23505") => {}
                other => {
                    other?;
                }
            }
        }
        Ok(allowed == 1)
    }
}

/// What every session of an owner on Postgres sets. A stopped client must not hold a turn for long: idle
/// in a transaction, or with a half-read result, which only the TCP timeout ends. And whoever waited for
/// a turn must see what was committed meanwhile, whatever the server's default is.
fn session(owner: &str) -> String {
    format!(
        "set search_path = \"{owner}\"; set lock_timeout = '5s'; \
         set default_transaction_isolation = 'read committed'; \
         set idle_in_transaction_session_timeout = '2s'; set tcp_user_timeout = '3s'; set jit = off"
    )
}

/// Waits for the database, unless that has fallen silent: over a connection of which nobody says that
/// it is broken, an answer may never come. What is given up is dropped, and its connections with it,
/// as harmlessly as if the process had ended there.
pub(crate) async fn in_time<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(Error::silence(limit.as_secs()).into()))
}

fn check_sqlite_version(found: &str) -> Result<(), OpenError> {
    let parts = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    if parts(found) < parts(LEAST_SQLITE) {
        return Err(OpenError::OldSqlite { found: found.to_owned(), least: LEAST_SQLITE });
    }
    Ok(())
}

/// Holds a data folder for this process.
#[derive(Debug)]
pub struct FolderLock(
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")] std::fs::File,
);

impl FolderLock {
    /// Makes the folder if need be and takes it; refused while another process has it.
    pub fn take(folder: &Path) -> Result<Self, OpenError> {
        let unusable = |cause| OpenError::Folder { folder: folder.to_owned(), cause };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(OpenError::InUse { folder: folder.to_owned() })
            }
            Err(std::fs::TryLockError::Error(cause)) => Err(unusable(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_with_the_wal_reset_defect_is_refused() {
        assert!(check_sqlite_version("3.51.2").is_err());
        assert!(check_sqlite_version("3.46.0").is_err());
        assert!(check_sqlite_version("3.51.3").is_ok());
        assert!(check_sqlite_version("3.53.0").is_ok());
        assert!(check_sqlite_version("4.0").is_ok());
    }

    #[tokio::test]
    async fn after_a_transaction_that_sqlite_took_back_for_want_of_room_there_is_a_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Folder(folder.path().to_owned());
        let opening = Database::open(&location, "full", |_| Vec::new(), Migrations::Apply);
        let database = opening.await.unwrap();
        for _ in 0..3 {
            let mut turn = database.take_turn(CommitPoint::Commands).await.unwrap();
            sql::plain("create table if not exists full (data blob); pragma max_page_count = 9")
                .execute(&mut turn)
                .await
                .unwrap();
            let written =
                sql::plain("insert into full values (zeroblob(99999))").execute(&mut turn).await;
            assert!(StoreError::from(written.unwrap_err()).is_passing());
        }
    }

    #[tokio::test]
    async fn the_linked_sqlite_is_new_enough() {
        let mut connection = Target::Sqlite(File(":memory:".into())).connect().await.unwrap();
        let version: String =
            sql::query("select sqlite_version()").fetch_one(&mut connection).await.unwrap();
        check_sqlite_version(&version).unwrap();
    }

    /// See `.cargo/config.toml`.
    #[tokio::test]
    async fn the_linked_sqlite_has_no_lock_around_every_page_and_allocation() {
        let mut connection = Target::Sqlite(File(":memory:".into())).connect().await.unwrap();
        let options: Vec<String> =
            sql::query("pragma compile_options").fetch_all(&mut connection).await.unwrap();
        let has = |name| options.iter().any(|option| option == name);
        assert!(has("DEFAULT_MEMSTATUS=0"), "{options:?}");
        for slow in ["ENABLE_MEMORY_MANAGEMENT", "ENABLE_STAT4", "ENABLE_API_ARMOR"] {
            assert!(!has(slow), "{slow} is among {options:?}");
        }
    }

    #[tokio::test]
    async fn every_connection_syncs_at_every_commit() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Folder(folder.path().to_owned());
        let database = Database::open(&location, "owner", |_| Vec::new(), Migrations::Apply);
        let database = database.await.unwrap();
        for connections in [&database.write, &database.read] {
            let mut lent = connections.acquire().await.unwrap();
            let mode: String =
                sql::query("pragma journal_mode").fetch_one(&mut lent).await.unwrap();
            let level: i64 = sql::query("pragma synchronous").fetch_one(&mut lent).await.unwrap();
            assert_eq!((mode.as_str(), level), ("wal", 2), "2 is `full`");
        }
    }
}
