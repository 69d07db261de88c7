//! What a unit of work writes at its end.

use serde::Serialize;

/// Statements that do not depend on one another, each with its rows as one JSON list in `$1`.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<(&'static str, String)>);

impl Writes {
    /// Adds a statement, unless there are no rows for it.
    pub(crate) fn add(
        &mut self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), serde_json::Error> {
        if !rows.is_empty() {
            self.0.push((statement, serde_json::to_string(rows)?));
        }
        Ok(())
    }

    /// Each statement with its rows.
    pub(crate) fn one_by_one(self) -> Vec<(&'static str, String)> {
        self.0
    }

    /// All statements as one, the rows of the first in `$1`, of the second in `$2`; nothing if there
    /// are none. For Postgres, where what writes may be a part of another statement
    /// (<https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING>).
    pub(crate) fn at_once(self) -> Option<(String, Vec<String>)> {
        let (mut statements, rows): (Vec<String>, Vec<String>) = (1..)
            .zip(self.0)
            .map(|(number, (statement, rows))| {
                (statement.replace("$1", &format!("${number}")), rows)
            })
            .unzip();
        let last = statements.pop()?;
        if statements.is_empty() {
            return Some((last, rows));
        }
        let parts: Vec<String> = (1..)
            .zip(statements)
            .map(|(number, statement)| format!("part_{number} as ({statement})"))
            .collect();
        Some((format!("with {} {last}", parts.join(", ")), rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_one_with_a_parameter_each() {
        let mut writes = Writes::default();
        writes.add("insert into a select value from jsonb_each($1)", &["x"]).expect("JSON");
        writes
            .add("delete from b where key in (select atom from jsonb_each($1))", &[0; 0])
            .expect("JSON");
        writes
            .add("delete from c where key in (select atom from jsonb_each($1))", &[1, 2])
            .expect("JSON");
        let (statement, rows) = writes.at_once().expect("statements");
        assert_eq!(
            statement,
            "with part_1 as (insert into a select value from jsonb_each($1)) \
             delete from c where key in (select atom from jsonb_each($2))"
        );
        assert_eq!(rows, ["[\"x\"]", "[1,2]"]);
    }

    #[test]
    fn without_rows_there_is_no_statement() {
        assert_eq!(Writes::default().at_once(), None);
    }
}
