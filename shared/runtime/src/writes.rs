//! What a unit of work writes at its end.

use crate::row::Cell;
use crate::sql::{self, Statement};

/// Statements that do not depend on one another.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<Statement>);

impl Writes {
    /// Adds a statement over rows, unless there are none.
    pub(crate) fn add(&mut self, statement: &'static str, rows: Vec<Vec<Cell>>) {
        if !rows.is_empty() {
            self.0.push(sql::over(rows, statement));
        }
    }

    /// The statements, to be carried out together.
    pub(crate) fn into_statements(self) -> Vec<Statement> {
        self.0
    }
}
