//! Migrations: plain SQL, embedded, applied in order, never edited once released.

use std::borrow::Cow;

use sqlx::Connection as _;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, MigrationType, Migrator};
use tracing::warn;

use crate::database::{Database, Dialect};
use crate::limits;
use crate::sql;

/// One step in the life of an owner's tables; never edited once released.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order, unique within its owner. A service's own begin at 2001.
    pub version: i64,
    /// What it does.
    pub name: &'static str,
    /// The statements, the same for both databases.
    pub sql: &'static str,
}

/// Whether migrations may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrations {
    /// Those missing are applied, where this user of the database may do so.
    Apply,
    /// Those missing are an error.
    Check,
}

/// Why an owner's tables are not as this build needs them.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Made by a later build, or by a build of another line.
    #[error(
        "the tables of {owner} were made by another version of Waybill ({detail}); use that version"
    )]
    OtherVersion {
        /// Whose tables.
        owner: &'static str,
        /// What is different.
        detail: String,
    },
    /// Migrations are missing and may not be applied here.
    #[error("the tables of {owner} are not up to date; run `waybill migrate` first")]
    Missing {
        /// Whose tables.
        owner: &'static str,
    },
    /// It cannot be asked which migrations were applied.
    #[error("which migrations the tables of {owner} have cannot be read: {cause}")]
    Unread {
        /// Whose tables.
        owner: &'static str,
        /// Why.
        cause: sql::Error,
    },
    /// The database refuses a migration.
    #[error("a migration of {owner} failed: {cause}")]
    Failed {
        /// Whose tables.
        owner: &'static str,
        /// Why.
        cause: MigrateError,
    },
}

const RUNTIME: Migration = Migration {
    version: 1001,
    name: "runtime",
    sql: include_str!("../../../migrations/runtime/0001_runtime.sql"),
};
const EVENT_STORE: Migration = Migration {
    version: 1101,
    name: "event store",
    sql: include_str!("../../../migrations/event_store/0001_event_store.sql"),
};
const EVENT_STORE_FEWER_INDEXES: Migration = Migration {
    version: 1102,
    name: "fewer indexes",
    sql: include_str!("../../../migrations/event_store/0002_fewer_indexes.sql"),
};
/// What only Postgres needs, before anything else.
const POSTGRES: Migration = Migration {
    version: 1,
    name: "postgres",
    sql: include_str!("../../../migrations/postgres/0001_postgres.sql"),
};
const POSTGRES_ROWS: Migration = Migration {
    version: 2,
    name: "rows of jsonb",
    sql: include_str!("../../../migrations/postgres/0005_rows_of_jsonb.sql"),
};
const POSTGRES_EVENT_STORE: Migration = Migration {
    version: 3001,
    name: "append only",
    sql: include_str!("../../../migrations/postgres/0002_event_store_append_only.sql"),
};

/// What people who query Postgres by hand get beside it.
const POSTGRES_EVENT_STORE_VIEWS: Migration = Migration {
    version: 3002,
    name: "views",
    sql: include_str!("../../../migrations/postgres/0003_event_store_views.sql"),
};

/// What each service's own role may append.
const POSTGRES_EVENT_STORE_WALLS: Migration = Migration {
    version: 3003,
    name: "walls",
    sql: include_str!("../../../migrations/postgres/0004_event_store_walls.sql"),
};

/// The migrations of the event store.
pub(crate) fn of_event_store(dialect: Dialect) -> Vec<Migration> {
    match dialect {
        Dialect::Sqlite => vec![EVENT_STORE, EVENT_STORE_FEWER_INDEXES],
        Dialect::Postgres => {
            vec![
                POSTGRES,
                POSTGRES_ROWS,
                EVENT_STORE,
                EVENT_STORE_FEWER_INDEXES,
                POSTGRES_EVENT_STORE,
                POSTGRES_EVENT_STORE_VIEWS,
                POSTGRES_EVENT_STORE_WALLS,
            ]
        }
    }
}

