//! A fresh database of either kind, removed when it goes out of scope.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use tempfile::TempDir;

/// What the cases run on: one process, on either database, or the containers of `compose.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Compose,
}

/// Where the servers of one case keep their data.
#[derive(Debug)]
pub(crate) enum Store {
    Folder(TempDir),
    Database {
        server: Server,
        name: String,
        url: String,
    },
    /// A folder that whoever named it takes care of.
    Within(PathBuf),
    /// A database that whoever named it takes care of.
    At(String),
}

/// The Postgres servers to test with; the second is for services that are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    First,
    Second,
}

impl Server {
    /// Where it is. Tests never skip it silently.
    fn address(self) -> String {
        let variable = match self {
            Self::First => "WAYBILL_TEST_DATABASE_URL",
            Self::Second => "WAYBILL_TEST_SECOND_DATABASE_URL",
        };
        let named = std::env::var(variable);
        named.unwrap_or_else(|_| {
            panic!("{variable} names a Postgres to test with; `scripts/test` starts one")
        })
    }

    /// Runs SQL on its own database.
    pub(crate) async fn execute(self, sql: &str) {
        let connection = AnyConnection::connect(&self.address()).await;
        let mut connection = connection.expect("the test server answers");
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("the statement runs");
        connection.close().await.expect("the connection ends");
    }
}

/// How many databases this process has made.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Store {
    pub(crate) async fn new(kind: Kind) -> Self {
        sqlx::any::install_default_drivers();
        match kind {
            Kind::Sqlite => Self::Folder(TempDir::new().expect("a folder for the test")),
            Kind::Postgres => Self::on(Server::First).await,
            Kind::Compose => panic!("containers bring their database with them"),
        }
    }

    /// A fresh database of this server.
    pub(crate) async fn on(server: Server) -> Self {
        sqlx::any::install_default_drivers();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e_{}_{number}", std::process::id());
        server.execute(&format!("drop database if exists {name} with (force)")).await;
        server.execute(&format!("create database {name}")).await;
        let address = server.address();
        let (base, rest) = address.rsplit_once('/').expect("the address ends in a database");
        let options = rest.split_once('?').map_or_else(String::new, |(_, o)| format!("?{o}"));
        Self::Database { url: format!("{base}/{name}{options}"), name, server }
    }

    /// The options of the command line that say where the data is.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => vec!["--data-dir".to_owned(), text(folder.path())],
            Self::Within(folder) => vec!["--data-dir".to_owned(), text(folder)],
            Self::Database { url, .. } | Self::At(url) => {
                vec!["--database-url".to_owned(), url.clone()]
            }
        }
    }

    /// The folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder.path(),
            Self::Within(folder) => folder,
            other => panic!("this case is on SQLite: {other:?}"),
        }
    }

    /// The address of the Postgres database, and its name on which server.
    pub(crate) fn database(&self) -> (&str, &str, Server) {
        match self {
            Self::Database { url, name, server } => (url, name, *server),
            other => panic!("this case is about databases of the test servers: {other:?}"),
        }
    }

    /// The Postgres database goes away: connections end, and there are no new ones.
    pub(crate) async fn goes_away(&self) {
        let (_, name, server) = self.database();
        server.execute(&format!("alter database {name} allow_connections false")).await;
        let connections = format!("from pg_stat_activity where datname = '{name}'");
        server.execute(&format!("select pg_terminate_backend(pid) {connections}")).await;
    }

    /// And comes back.
    pub(crate) async fn comes_back(&self) {
        let (_, name, server) = self.database();
        server.execute(&format!("alter database {name} allow_connections true")).await;
    }

    /// Runs SQL on an owner's tables, behind the back of the servers.
    pub(crate) async fn execute(&self, owner: &str, sql: &str) {
        self.try_execute(owner, sql).await.expect("the statement runs");
    }

    /// The same where the database may refuse.
    pub(crate) async fn try_execute(&self, owner: &str, sql: &str) -> Result<(), sqlx::Error> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.url(owner)).await?;
        if let Self::Database { .. } | Self::At(_) = self {
            let path = AssertSqlSafe(format!("set search_path = \"{owner}\""));
            sqlx::raw_sql(path).execute(&mut connection).await?;
        }
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
        connection.close().await?;
        done.map(drop)
    }

    fn url(&self, owner: &str) -> String {
        match self {
            Self::Folder(folder) => format!("sqlite://{}/{owner}.db", text(folder.path())),
            Self::Within(folder) => format!("sqlite://{}/{owner}.db", text(folder)),
            Self::Database { url, .. } | Self::At(url) => url.clone(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Self::Database { name, server, .. } = self {
            let server = *server;
            let sql = format!("drop database if exists {name} with (force)");
            // A destructor cannot wait within the runtime of the test.
            let dropping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(server.execute(&sql));
            });
            if dropping.join().is_err() {
                eprintln!("the database of a test could not be dropped");
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of plain letters").to_owned()
}
