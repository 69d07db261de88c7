//! What a unit of work writes at its end.

use std::sync::Arc;

use crate::sql::{self, Rows, Statement};

/// Statements that do not depend on one another.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<Statement>);

impl Writes {
    /// Adds a statement over rows, unless there are none.
    pub(crate) fn add(&mut self, statement: &'static str, rows: impl Rows + 'static) {
        self.add_shared(statement, Arc::new(rows));
    }

    /// The same over rows that somebody else needs as well.
    pub(crate) fn add_shared(&mut self, statement: &'static str, rows: Arc<dyn Rows>) {
        if rows.count() > 0 {
            self.0.push(sql::over(rows, statement));
        }
    }

    /// The statements, to be carried out together.
    pub(crate) fn into_statements(self) -> Vec<Statement> {
        self.0
    }
}
