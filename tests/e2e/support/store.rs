//! A fresh database of either kind, removed when it goes out of scope.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use tempfile::TempDir;

/// The two databases that every case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Where the servers of one case keep their data.
#[derive(Debug)]
pub(crate) enum Store {
    Folder(TempDir),
    Database { name: String, url: String },
}

/// Where Postgres is. Tests never skip it silently.
fn test_server() -> String {
    std::env::var("WAYBILL_TEST_DATABASE_URL").expect(
        "WAYBILL_TEST_DATABASE_URL names a Postgres to test with; `scripts/test` starts one",
    )
}

impl Store {
    pub(crate) async fn new(kind: Kind) -> Self {
        sqlx::any::install_default_drivers();
        match kind {
            Kind::Sqlite => Self::Folder(TempDir::new().expect("a folder for the test")),
            Kind::Postgres => Self::fresh_database().await,
        }
    }

    async fn fresh_database() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e_{}_{number}", std::process::id());
        on_test_server(&format!("drop database if exists {name} with (force)")).await;
        on_test_server(&format!("create database {name}")).await;
        let server = test_server();
        let (base, rest) = server.rsplit_once('/').expect("the address ends in a database");
        let options = rest.split_once('?').map_or_else(String::new, |(_, o)| format!("?{o}"));
        Self::Database { url: format!("{base}/{name}{options}"), name }
    }

    /// The options of the command line that say where the data is.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => vec!["--data-dir".to_owned(), text(folder.path())],
            Self::Database { url, .. } => vec!["--database-url".to_owned(), url.clone()],
        }
    }

    /// The name of the Postgres database.
    pub(crate) fn database(&self) -> &str {
        match self {
            Self::Folder(_) => panic!("this case is on SQLite"),
            Self::Database { name, .. } => name,
        }
    }

    /// Runs SQL on an owner's tables, behind the back of the servers.
    pub(crate) async fn execute(&self, owner: &str, sql: &str) {
        self.try_execute(owner, sql).await.expect("the statement runs");
    }

    /// The same where the database may refuse.
    pub(crate) async fn try_execute(&self, owner: &str, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = AnyConnection::connect(&self.url(owner)).await?;
        if let Self::Database { .. } = self {
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
            Self::Database { url, .. } => url.clone(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Self::Database { name, .. } = self {
            let sql = format!("drop database if exists {name} with (force)");
            // A destructor cannot wait within the runtime of the test.
            let dropping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(on_test_server(&sql));
            });
            if dropping.join().is_err() {
                eprintln!("the database of a test could not be dropped");
            }
        }
    }
}

/// Runs SQL on the test server's own database.
pub(crate) async fn on_test_server(sql: &str) {
    let connection = AnyConnection::connect(&test_server()).await;
    let mut connection = connection.expect("the test server answers");
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("the statement runs");
    connection.close().await.expect("the connection ends");
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of plain letters").to_owned()
}
