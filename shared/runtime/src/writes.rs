//! What a unit of work writes at its end.

use std::sync::Arc;

use crate::sql::{self, Rows, Statement};

/// Texts over rows, none of which needs what another does.
#[derive(Debug, Default)]
pub(crate) struct Writes(Option<Statement>);

impl Writes {
    /// Adds a statement over rows, unless there are none.
    pub(crate) fn add(&mut self, statement: &'static str, rows: impl Rows + 'static) {
        if rows.count() > 0 {
            let rows = Arc::new(rows);
            self.0 = Some(match self.0.take() {
                None => sql::over(rows, statement),
                Some(first) => first.beside(rows, statement),
            });
        }
    }

    /// All of them, as one statement that is answered what the first is.
    pub(crate) fn into_statements(self) -> Vec<Statement> {
        self.0.into_iter().collect()
    }
}
