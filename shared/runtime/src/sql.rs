//! Statements and their answers, the same for both databases.
//!
//! Only whole numbers and texts go to a database and come back, and nothing is null. Several statements
//! go together: to Postgres in one round trip, to SQLite in one visit to the thread that it runs on.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use tracing::trace;
use uuid::Uuid;

use crate::row::{self, Cell};

pub(crate) use postgres::Server;
pub(crate) use sqlite::File;

mod postgres;
mod sqlite;
mod tls;

/// The target of what is told of each text that is carried out, for whoever counts them.
const TOLD: &str = "waybill::sql";

/// A statement with its values, `$1` and so on in its text.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    text: Cow<'static, str>,
    values: Vec<Cell>,
    rows: Option<Arc<dyn Rows>>,
    beside: Vec<Over>,
    kind: Kind,
}

/// A text over rows.
#[derive(Clone, Debug)]
struct Over {
    text: &'static str,
    rows: Arc<dyn Rows>,
}

/// How a statement is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Prepared once for each connection.
    Prepared,
    /// The same; unless its only value is 1, it is refused.
    Expectation,
    /// One or several, sent as they are; they take no values and give no rows.
    Plain,
}

/// A statement that is carried out often.
pub(crate) fn query(text: &'static str) -> Statement {
    Statement {
        text: Cow::Borrowed(text),
        values: Vec::new(),
        rows: None,
        beside: Vec::new(),
        kind: Kind::Prepared,
    }
}

/// A statement whose one value is `1 / x`: where x is 0 instead of 1, everything behind it is refused as
/// [`Error::Overtaken`]. To Postgres that is an error, to SQLite a null.
pub(crate) fn expect(text: &'static str) -> Statement {
    Statement { kind: Kind::Expectation, ..query(text) }
}

/// A statement over rows that come with it, of which there is at least one: in its text a table `rows`
/// with columns `c0`, `c1` and so on. SQLite asks for each value where it is, Postgres is sent an array for
/// each column; lists of JSON cost both of them more.
pub(crate) fn over(rows: Arc<dyn Rows>, text: &'static str) -> Statement {
    Statement { rows: Some(rows), ..query(text) }
}

/// Rows that come with a statement, read where they are: none is copied for it.
pub(crate) trait Rows: fmt::Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// What each column holds.
    fn kinds(&self) -> Cow<'static, [row::Kind]>;
    /// The value of a row in a column, both counted from 0; nothing if there is none.
    fn value(&self, row: usize, column: usize) -> Option<Field<'_>>;
    /// Whether every row holds what [`Rows::kinds`] says; to be asked of those whose types do not say so.
    fn fit(&self) -> bool {
        true
    }
}

/// A value where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// A text.
    Text(&'a str),
    /// An id, which databases hold as text.
    Id(Uuid),
    /// A whole number.
    Bigint(i64),
}

impl<'a> From<&'a Cell> for Field<'a> {
    fn from(cell: &'a Cell) -> Self {
        match cell {
            Cell::Text(text) => Self::Text(text),
            Cell::Bigint(number) => Self::Bigint(*number),
        }
    }
}

/// As the first of them is; all have the same columns.
impl Rows for Vec<Vec<Cell>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn kinds(&self) -> Cow<'static, [row::Kind]> {
        self.iter().take(1).flatten().map(Cell::kind).collect()
    }

    fn value(&self, row: usize, column: usize) -> Option<Field<'_>> {
        self.get(row)?.get(column).map(Field::from)
    }

    fn fit(&self) -> bool {
        let kinds = self.kinds();
        self.iter().all(|row| row.iter().map(Cell::kind).eq(kinds.iter().copied()))
    }
}

/// Statements without values whose rows, if any, nobody reads: `begin`, settings, definitions.
pub(crate) fn plain(text: impl Into<Cow<'static, str>>) -> Statement {
    Statement { text: text.into(), kind: Kind::Plain, ..query("") }
}

impl Statement {
    /// Gives it the next value.
    pub(crate) fn bind(mut self, value: impl Into<Cell>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Carries out another text over other rows with it. No two of them may touch the same row: Postgres takes
    /// all of them as one statement, which saves an answer for each, and each sees the tables as they were
    /// before; SQLite takes one after the other. What fails one fails all; their rows are not told.
    pub(crate) fn beside(mut self, rows: Arc<dyn Rows>, text: &'static str) -> Self {
        self.beside.push(Over { text, rows });
        self
    }

    /// All rows that come with it.
    fn all_rows(&self) -> impl Iterator<Item = &Arc<dyn Rows>> {
        self.rows.iter().chain(self.beside.iter().map(|other| &other.rows))
    }

    /// Carries it out; how many rows it changed.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, Error> {
        Ok(connection.ask(self).await?.changed)
    }

    /// Its rows.
    pub(crate) async fn fetch_all<R: FromRow>(
        self,
        connection: &mut Connection,
    ) -> Result<Vec<R>, Error> {
        connection.ask(self).await?.rows()
    }

