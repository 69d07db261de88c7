//! SQLite: a file, opened by a thread of its own, on which every statement of a connection runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use rusqlite::ToSql;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use tokio::sync::oneshot;

use super::{Answered, Error, Field, Kind, Over, Row, Rows, Statement};
use crate::limits;
use crate::row::Cell;

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct File(pub(crate) PathBuf);

/// A connection to a file.
#[derive(Debug)]
pub(crate) struct Connection {
    jobs: mpsc::Sender<Job>,
    /// Hears when the thread has ended.
    ended: oneshot::Receiver<()>,
}

struct Job {
    statements: Vec<Statement>,
    reply: oneshot::Sender<Result<Vec<Answered>, Error>>,
}

impl File {
    /// Opens it, and makes it if it is not there.
    pub(super) async fn open(&self) -> Result<Connection, Error> {
        let (jobs, waiting) = mpsc::channel();
        let (ending, ended) = oneshot::channel();
        let (opening, opened) = oneshot::channel();
        let file = self.0.clone();
        thread::Builder::new().name("sqlite".to_owned()).spawn(move || {
            let current = Current::default();
            let open = || -> rusqlite::Result<_> {
                let connection = rusqlite::Connection::open(file)?;
                current.offer(&connection)?;
                Ok(connection)
            };
            match open() {
                Ok(connection) => {
                    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS_PREPARED);
                    // Whoever waits for it is there, or the jobs are none.
                    let _ = opening.send(Ok(()));
                    serve(&connection, &current, &waiting);
                }
                Err(error) => {
                    let _ = opening.send(Err(error));
                }
            }
            let _ = ending.send(());
        })?;
        opened.await.map_err(|_| Error::Closed)??;
        Ok(Connection { jobs, ended })
    }
}

impl Connection {
    pub(super) async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Answered>, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { statements, reply }).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    pub(super) async fn close(self) {
        drop(self.jobs);
        // It is told, or has ended already.
        let _ = self.ended.await;
    }
}

fn serve(connection: &rusqlite::Connection, current: &Current, jobs: &mpsc::Receiver<Job>) {
    for Job { statements, reply } in jobs {
        let answers =
            statements.iter().map(|statement| answer(connection, current, statement)).collect();
        current.set(None);
        // Who asked may want to have the rows to itself again.
        drop(statements);
        // It may have gone away meanwhile.
        let _ = reply.send(answers);
    }
}

fn answer(
    connection: &rusqlite::Connection,
    current: &Current,
    statement: &Statement,
) -> Result<Answered, Error> {
    if statement.kind == Kind::Plain {
        connection.execute_batch(&statement.text)?;
        return Ok(Answered::default());
    }
    let answered = carry_out(connection, current, statement, statement.rows.as_ref())?;
    for Over { text, rows } in &statement.beside {
        carry_out(connection, current, &super::query(text), Some(rows))?;
    }
    Ok(answered)
}

fn carry_out(
    connection: &rusqlite::Connection,
    current: &Current,
    statement: &Statement,
    rows: Option<&Arc<dyn Rows>>,
) -> Result<Answered, Error> {
    current.set(rows);
    let (text, count) = match rows {
        Some(rows) => (
            with_rows(statement, rows.kinds().len()).into(),
            Some(i64::try_from(rows.count()).map_err(Error::bad_value)?.into()),
        ),
        None => (statement.text.clone(), None),
    };
    let mut prepared = connection.prepare_cached(&text)?;
    bind(&mut prepared, statement.values.iter().chain(&count))?;
    let columns = prepared.column_count();
    if columns == 0 {
        let changed = prepared.raw_execute()?;
        return Ok(Answered { rows: Vec::new(), changed: changed as u64 });
    }
    let mut found = prepared.raw_query();
    if statement.kind == Kind::Expectation {
        let is_so =
            matches!(found.next()?.map(|row| row.get_ref(0)), Some(Ok(ValueRef::Integer(1))));
        return if is_so { Ok(Answered::default()) } else { Err(Error::Overtaken) };
    }
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let cells = (0..columns).map(|index| cell(row.get_ref(index)?, index));
        rows.push(Row::Sqlite(cells.collect::<Result<_, Error>>()?));
    }
    Ok(Answered { rows, changed: 0 })
}

/// The text with a table of so many columns, whose rows are counted in the parameter behind the others.
fn with_rows(Statement { text, values, .. }: &Statement, columns: usize) -> String {
    let cells: Vec<String> = (0..columns).map(|index| format!("cell(k, {index})")).collect();
    let (cells, place) = (cells.join(", "), values.len() + 1);
    let select = format!(
        "select {cells} from (with recursive each (k) as (values (0) union all select k + 1 \
         from each where k + 1 < ${place}) select k from each)"
    );
    format!("with {} {text}", super::table_of_rows(columns, &select))
}

/// The rows of the statement that is carried out, for the function `cell` of its text.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<Option<Arc<dyn Rows>>>>);

impl Current {
    fn set(&self, rows: Option<&Arc<dyn Rows>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rows.cloned();
    }

    /// Gives this connection the function.
    fn offer(&self, connection: &rusqlite::Connection) -> rusqlite::Result<()> {
        let Self(current) = self.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function("cell", 2, flags, move |arguments| {
            let index = |place| arguments.get(place).map(|index: u32| index as usize);
            let (row, column) = (index(0)?, index(1)?);
            let rows = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Found { rows, row, column })
        })
    }
}

/// What the function finds: a value that stays where it is.
struct Found {
    rows: Option<Arc<dyn Rows>>,
    row: usize,
    column: usize,
}

impl ToSql for Found {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = self.rows.as_ref().and_then(|rows| rows.value(self.row, self.column));
        Ok(match value {
            Some(Field::Text(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Some(Field::Id(id)) => ToSqlOutput::Owned(Value::Text(id.to_string())),
            Some(Field::Bigint(number)) => ToSqlOutput::Borrowed(ValueRef::Integer(number)),
            // No column takes a null.
            None => ToSqlOutput::Borrowed(ValueRef::Null),
        })
    }
}

/// To SQLite `$2` is a name like any other, with a place of its own: where it comes first in the text.
fn bind<'a>(
    prepared: &mut rusqlite::Statement<'_>,
    values: impl Iterator<Item = &'a Cell>,
) -> Result<(), Error> {
    let values: Vec<&Cell> = values.collect();
    for place in 1..=prepared.parameter_count() {
        let name = prepared.parameter_name(place).and_then(|name| name.strip_prefix('$'));
        let number: Option<usize> = name.and_then(|number| number.parse().ok());
        let value = number.and_then(|number| values.get(number.checked_sub(1)?));
        prepared.raw_bind_parameter(place, value.ok_or(Error::NoValue { place })?)?;
    }
    Ok(())
}

fn cell(value: ValueRef<'_>, index: usize) -> Result<Cell, Error> {
    match value {
        ValueRef::Integer(number) => Ok(Cell::Bigint(number)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(Error::bad_value)?;
            Ok(Cell::Text(text.to_owned()))
        }
        _ => Err(Error::Unreadable { index, expected: "a whole number or a text" }),
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bigint(number) => ValueRef::Integer(*number),
        }))
    }
}
