//! Postgres: a session, whose statements are sent one behind the other without waiting for answers.
//!
//! Not by sqlx, which waits for each answer before it sends the next statement: a unit of work takes two
//! round trips in place of five to seven.

use std::collections::HashMap;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures_util::TryStreamExt as _;
use futures_util::future::{MaybeDone, maybe_done};
use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::{Answered, Error, Kind, Row, Statement, tls};
use crate::row::Cell;

/// A database of a server.
#[derive(Clone)]
pub(crate) struct Server {
    config: Box<Config>,
    tls: MakeRustlsConnect,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Option<Client>,
    prepared: HashMap<String, tokio_postgres::Statement>,
    /// Carries what is sent and received.
    carrying: JoinHandle<()>,
}

impl Server {
    /// The database at this address, which is read as sqlx reads it.
    pub(crate) fn at(url: &AnyConnectOptions) -> Result<Self, Error> {
        let url = &url.database_url;
        let options = PgConnectOptions::from_url(url)?;
        let given = |names: &[&str]| {
            let mut pairs = url.query_pairs();
            pairs.find(|(name, _)| names.contains(&&**name)).map(|(_, value)| value.into_owned())
        };
        let mut config = Config::new();
        match options.get_socket() {
            Some(folder) => config.host_path(folder),
            None => config.host(options.get_host()),
        };
        config.port(options.get_port()).user(options.get_username());
        if let Some(name) = options.get_database() {
            config.dbname(name);
        }
        if let Some(name) = options.get_application_name() {
            config.application_name(name);
        }
        if let Some(settings) = options.get_options() {
            config.options(settings);
        }
        let before_host = match url.password() {
            Some(encoded) => {
                let decoded = percent_decode_str(encoded).decode_utf8();
                Some(decoded.map_err(|cause| Error::Address(cause.into()))?.into_owned())
            }
            None => None,
        };
        let password = given(&["password"]).or(before_host);
        if let Some(password) = password.or_else(|| std::env::var("PGPASSWORD").ok()) {
            config.password(password);
        }
        config.ssl_mode(match options.get_ssl_mode() {
            PgSslMode::Disable => SslMode::Disable,
            PgSslMode::Allow | PgSslMode::Prefer => SslMode::Prefer,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => SslMode::Require,
        });
        let authority = given(&["sslrootcert", "ssl-root-cert", "ssl-ca"]);
        let tls = tls::client(options.get_ssl_mode(), authority.as_deref().map(Path::new));
        let tls = tls.map_err(Error::Address)?;
        Ok(Self { config: Box::new(config), tls: MakeRustlsConnect::new(tls) })
    }

    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        let (client, carrier) = Box::pin(self.config.connect(self.tls.clone())).await?;
        let carrying = tokio::spawn(async move {
            if let Err(error) = carrier.await {
                debug!(%error, "a connection to the database ended");
            }
        });
        Ok(Connection { client: Some(client), prepared: HashMap::new(), carrying })
    }
}

impl Connection {
    pub(super) async fn run(&mut self, statements: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in &statements {
            prepared.push(match statement.kind {
                Kind::Plain => None,
                Kind::Prepared => Some(self.prepare(statement).await?),
            });
        }
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        let asking = statements
            .iter()
            .zip(&prepared)
            .map(|(statement, prepared)| maybe_done(ask(client, prepared.as_ref(), statement)));
        in_order(asking.collect()).await.into_iter().collect()
    }

    /// Prepares a statement, once.
    async fn prepare(&mut self, statement: &Statement) -> Result<tokio_postgres::Statement, Error> {
        let text = statement.text_with_rows(|index, _| format!("r{index}"), unnested);
        if let Some(prepared) = self.prepared.get(text.as_ref()) {
            return Ok(prepared.clone());
        }
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        let columns = statement.rows.first().into_iter().flatten().map(type_of_all);
        let types: Vec<Type> = statement.values.iter().map(type_of).chain(columns).collect();
        let prepared = client.prepare_typed(&text, &types).await?;
        self.prepared.insert(text.into_owned(), prepared.clone());
        Ok(prepared)
    }

