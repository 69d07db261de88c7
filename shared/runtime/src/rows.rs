//! Rows between tables in memory and tables in the database.

use std::convert::Infallible;

use crate::database::Database;
use crate::error::StoreError;
use crate::event_store::limit_to_bind;
use crate::row::{Evolve, Listed, Row};
use crate::sql::{self, Answered, Connection, Statement};
use crate::tables::{Table, Tables, Visitor};
use crate::writes::Writes;

/// Loads the rows that were asked for, in one round trip.
pub(crate) async fn load<T: Tables>(
    tables: &mut T,
    connection: &mut Connection,
) -> Result<(), StoreError> {
    let statements = loads(tables).await?;
    let answers = connection.run(statements).await?;
    loaded(tables, answers).await
}

/// The statements that load the rows that were asked for, one for each table that misses any.
pub(crate) async fn loads<T: Tables>(tables: &mut T) -> Result<Vec<Statement>, StoreError> {
    let mut loads = Loads(Vec::new());
    tables.visit(&mut loads).await?;
    Ok(loads.0)
}

/// Takes what those statements found.
pub(crate) async fn loaded<T: Tables>(
    tables: &mut T,
    answers: Vec<Answered>,
) -> Result<(), StoreError> {
    tables.visit(&mut Loaded(answers.into_iter())).await
}

struct Loads(Vec<Statement>);

impl Visitor for Loads {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), StoreError> {
        if table.is_wanting() {
            let keys: Vec<String> = table.wanted().iter().map(ToString::to_string).collect();
            self.0.push(sql::query(R::LOAD).bind(serde_json::to_string(&keys)?));
        }
        Ok(())
    }
}

struct Loaded(std::vec::IntoIter<Answered>);

impl Visitor for Loaded {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), StoreError> {
        if table.is_wanting() {
            let found = self.0.next().ok_or(sql::Error::NoRow)?.rows()?;
            table.loaded(found.into_iter().map(read::<R>).collect::<Result<_, _>>()?);
        }
        Ok(())
    }
}

/// Knows that nothing has a row yet whose key is an id that was made just now.
pub(crate) struct Fresh(pub(crate) String);

impl Visitor for Fresh {
    type Error = Infallible;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), Infallible> {
        table.is_absent(&self.0);
        Ok(())
    }
}

/// Saves the rows that events changed, one statement for each table with any.
pub(crate) struct Save<'a> {
    pub(crate) writes: &'a mut Writes,
    /// The rows saved, each as `table/key`.
    pub(crate) changed: Vec<String>,
}

impl Visitor for Save<'_> {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), StoreError> {
        self.writes.add(R::SAVE, table.changed().map(Row::cells).collect::<Vec<_>>());
        self.changed.extend(table.changed().map(|row| change::<R>(row.key())));
        Ok(())
    }
}

/// Notes the names of tables.
#[derive(Default)]
pub(crate) struct TableNames(pub(crate) Vec<&'static str>);

impl Visitor for TableNames {
    type Error = Infallible;

    async fn table<R: Evolve>(&mut self, _: &mut Table<R>) -> Result<(), Infallible> {
        self.0.push(R::TABLE);
        Ok(())
    }
}

/// Empties tables.
pub(crate) struct Clear<'a>(pub(crate) &'a mut Connection);

impl Visitor for Clear<'_> {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, _: &mut Table<R>) -> Result<(), StoreError> {
        sql::query(R::CLEAR).execute(self.0).await?;
        Ok(())
    }
}

/// How a changed row is told to those who wait for it.
pub(crate) fn change<R: Row>(key: &R::Key) -> String {
    format!("{}/{key}", R::TABLE)
}

/// One row.
pub(crate) async fn get<R: Row>(
    database: &Database,
    key: &R::Key,
) -> Result<Option<R>, StoreError> {
    let mut reader = database.reader().await?;
    let row = sql::query(R::LOAD)
        .bind(serde_json::to_string(&[key.to_string()])?)
        .fetch_optional(&mut reader)
        .await?;
    reader.give_back();
    row.map(read).transpose()
}

/// A page of a list.
pub(crate) async fn list<R: Listed>(
    database: &Database,
    filters: &[(&'static str, String)],
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<R>, StoreError> {
    let columns: Vec<&str> = filters.iter().map(|(column, _)| *column).collect();
    let list = R::LISTS
        .iter()
        .find(|list| list.filters == columns)
        .ok_or_else(|| StoreError::NoSuchList { table: R::TABLE, filters: columns.join(", ") })?;
    let mut query = sql::query(list.sql)
        .bind(after.unwrap_or(list.direction.before_first()).to_owned())
        .bind(limit_to_bind(limit));
    for (_, value) in filters {
        query = query.bind(value.clone());
    }
    let mut reader = database.reader().await?;
    let rows = query.fetch_all(&mut reader).await?;
    reader.give_back();
    rows.into_iter().map(read).collect()
}

/// A page of a whole table, in the order of keys, for a fold to compare with.
pub(crate) async fn scan<R: Row>(
    connection: &mut Connection,
    after: &str,
    limit: usize,
) -> Result<Vec<R>, StoreError> {
    let rows = sql::query(R::SCAN)
        .bind(after.to_owned())
        .bind(limit_to_bind(limit))
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(read).collect()
}

fn read<R: Row>(row: sql::Row) -> Result<R, StoreError> {
    Ok(R::from_cells(row.cells(R::COLUMNS.iter().map(|(_, kind)| *kind))?)?)
}
