//! A table compared with the fold of it.

use super::Difference;
use crate::error::StoreError;
use crate::limits;
use crate::row::{Cell, Evolve};
use crate::rows;
use crate::sql::{self, Connection};
use crate::tables::{Table, Visitor};

/// Compares each table with the fold of it.
pub(super) struct Compare<'a> {
    pub(super) service: &'static str,
    pub(super) snapshot: &'a mut Connection,
    pub(super) rows: i64,
}

/// Why a comparison stopped.
pub(super) enum Unequal {
    Row(Difference),
    Store(StoreError),
}

impl From<StoreError> for Unequal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Visitor for Compare<'_> {
    type Error = Unequal;

    async fn table<R: Evolve>(&mut self, table: &mut Table<R>) -> Result<(), Unequal> {
        let mut seen = 0;
        let mut after = String::new();
        loop {
            let page = match rows::scan::<R>(self.snapshot, &after, limits::FOLD_PAGE).await {
                Err(StoreError::BadRow(bad)) => {
                    let (found, expected) = (bad.cell.to_string(), bad.expected.to_owned());
                    let place = format!("{}: {} column {}", self.service, bad.table, bad.column);
                    return Err(Unequal::Row(Difference { place, found, expected }));
                }
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = last.key().to_string();
            for row in &page {
                seen += 1;
                self.row(row, table.get(row.key()))?;
            }
        }
        let folded = table.present();
        self.rows += seen;
        if i64::try_from(folded.len()).unwrap_or(i64::MAX) == seen {
            return Ok(());
        }
        for row in folded {
            let keys = serde_json::to_string(&[row.key().to_string()]).map_err(StoreError::from)?;
            let found = sql::query(R::LOAD).bind(keys).fetch_optional::<sql::Row>(self.snapshot);
            if found.await.map_err(StoreError::from)?.is_none() {
                let place = format!("{}: {} {}", self.service, R::TABLE, row.key());
                let expected = "a row, by the fold of the outbox".to_owned();
                return Err(Unequal::Row(Difference {
                    place,
                    found: "nothing".to_owned(),
                    expected,
                }));
            }
        }
        Ok(())
    }
}

impl Compare<'_> {
    fn row<R: Evolve>(&self, row: &R, folded: Option<&R>) -> Result<(), Unequal> {
        let place = format!("{}: {} {}", self.service, R::TABLE, row.key());
        let Some(folded) = folded else {
            let expected = "no row: no event made it".to_owned();
            return Err(Unequal::Row(Difference { place, found: "a row".to_owned(), expected }));
        };
        let (found, expected) = (row.cells(), folded.cells());
        let columns = R::COLUMNS.iter().map(|(column, _)| *column);
        let unequal = columns.zip(found.iter().zip(&expected)).find(|(_, (a, b))| a != b);
        unequal.map_or(Ok(()), |(column, (found, expected)): (&str, (&Cell, &Cell))| {
            Err(Unequal::Row(Difference {
                place: format!("{place}, column {column}"),
                found: found.to_string(),
                expected: format!("{expected} by the fold of the outbox"),
            }))
        })
    }
}