    pub(super) async fn close(mut self) {
        // Without its client it takes leave once everything is answered.
        self.prepared.clear();
        self.client = None;
        let _ = (&mut self.carrying).await;
    }
}

impl Drop for Connection {
    /// The server may be silent, and what it owes would be waited for.
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Sends a statement when it is first polled, and gathers the answer.
async fn ask(
    client: &Client,
    prepared: Option<&tokio_postgres::Statement>,
    statement: &Statement,
) -> Result<Answered, Error> {
    let Some(prepared) = prepared else {
        client.batch_execute(&statement.text).await?;
        return Ok(Answered::default());
    };
    let columns = columns(&statement.rows)?;
    let values = statement.values.iter().map(|value| match value {
        Cell::Text(text) => text as &(dyn ToSql + Sync),
        Cell::Bigint(number) => number as &(dyn ToSql + Sync),
    });
    let columns = columns.iter().map(|column| match column {
        Column::Texts(texts) => texts as &(dyn ToSql + Sync),
        Column::Bigints(numbers) => numbers as &(dyn ToSql + Sync),
    });
    let values: Vec<&(dyn ToSql + Sync)> = values.chain(columns).collect();
    let mut answer = pin!(client.query_raw(prepared, values).await?);
    let mut rows = Vec::new();
    while let Some(row) = answer.try_next().await? {
        rows.push(Row::Postgres(row));
    }
    Ok(Answered { rows, changed: answer.rows_affected().unwrap_or(0) })
}

/// Waits for all of them, each polled for the first time after those before it: what they send goes in
/// this order.
async fn in_order<F: Future>(asking: Vec<MaybeDone<F>>) -> Vec<F::Output> {
    let mut asking: Vec<Pin<Box<MaybeDone<F>>>> = asking.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        let mut all_done = true;
        for one in &mut asking {
            all_done &= one.as_mut().poll(context).is_ready();
        }
        if all_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    asking.iter_mut().filter_map(|one| one.as_mut().take_output()).collect()
}

fn type_of(value: &Cell) -> Type {
    match value {
        Cell::Text(_) => Type::TEXT,
        Cell::Bigint(_) => Type::INT8,
    }
}

/// Of a column of such values.
fn type_of_all(value: &Cell) -> Type {
    match value {
        Cell::Text(_) => Type::TEXT_ARRAY,
        Cell::Bigint(_) => Type::INT8_ARRAY,
    }
}

/// A parameter for each column, from this one on.
fn unnested(place: usize, first: &[Cell]) -> String {
    let of = |(number, cell): (usize, &Cell)| format!("${number}::{}", type_of(cell).name());
    let arrays = (place..).zip(first).map(|one| format!("{}[]", of(one))).collect::<Vec<_>>();
    let names: Vec<String> = (0..first.len()).map(|index| format!("r{index}")).collect();
    format!("unnest({}) as r ({})", arrays.join(", "), names.join(", "))
}

/// The values of rows, of one column after the other.
enum Column<'a> {
    Texts(Vec<&'a str>),
    Bigints(Vec<i64>),
}

/// Each column is of the kind that it has in the first row.
fn columns(rows: &[Vec<Cell>]) -> Result<Vec<Column<'_>>, Error> {
    let first = rows.first().into_iter().flatten();
    let column = |(index, cell): (usize, &Cell)| {
        let cells = rows.iter().map(|row| row.get(index));
        match cell {
            Cell::Text(_) => {
                cells.map(|cell| cell?.text()).collect::<Option<_>>().map(Column::Texts)
            }
            Cell::Bigint(_) => {
                cells.map(|cell| cell?.bigint()).collect::<Option<_>>().map(Column::Bigints)
            }
        }
    };
    let columns: Option<Vec<_>> = first.enumerate().map(column).collect();
    columns
        .ok_or_else(|| Error::bad_value("a column of rows to be written has values of two kinds"))
}

/// What the server says, which the error itself shows only to those who ask for its source.
pub(super) fn in_words(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
