//! Whether the event store is gapless, in order, complete in its causes, and still what it was.

use std::collections::BTreeMap;

use crate::judge::found::{Event, Found};
use crate::judge::story::Story;
use crate::judge::violation::{Kind, Violation};

/// Who asked for what a command did; everything else is caused by an event.
const COMMANDS: &str = "http";

pub(super) fn check(found: &Found, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let mut violations = gapless(found);
    violations.extend(in_time(&found.log));
    violations.extend(ids_once(&found.log));
    violations.extend(streams(found, stories));
    violations.extend(causes(found, stories));
    violations.extend(unchanged(found));
    violations
}

fn at(kind: Kind, event: &Event, evidence: impl std::fmt::Display) -> Violation {
    let evidence = format!("position {}, {}: {evidence}", event.position, event.kind());
    Violation::new(kind, evidence, format!("/v1/audit/events/{}", event.body.id))
}

/// Positions go up by one.
fn gapless(found: &Found) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut before = found.start;
    for event in &found.log {
        if event.position <= before {
            violations.push(at(Kind::Reordered, event, format!("it is listed after {before}")));
        } else if event.position > before + 1 {
            let evidence = format!("there is nothing from {} up to it", before + 1);
            violations.push(at(Kind::Lost, event, evidence));
        }
        before = event.position;
    }
    violations
}

/// The time at which the event store took events in never goes back.
fn in_time(log: &[Event]) -> Vec<Violation> {
    let pairs = log.windows(2).filter_map(|pair| match pair {
        [one, two] if two.recorded_at < one.recorded_at => Some((one, two)),
        _ => None,
    });
    let violation = |(one, two): (&Event, &Event)| {
        let evidence = format!("recorded {}, after {}", two.recorded_at, one.recorded_at);
        at(Kind::Reordered, two, evidence)
    };
    pairs.map(violation).collect()
}

/// No event is there twice.
fn ids_once(log: &[Event]) -> Vec<Violation> {
    let mut seen: BTreeMap<&str, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in log {
        if let Some(earlier) = seen.insert(&event.body.id, event.position) {
            let evidence = format!("the same event is at position {earlier}");
            violations.push(at(Kind::Doubled, event, evidence));
        }
    }
    violations
}

/// Within a stream versions go up by one, from 1 where the stream is of this run.
fn streams(found: &Found, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in &found.log {
        let (stream, version) = (event.body.subject.as_str(), event.body.streamversion);
        let of_run = stories.contains_key(&event.body.correlationid) || found.owns(event);
        let first = if of_run { 0 } else { version - 1 };
        let before = *newest.get(stream).unwrap_or(&first);
        if version > before + 1 {
            let evidence = format!("version {version} of {stream} comes after {before}");
            violations.push(at(Kind::Lost, event, evidence));
        } else if version <= before {
            let evidence = format!("version {version} of {stream} comes after {before}");
            violations.push(at(Kind::Reordered, event, evidence));
        }
        newest.insert(stream, version.max(before));
    }
    violations
}

/// Every event of an order was caused by a command, or by an event that came before it.
fn causes(found: &Found, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let places: BTreeMap<&str, i64> =
        found.log.iter().map(|event| (event.body.id.as_str(), event.position)).collect();
    let mut violations = Vec::new();
    let caused = |event: &&Event| event.body.actor != COMMANDS;
    for event in stories.values().flat_map(Story::events).filter(caused) {
        let cause = event.body.causationid.as_str();
        match places.get(cause) {
            None => {
                violations.push(at(Kind::Lost, event, format!("its cause {cause} is not there")));
            }
            Some(position) if *position >= event.position => {
                let evidence = format!("its cause {cause} is at position {position}");
                violations.push(at(Kind::Reordered, event, evidence));
            }
            Some(_) => {}
        }
    }
    violations
}

/// What was read while the run went on is what is there in the end.
fn unchanged(found: &Found) -> Vec<Violation> {
    let now: BTreeMap<i64, &Event> =
        found.log.iter().map(|event| (event.position, event)).collect();
    let mut violations = Vec::new();
    for (position, digest) in &found.first_read {
        match now.get(position) {
            None => {
                let evidence = format!("the event at position {position} was read and is gone");
                let look = format!("/v1/audit/events?after={}", position - 1);
                violations.push(Violation::new(Kind::Lost, evidence, look));
            }
            Some(event) if event.digest != *digest => {
                violations.push(at(Kind::Changed, event, "it was read before, and was another"));
            }
            Some(_) => {}
        }
    }
    violations
}
