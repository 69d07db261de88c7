//! Decides from what was answered and what is there whether anything is wrong. Pure: it asks nobody.
//!
//! - [`answers`]: whether what was answered is there, once, as it was answered.
//! - [`stories`]: whether each order went its way to one end, each step once.
//! - [`books`]: whether stock and money are what came in less what went out, at every moment.
//! - [`log`]: whether the event store is gapless, in order, and still what it was.

mod answers;
mod books;
mod log;
mod stories;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::found::Found;
use super::history::History;
use super::story::Story;
use super::violation::{Kind, Violation};

/// Everything that is wrong.
pub(crate) fn check(history: &History, found: &Found) -> Vec<Violation> {
    let stories = Story::all(&found.log, &history.tag);
    let mut violations = answers::check(history, found, &stories);
    violations.extend(stories::check(found, &stories));
    violations.extend(books::check(history, found, &stories));
    violations.extend(log::check(found, &stories));
    violations.extend(parked(found, &stories));
    violations
}

/// Messages of this run that a service could not handle. Those of others say nothing about it.
fn parked(found: &Found, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let of_run = |lane: &str| {
        let belongs = |event: &&super::found::Event| event.body.correlationid == lane;
        stories.contains_key(lane) || found.log.iter().filter(belongs).any(|e| found.owns(e))
    };
    let parked = found.parked.iter().filter(|letter| of_run(&letter.lane));
    let violation = |letter: &super::found::Parked| {
        let evidence =
            format!("{} could not handle {}: {}", letter.service, letter.id, letter.cause);
        Violation::new(Kind::Parked, evidence, format!("/v1/ops/{}/dead-letters", letter.service))
    };
    parked.map(violation).collect()
}
