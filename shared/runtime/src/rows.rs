//! Rows between tables in memory and tables in the database.

use std::convert::Infallible;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::database::Database;
use crate::error::StoreError;
use crate::event_store::limit_to_bind;
use crate::row::{Cell, Evolve, Kind, Listed, Row};
use crate::tables::{Table, Visitor};
use crate::writes::Writes;

/// Loads the rows that were asked for, one statement for each table that misses any.
pub(crate) struct Load<'a>(pub(crate) &'a mut AnyConnection);

impl Visitor for Load<'_> {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), StoreError> {
        if !table.is_wanting() {
            return Ok(());
        }
        let keys: Vec<String> = table.wanted().iter().map(ToString::to_string).collect();
        let found = sqlx::query(R::LOAD)
            .bind(serde_json::to_string(&keys)?)
            .fetch_all(&mut *self.0)
            .await?;
        table.loaded(found.iter().map(read::<R>).collect::<Result<_, _>>()?);
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
        let rows: Vec<_> = table.changed().map(values).collect();
        self.writes.add(R::SAVE, &rows)?;
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
pub(crate) struct Clear<'a>(pub(crate) &'a mut AnyConnection);

impl Visitor for Clear<'_> {
    type Error = StoreError;

    async fn table<R: Evolve>(&mut self, _: &mut Table<R>) -> Result<(), StoreError> {
        sqlx::query(R::CLEAR).execute(&mut *self.0).await?;
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
    let row = sqlx::query(R::LOAD)
        .bind(serde_json::to_string(&[key.to_string()])?)
        .fetch_optional(&mut *reader)
        .await?;
    reader.give_back();
    row.as_ref().map(read).transpose()
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
    let mut query = sqlx::query(list.sql)
        .bind(after.unwrap_or(list.direction.before_first()).to_owned())
        .bind(limit_to_bind(limit));
    for (_, value) in filters {
        query = query.bind(value.clone());
    }
    let mut reader = database.reader().await?;
    let rows = query.fetch_all(&mut *reader).await?;
    reader.give_back();
    rows.iter().map(read).collect()
}

/// A page of a whole table, in the order of keys, for a fold to compare with.
pub(crate) async fn scan<R: Row>(
    connection: &mut AnyConnection,
    after: &str,
    limit: usize,
) -> Result<Vec<R>, StoreError> {
    let rows = sqlx::query(R::SCAN)
        .bind(after.to_owned())
        .bind(limit_to_bind(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

fn read<R: Row>(row: &AnyRow) -> Result<R, StoreError> {
    let mut cells = Vec::with_capacity(R::COLUMNS.len());
    for (index, (_, kind)) in R::COLUMNS.iter().enumerate() {
        cells.push(match kind {
            Kind::Text => Cell::Text(row.try_get(index)?),
            Kind::Bigint => Cell::Bigint(row.try_get(index)?),
        });
    }
    Ok(R::from_cells(cells)?)
}

/// The cells in the order of the columns: read by place they cost Postgres half of what names cost.
fn values<R: Row>(row: &R) -> Vec<serde_json::Value> {
    let value = |cell| match cell {
        Cell::Text(text) => serde_json::Value::String(text),
        Cell::Bigint(number) => number.into(),
    };
    row.cells().into_iter().map(value).collect()
}