    /// Its first row, if there is any.
    pub(crate) async fn fetch_optional<R: FromRow>(
        self,
        connection: &mut Connection,
    ) -> Result<Option<R>, Error> {
        connection.ask(self).await?.rows.into_iter().next().map(R::from_row).transpose()
    }

    /// Its first row; for statements that always have one.
    pub(crate) async fn fetch_one<R: FromRow>(
        self,
        connection: &mut Connection,
    ) -> Result<R, Error> {
        connection.ask(self).await?.row()
    }
}

/// The table `rows` of a statement: names of its columns, and what they are selected from.
fn table_of_rows(columns: usize, select: &str) -> String {
    let names: Vec<String> = (0..columns).map(|index| format!("c{index}")).collect();
    format!("rows ({}) as ({select})", names.join(", "))
}

/// What became of a statement.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    rows: Vec<Row>,
    changed: u64,
}

impl Answered {
    /// Its rows.
    pub(crate) fn rows<R: FromRow>(self) -> Result<Vec<R>, Error> {
        self.rows.into_iter().map(R::from_row).collect()
    }

    /// Its first row; of statements that always have one.
    pub(crate) fn row<R: FromRow>(self) -> Result<R, Error> {
        self.rows.into_iter().next().map(R::from_row).ok_or(Error::NoRow)?
    }

    /// How many rows it changed.
    pub(crate) fn changed(&self) -> u64 {
        self.changed
    }
}

/// A connection to one of the two databases.
#[derive(Debug)]
pub(crate) enum Connection {
    /// A file, and the thread that works on it.
    Sqlite(sqlite::Connection),
    /// A session of a server.
    Postgres(postgres::Connection),
}

impl Connection {
    /// Carries statements out in their order, all sent at once. The first that is refused tells why:
    /// those behind it are not carried out, or, inside a transaction on Postgres, refused as well.
    pub(crate) async fn run(&mut self, statements: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        for statement in &statements {
            trace!(target: TOLD, text = %statement.text);
            for other in &statement.beside {
                trace!(target: TOLD, text = %other.text);
            }
        }
        // A statement that cannot be sent must hold back the commit behind it.
        if !statements.iter().flat_map(Statement::all_rows).all(|rows| rows.fit()) {
            return Err(Error::bad_value("a column of rows to be written has values of two kinds"));
        }
        match self {
            Self::Sqlite(connection) => connection.run(statements).await,
            Self::Postgres(connection) => Box::pin(connection.run(statements)).await,
        }
    }

    /// Asks for a sign of life.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        match self {
            // Nobody but this process can end it.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(_) => plain("").execute(self).await.map(drop),
        }
    }

    /// Takes leave.
    pub(crate) async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
    }

    async fn ask(&mut self, statement: Statement) -> Result<Answered, Error> {
        self.run(vec![statement]).await?.pop().ok_or(Error::NoRow)
    }
}

/// Where connections go to.
#[derive(Clone)]
pub(crate) enum Target {
    /// A file.
    Sqlite(File),
    /// A server.
    Postgres(Server),
}

impl Target {
    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        Ok(match self {
            Self::Sqlite(file) => Connection::Sqlite(file.open().await?),
            Self::Postgres(server) => Connection::Postgres(server.connect().await?),
        })
    }
}

/// A row that a statement found. Each value is read once.
#[derive(Debug)]
pub(crate) enum Row {
    /// Taken from SQLite on its thread.
    Sqlite(Vec<Cell>),
    /// As Postgres sent it.
    Postgres(tokio_postgres::Row),
}

impl Row {
    /// Reads all values, of which the kinds are known.
    pub(crate) fn cells(
        mut self,
        kinds: impl Iterator<Item = row::Kind>,
    ) -> Result<Vec<Cell>, Error> {
        match self {
            Self::Sqlite(cells) => Ok(cells),
            Self::Postgres(_) => kinds
                .enumerate()
                .map(|(index, kind)| {
                    Ok(match kind {
                        row::Kind::Text => Cell::Text(self.get(index)?),
                        row::Kind::Bigint => Cell::Bigint(self.get(index)?),
                    })
                })
                .collect(),
        }
    }

    /// Reads the value at a place, counted from 0.
    pub(crate) fn get<T: Value>(&mut self, index: usize) -> Result<T, Error> {
        let unreadable = || Error::Unreadable { index, expected: T::NAME };
        match self {
            Self::Sqlite(cells) => {
                let cell = cells.get_mut(index).ok_or_else(unreadable)?;
                let cell = std::mem::replace(cell, Cell::Bigint(0));
                T::of_cell(cell).ok_or_else(unreadable)
            }
            Self::Postgres(row) => T::of_postgres(row, index).ok_or_else(unreadable),
        }
    }
}

/// A whole number or a text.
pub(crate) trait Value: Sized {
    /// What it is called in an error.
    const NAME: &'static str;
    /// Of a row of SQLite's.
    fn of_cell(cell: Cell) -> Option<Self>;
    /// Of a row of Postgres's.
    fn of_postgres(row: &tokio_postgres::Row, index: usize) -> Option<Self>;
}

