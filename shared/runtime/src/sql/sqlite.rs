//! SQLite: a file, opened by a thread of its own, on which every statement of a connection runs.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};
use tokio::sync::oneshot;

use super::{Answered, Error, Field, Kind, Row, Rows, Statement};
use crate::limits;
use crate::row::{self, Cell};

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
            match rusqlite::Connection::open(file) {
                Ok(connection) => {
                    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS_PREPARED);
                    // Whoever waits for it is there, or the jobs are none.
                    let _ = opening.send(Ok(()));
                    serve(&connection, &waiting);
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

fn serve(connection: &rusqlite::Connection, jobs: &mpsc::Receiver<Job>) {
    for Job { statements, reply } in jobs {
        let answers = statements.iter().map(|statement| answer(connection, statement)).collect();
        // Who asked may want to have the rows to itself again.
        drop(statements);
        // It may have gone away meanwhile.
        let _ = reply.send(answers);
    }
}

fn answer(connection: &rusqlite::Connection, statement: &Statement) -> Result<Answered, Error> {
    if statement.kind == Kind::Plain {
        connection.execute_batch(&statement.text)?;
        return Ok(Answered::default());
    }
    let column = |index, kind| match kind {
        row::Kind::Text => format!("value ->> {index}"),
        row::Kind::Bigint => format!("cast(value ->> {index} as bigint)"),
    };
    let text = statement.text_with_rows(column, |place, _| format!("jsonb_each(${place})"));
    let mut prepared = connection.prepare_cached(&text)?;
    let list = statement.rows.as_deref().map(|rows| serde_json::to_string(&List(rows)));
    let list = list.transpose().map_err(Error::bad_value)?.map(Cell::Text);
    bind(&mut prepared, statement.values.iter().chain(&list))?;
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

/// Rows as a list of lists.
struct List<'a>(&'a dyn Rows);

/// One of them.
struct One<'a> {
    rows: &'a dyn Rows,
    row: usize,
    columns: usize,
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(rows) = self;
        let columns = rows.kinds().len();
        serializer.collect_seq((0..rows.count()).map(|row| One { rows: *rows, row, columns }))
    }
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.columns))?;
        for column in 0..self.columns {
            match self.rows.value(self.row, column) {
                Some(Field::Text(text)) => list.serialize_element(text)?,
                Some(Field::Id(id)) => list.serialize_element(&id)?,
                Some(Field::Bigint(number)) => list.serialize_element(&number)?,
                None => return Err(serde::ser::Error::custom("rows have different columns")),
            }
        }
        list.end()
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
