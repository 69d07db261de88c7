//! How often each fault happened. Cases add lines to one file, and `scripts/test faults` sums up.

use std::io::Write as _;

use crate::support::Kind;

/// A fault happened this often to what runs on this database.
pub(super) fn count(kind: Kind, fault: &str, times: usize) {
    let Ok(file) = std::env::var("WAYBILL_TEST_TALLY") else { return };
    let file = std::fs::File::options().create(true).append(true).open(file);
    let line = format!("{fault}\t{kind:?}\t{times}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the tally can be written");
}