impl Value for i64 {
    const NAME: &'static str = "a whole number";

    fn of_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Bigint(number) => Some(number),
            Cell::Text(_) => None,
        }
    }
    fn of_postgres(row: &tokio_postgres::Row, index: usize) -> Option<Self> {
        row.try_get(index).ok()
    }
}

impl Value for String {
    const NAME: &'static str = "a text";

    fn of_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text),
            Cell::Bigint(_) => None,
        }
    }
    fn of_postgres(row: &tokio_postgres::Row, index: usize) -> Option<Self> {
        row.try_get(index).ok()
    }
}

/// What a row is read into.
pub(crate) trait FromRow: Sized {
    /// Reads it.
    fn from_row(row: Row) -> Result<Self, Error>;
}

impl FromRow for Row {
    fn from_row(row: Row) -> Result<Self, Error> {
        Ok(row)
    }
}

impl<T: Value> FromRow for T {
    fn from_row(mut row: Row) -> Result<Self, Error> {
        row.get(0)
    }
}

macro_rules! tuples_of_rows {
    ($( ($($T:ident $index:tt),+) )+) => {$(
        impl<$($T: Value),+> FromRow for ($($T,)+) {
            fn from_row(mut row: Row) -> Result<Self, Error> {
                Ok(($(row.get::<$T>($index)?,)+))
            }
        }
    )+};
}

tuples_of_rows! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}

/// Why a database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres, or the way to it, says so.
    #[error("{}", postgres::in_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// It cannot be reached, or not in time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The settings of a migration's or a listener's connection are refused.
    #[error(transparent)]
    Settings(#[from] sqlx::Error),
    /// What its address says of a password or of certificates cannot be used.
    #[error("what the database's address says cannot be used: {0}")]
    Address(Box<dyn std::error::Error + Send + Sync>),
    /// There was no connection free in time.
    #[error("no connection was free in time")]
    NoneFree,
    /// Its connections are closed.
    #[error("the database is closed")]
    Closed,
    /// What a statement was sent ahead for is not so any more.
    #[error("what was expected is not so any more")]
    Overtaken,
    /// There is no row where there is always one.
    #[error("there is no row where one is expected")]
    NoRow,
    /// A parameter of a statement was given no value.
    #[error("parameter {place} of a statement has no value")]
    NoValue {
        /// Its place, counted from 1.
        place: usize,
    },
    /// A value is not of the type that its column has.
    #[error("column {index} of an answer is not {expected}")]
    Unreadable {
        /// Its place, counted from 0.
        index: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// A stored text is not what is stored there.
    #[error("a stored value cannot be read: {0}")]
    BadValue(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// It did not answer within so many seconds.
    pub(crate) fn silence(seconds: u64) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s")).into()
    }

    /// A stored text is not what is stored there.
    pub(crate) fn bad_value(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::BadValue(why.into())
    }

    /// The SQLSTATE, where Postgres refused.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => Some(error.as_db_error()?.code().code()),
            _ => None,
        }
    }

    /// Whether the database refuses the values, or holds other ones than it may, as opposed to being
    /// unable to work.
    ///
    /// Postgres: SQLSTATE classes 22 (data exception), 23 (integrity constraint) and 54 (a limit of
    /// the program). SQLite: result codes TOOBIG, CONSTRAINT and MISMATCH.
    pub(crate) fn is_about_data(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(TooBig | ConstraintViolation | TypeMismatch)
            ),
            Self::Postgres(_) => {
                self.sqlstate().is_some_and(|code| matches!(&code[..2], "22" | "23" | "54"))
            }
            Self::Unreadable { .. } | Self::BadValue(_) => true,
            Self::Io(_)
            | Self::Settings(_)
            | Self::Address(_)
            | Self::NoneFree
            | Self::Closed
            | Self::Overtaken
            | Self::NoRow
            | Self::NoValue { .. } => false,
        }
    }

    /// Whether the connection had ended before it was asked anything: by a signal to its backend, or
    /// because it was left idle in a transaction.
    pub(crate) fn was_cut(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Postgres(error) => match error.as_db_error() {
                None => true,
                Some(refused) => matches!(refused.code().code(), "57P01" | "25P03"),
            },
            _ => false,
        }
    }

    /// Whether nothing was carried out, because no connection was free or another process held the turn
    /// for too long (`lock_not_available`).
    pub(crate) fn is_for_want_of_a_turn(&self) -> bool {
        matches!(self, Self::NoneFree) || self.sqlstate() == Some("55P03")
    }

    /// Whether nobody could connect just now, to a server that may be there in a moment.
    pub(crate) fn is_starting(&self) -> bool {
        use std::error::Error as _;
        let Self::Postgres(error) = self else { return false };
        // `too_many_connections` (one that was closed may count still) and `cannot_connect_now`.
        if matches!(self.sqlstate(), Some("53300" | "57P03")) {
            return true;
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A server's address holds a password.
        f.debug_struct("Target").finish_non_exhaustive()
    }
}
