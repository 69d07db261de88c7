//! Postgres: a session, whose statements are sent one behind the other without waiting for answers.
//!
//! Not by sqlx, which waits for each answer before it sends the next statement: a unit of work takes one or
//! two round trips in place of five to seven.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::poll_fn;
use std::iter;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use futures_util::future::{MaybeDone, maybe_done};
use percent_encoding::percent_decode_str;
use postgres_protocol::types::{ArrayDimension, array_to_sql, int8_to_sql, text_to_sql};
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{self, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;
use uuid::Uuid;

use super::{Answered, Error, Field, Kind, Over, Row, Rows, Statement, tls};
use crate::limits;
use crate::row::{self, Cell};

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
    prepared: HashMap<Shape, tokio_postgres::Statement>,
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

/// Numbers that are notified in a channel.
#[derive(Debug)]
pub(crate) struct Notifications {
    /// The highest.
    highest: watch::Receiver<i64>,
    /// Without it the session ends.
    session: Client,
    receiving: JoinHandle<()>,
}

impl Server {
    /// Listens to a channel, in a session for nothing else.
    pub(crate) async fn listen(&self, channel: &'static str) -> Result<Notifications, Error> {
        let (session, mut carrier) = Box::pin(self.config.connect(self.tls.clone())).await?;
        let (heard, highest) = watch::channel(0);
        let receiving = tokio::spawn(async move {
            loop {
                match poll_fn(|context| carrier.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(told))) => {
                        let told: i64 = told.payload().parse().unwrap_or(0);
                        heard.send_if_modified(|highest| {
                            let is_news = told > *highest;
                            *highest = told.max(*highest);
                            is_news
                        });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        debug!(%error, "a connection that listened ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        let notifications = Notifications { highest, session, receiving };
        notifications.session.batch_execute(&format!("listen {channel}")).await?;
        Ok(notifications)
    }
}

impl Notifications {
    /// Waits for a higher one.
    pub(crate) async fn next(&mut self) -> Result<i64, Error> {
        self.highest.changed().await.map_err(|_| Error::Closed)?;
        Ok(*self.highest.borrow_and_update())
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

impl Connection {
    pub(super) async fn run(&mut self, statements: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in &statements {
            prepared.push(match statement.kind {
                Kind::Plain => None,
                Kind::Prepared | Kind::Expectation => Some(self.prepare(statement).await?),
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
        let shape = Shape::of(statement);
        if let Some(prepared) = self.prepared.get(&shape) {
            return Ok(prepared.clone());
        }
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        let values = statement.values.iter().map(|value| type_of(value.kind()));
        let columns = shape.columns.iter().flat_map(|kinds| kinds.iter().copied());
        let types: Vec<Type> = values.chain(columns.map(type_of_all)).collect();
        let prepared = client.prepare_typed(&text(statement), &types).await?;
        if self.prepared.len() >= limits::STATEMENTS_PREPARED {
            // There are as many as ways to combine what a unit writes. The server forgets them, too.
            self.prepared.clear();
        }
        self.prepared.insert(shape, prepared.clone());
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
    let columns: Vec<Column<'_>> =
        statement.all_rows().flat_map(|rows| Column::all(&**rows)).collect();
    let values = statement.values.iter().map(|value| match value {
        Cell::Text(text) => text as &(dyn ToSql + Sync),
        Cell::Bigint(number) => number as &(dyn ToSql + Sync),
    });
    let columns = columns.iter().map(|column| column as &(dyn ToSql + Sync));
    let values: Vec<&(dyn ToSql + Sync)> = values.chain(columns).collect();
    let asking = async {
        let mut answer = pin!(client.query_raw(prepared, values).await?);
        let mut rows = Vec::new();
        while let Some(row) = answer.try_next().await? {
            rows.push(Row::Postgres(row));
        }
        Ok(Answered { rows, changed: answer.rows_affected().unwrap_or(0) })
    };
    asking.await.map_err(|error: tokio_postgres::Error| match error.code() {
        Some(&SqlState::DIVISION_BY_ZERO) if statement.kind == Kind::Expectation => {
            Error::Overtaken
        }
        _ => error.into(),
    })
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

fn type_of(kind: row::Kind) -> Type {
    match kind {
        row::Kind::Text => Type::TEXT,
        row::Kind::Bigint => Type::INT8,
    }
}

/// Of a column of such values.
fn type_of_all(kind: row::Kind) -> Type {
    match kind {
        row::Kind::Text => Type::TEXT_ARRAY,
        row::Kind::Bigint => Type::INT8_ARRAY,
    }
}

/// What a statement that is prepared can be carried out again for.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    texts: Vec<Cow<'static, str>>,
    /// What the rows of each text hold.
    columns: Vec<Cow<'static, [row::Kind]>>,
}

impl Shape {
    fn of(statement: &Statement) -> Self {
        let others = statement.beside.iter().map(|other| Cow::Borrowed(other.text));
        Self {
            texts: iter::once(statement.text.clone()).chain(others).collect(),
            columns: statement.all_rows().map(|rows| rows.kinds()).collect(),
        }
    }
}

/// The text of a statement and of what goes beside it, with a parameter for each column of their rows.
fn text(statement: &Statement) -> String {
    let mut place = statement.values.len() + 1;
    let mut tables = Vec::new();
    let rows = statement.rows.as_ref().map(|rows| table_of_rows(&**rows, &mut place));
    for (number, Over { text, rows }) in statement.beside.iter().enumerate() {
        let table = table_of_rows(&**rows, &mut place);
        tables.push(format!("beside_{number} as (with {table} {text})"));
    }
    tables.extend(rows);
    let with = if tables.is_empty() { "" } else { "with " };
    format!("{with}{} {}", tables.join(", "), statement.text)
}

/// From so many parameters on. Set-returning functions that are selected need no copy of their rows, other
/// than those that are selected from.
fn table_of_rows(rows: &dyn Rows, place: &mut usize) -> String {
    let kinds = rows.kinds();
    let columns: Vec<String> = (*place..)
        .zip(&*kinds)
        .map(|(number, kind)| format!("unnest(${number}::{}[])", type_of(*kind).name()))
        .collect();
    *place += kinds.len();
    super::table_of_rows(kinds.len(), &format!("select {}", columns.join(", ")))
}

/// A column of the rows that come with a statement: an array.
#[derive(Debug)]
struct Column<'a> {
    rows: &'a dyn Rows,
    index: usize,
}

impl<'a> Column<'a> {
    fn all(rows: &'a dyn Rows) -> Vec<Self> {
        (0..rows.kinds().len()).map(|index| Self { rows, index }).collect()
    }
}

impl ToSql for Column<'_> {
    fn to_sql(&self, array: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        let types::Kind::Array(member) = array.kind() else {
            return Err("rows are taken apart by their columns, each an array".into());
        };
        let count = self.rows.count();
        let dimension = ArrayDimension { len: i32::try_from(count)?, lower_bound: 1 };
        let write = |row: usize, out: &mut BytesMut| {
            match self.rows.value(row, self.index) {
                Some(Field::Text(text)) if *member == Type::TEXT => text_to_sql(text, out),
                Some(Field::Id(id)) if *member == Type::TEXT => {
                    text_to_sql(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()), out);
                }
                Some(Field::Bigint(number)) if *member == Type::INT8 => int8_to_sql(number, out),
                _ => return Err(Refusal::from("a column of rows has values of two kinds")),
            }
            Ok(postgres_protocol::IsNull::No)
        };
        array_to_sql(Some(dimension), member.oid(), 0..count, write, out)?;
        Ok(IsNull::No)
    }

    fn accepts(array: &Type) -> bool {
        [Type::TEXT_ARRAY, Type::INT8_ARRAY].contains(array)
    }

    to_sql_checked!();
}

/// Why a value cannot be sent.
type Refusal = Box<dyn std::error::Error + Sync + Send>;

/// What the server says, which the error itself shows only to those who ask for its source.
pub(super) fn in_words(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