/// The migrations of a service: the runtime's tables and its own.
pub(crate) fn of_service(
    dialect: Dialect,
    own: &[Migration],
    postgres: &[Migration],
) -> Vec<Migration> {
    let mut all = vec![RUNTIME];
    all.extend_from_slice(own);
    if dialect == Dialect::Postgres {
        all.extend([POSTGRES, POSTGRES_ROWS]);
        all.extend_from_slice(postgres);
    }
    all
}

/// Brings an owner's tables up to date, or finds that they are.
///
/// Nothing is written where nothing is missing, so an owner without the right to create tables can
/// serve once another has migrated.
pub(crate) async fn migrate(
    database: &Database,
    owner: &'static str,
    migrations: &[Migration],
    mode: Migrations,
) -> Result<(), SchemaError> {
    let migrator = Migrator::with_migrations(migrations.iter().map(to_sqlx).collect());
    let failed = |cause| SchemaError::Failed { owner, cause };
    if is_complete(database, owner, &migrator).await? {
        return Ok(());
    }
    if mode == Migrations::Check {
        return Err(SchemaError::Missing { owner });
    }
    for _ in 1..limits::MIGRATION_ATTEMPTS {
        match apply(database, &migrator).await {
            Err(cause) if found_locked(&cause) => {
                warn!(owner, %cause, "a migration waits until others let go of what it changes");
                tokio::time::sleep(limits::MIGRATION_PAUSE).await;
            }
            done => return done.map_err(failed),
        }
    }
    apply(database, &migrator).await.map_err(failed)
}

/// Whether none of these migrations is missing. Others than these are refused.
async fn is_complete(
    database: &Database,
    owner: &'static str,
    migrator: &Migrator,
) -> Result<bool, SchemaError> {
    let applied = applied(database).await.map_err(|cause| SchemaError::Unread { owner, cause })?;
    let unknown = applied.iter().find(|(version, _)| !migrator.version_exists(*version));
    if let Some((unknown, _)) = unknown {
        let detail = format!("it has migration {unknown}");
        return Err(SchemaError::OtherVersion { owner, detail });
    }
    let edited = migrator.iter().find(|migration| {
        applied.iter().any(|(version, checksum)| {
            *version == migration.version && *checksum != hex::encode(&*migration.checksum)
        })
    });
    if let Some(edited) = edited {
        let detail = format!("migration {} is not the same", edited.version);
        return Err(SchemaError::OtherVersion { owner, detail });
    }
    let is_applied = |migration: &sqlx::migrate::Migration| {
        applied.iter().any(|(version, _)| *version == migration.version)
    };
    Ok(migrator.iter().all(is_applied))
}

/// The versions and checksums of the migrations that sqlx has applied, from its table. Asked over a
/// connection that the process needs anyway: mostly there is nothing to apply.
async fn applied(database: &Database) -> Result<Vec<(i64, String)>, sql::Error> {
    let text = match database.dialect() {
        Dialect::Sqlite => "select version, lower(hex(checksum)) from _sqlx_migrations",
        Dialect::Postgres => "select version, encode(checksum, 'hex') from _sqlx_migrations",
    };
    let mut connection = database.connect().await?;
    // Without the table none was applied.
    let applied = sql::query(text).fetch_all(&mut connection).await.unwrap_or_default();
    connection.give_back();
    Ok(applied)
}

/// Applies what is missing, beside whoever serves: what changes a table needs it for itself for a
/// moment, and everyone else waits behind it as long as it waits. So it gives up soon.
async fn apply(database: &Database, migrator: &Migrator) -> Result<(), MigrateError> {
    let mut connection = database.connect_to_migrate().await?;
    // It may be left with the lock that keeps other migrators out, so it is used once.
    let applied = migrator.run(&mut connection).await;
    drop(connection.close().await);
    applied
}

/// Whether it waited longer than `lock_timeout` for a lock (Postgres: `lock_not_available`).
fn found_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else {
        return false;
    };
    let code = cause.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "55P03")
}

fn to_sqlx(migration: &Migration) -> sqlx::migrate::Migration {
    sqlx::migrate::Migration::new(
        migration.version,
        Cow::Borrowed(migration.name),
        MigrationType::Simple,
        sqlx::SqlStr::from_static(migration.sql),
        false,
    )
}
