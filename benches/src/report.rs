//! How figures are shown.

use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};

use crate::figure::Figure;

/// A table for people, or an array for programs, on standard output.
#[expect(clippy::print_stdout, reason = "the result of the program")]
pub(crate) fn show(figures: &[Figure], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(figures)?);
    } else {
        println!("{}", table(figures));
    }
    Ok(())
}

/// The last words of a run that failed.
#[expect(clippy::print_stderr, reason = "the last words of the program")]
pub(crate) fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("waybill-bench: {error:#}");
    ExitCode::FAILURE
}

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["figure", "value", "unit", "baseline", "ratio", "goal (moonshot)", "met"]);
    for figure in figures {
        let goal = figure.goal.as_ref();
        table.add_row([
            figure.name.clone(),
            digits(figure.value),
            figure.unit.to_owned(),
            figure.baseline.map(digits).unwrap_or_default(),
            figure.ratio.map(digits).unwrap_or_default(),
            goal.map(ToString::to_string).unwrap_or_default(),
            met(figure).to_owned(),
        ]);
    }
    for column in [1, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn met(figure: &Figure) -> &'static str {
    let passed = figure.goal.as_ref().is_some_and(|goal| goal.is_passed_by(figure));
    match figure.met {
        Some(true) if passed => "yes, moonshot",
        Some(true) => "yes",
        Some(false) => "no",
        None if figure.goal.is_some() => "not measured",
        None => "",
    }
}

/// As many digits as tell something.
fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}
