//! Fresh databases, removed after use.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use clap::ValueEnum;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use tempfile::TempDir;
use waybill_runtime::Location;

use crate::bench::Bench;
use crate::postgres::Postgres;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Files in a folder of this machine.
    Sqlite,
    /// A server of our own.
    Postgres,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Where the services of one measurement keep their data.
#[derive(Debug)]
pub(crate) enum Place {
    Folder(TempDir),
    Database(Database),
}

/// A database of the server.
#[derive(Debug)]
pub(crate) struct Database {
    server: Postgres,
    name: String,
    pub(crate) url: String,
}

/// How a connection treats a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// On the disk when it is answered.
    Durable,
    /// Not waited for: to fill tables before anything is measured.
    Loose,
}

/// How many databases this process has made.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Place {
    /// An empty one.
    pub(crate) async fn fresh(bench: &Bench, kind: Kind) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        match kind {
            Kind::Sqlite => {
                // Beside the executable: the system's folder for temporary files may be memory.
                let executable = std::env::current_exe()?;
                let parent = executable.parent().context("the executable is in no folder")?;
                Ok(Self::Folder(TempDir::new_in(parent)?))
            }
            Kind::Postgres => {
                let server = bench.postgres()?.clone();
                let number = COUNT.fetch_add(1, Ordering::Relaxed);
                let name = format!("bench_{}_{number}", std::process::id());
                server.execute(&format!("create database {name}")).await?;
                let url = server.url_of(&name)?;
                Ok(Self::Database(Database { server, name, url }))
            }
        }
    }

    /// The options of the command line that say where it is.
    pub(crate) fn arguments(&self) -> [String; 2] {
        match self {
            Self::Folder(folder) => {
                ["--data-dir".to_owned(), folder.path().to_string_lossy().into_owned()]
            }
            Self::Database(Database { url, .. }) => ["--database-url".to_owned(), url.clone()],
        }
    }

    /// The same for those who open it themselves.
    pub(crate) fn location(&self) -> Location {
        match self {
            Self::Folder(folder) => Location::Folder(folder.path().to_owned()),
            Self::Database(Database { url, .. }) => Location::Postgres(url.clone()),
        }
    }

    /// The database on the server, if it is one.
    pub(crate) fn database(&self) -> Option<&Database> {
        match self {
            Self::Folder(_) => None,
            Self::Database(database) => Some(database),
        }
    }

    /// A file of an owner, if it has one.
    pub(crate) fn file(&self, owner: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.path().join(format!("{owner}.db"))),
            Self::Database(_) => None,
        }
    }

    /// A connection to an owner's tables.
    pub(crate) async fn connect(
        &self,
        owner: &str,
        commits: Commits,
    ) -> anyhow::Result<AnyConnection> {
        let durable = commits == Commits::Durable;
        let (url, settings) = match self {
            Self::Folder(folder) => {
                let synchronous = if durable { "full" } else { "off" };
                let settings = format!(
                    "pragma busy_timeout = 5000; pragma journal_mode = wal; \
                     pragma synchronous = {synchronous}"
                );
                (format!("sqlite://{}/{owner}.db?mode=rwc", folder.path().display()), settings)
            }
            Self::Database(Database { url, .. }) => {
                let synchronous = if durable { "on" } else { "off" };
                let settings = format!(
                    "set search_path = \"{owner}\"; set synchronous_commit = {synchronous}; \
                     set jit = off"
                );
                (url.clone(), settings)
            }
        };
        let mut connection = AnyConnection::connect(&url).await?;
        // Put together from the benches' own texts only.
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Brings a place that was filled at once to where it would be in the course of time: everything is on
    /// the disk, and the server has looked at its tables. Nobody in this process may have its files open: to close
    /// one lets go of what SQLite has locked in it.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                for file in std::fs::read_dir(folder.path())? {
                    let file = std::fs::File::open(file?.path())?;
                    tokio::task::spawn_blocking(move || file.sync_all()).await??;
                }
            }
            Self::Database(_) => {
                let mut connection = self.connect("public", Commits::Durable).await?;
                sqlx::raw_sql("vacuum analyze").execute(&mut connection).await?;
                sqlx::raw_sql("checkpoint").execute(&mut connection).await?;
                connection.close().await?;
            }
        }
        Ok(())
    }

    /// Removes it, which a place in a folder does by itself.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => Ok(folder.close()?),
            Self::Database(Database { server, name, .. }) => {
                server.execute(&format!("drop database {name} with (force)")).await
            }
        }
    }
}
