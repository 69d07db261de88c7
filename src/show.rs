//! What the commands print: tables for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// A line on standard output.
#[expect(clippy::print_stdout, reason = "the one home of standard output")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// A value as JSON on standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), serde_json::Error> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table on standard output.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for printed in table.lines() {
        line(printed.trim_end());
    }
}
