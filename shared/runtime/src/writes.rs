//! What a unit of work writes at its end.

use serde::Serialize;

use crate::sql::{self, Statement};

/// Statements that do not depend on one another, each with its rows as one JSON list in `$1`.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<Statement>);

impl Writes {
    /// Adds a statement, unless there are no rows for it.
    pub(crate) fn add(
        &mut self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), serde_json::Error> {
        if !rows.is_empty() {
            self.0.push(sql::query(statement).bind(serde_json::to_string(rows)?));
        }
        Ok(())
    }

    /// The statements, to be carried out together.
    pub(crate) fn into_statements(self) -> Vec<Statement> {
        self.0
    }
}
