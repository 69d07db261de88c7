//! What the judge says in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::found::Found;
use super::history::History;
use super::story::{Story, Waits};
use super::violation::{Kind, Violation};
use crate::client::text;
use crate::show;

/// Violations of one kind that are shown.
const SHOWN: usize = 5;
/// Characters of one violation's evidence that people are shown.
const EVIDENCE: usize = 600;

/// What was done, what was checked, and what is wrong.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether nothing is wrong.
    ok: bool,
    /// Which deployment was judged.
    server: String,
    /// What the choices of the customers followed from.
    seed: u64,
    /// How long it took.
    seconds: f64,
    operations: Operations,
    orders: Orders,
    events: Events,
    /// What was done to the deployment, and how often.
    faults: BTreeMap<&'static str, u64>,
    /// How often each promise was found broken.
    violations: BTreeMap<&'static str, usize>,
    /// The first of each kind.
    evidence: Vec<Violation>,
    /// Where the logs and the data of a private deployment are, if something is wrong with it.
    kept: Vec<String>,
}

/// Requests that change something.
#[derive(Debug, Serialize)]
struct Operations {
    /// Those that were asked for.
    asked: usize,
    /// Those of them that were answered in the end.
    answered: usize,
    /// Requests that were sent for them.
    requests: u64,
    /// Those of these that brought no answer, so that they had to be repeated.
    unknown: u64,
    /// Times that a customer looked at an order.
    reads: usize,
}

#[derive(Debug, Serialize)]
struct Orders {
    placed: usize,
    /// How many stand where.
    by_status: BTreeMap<String, usize>,
    /// Those that have not ended and are in good time.
    on_their_way: usize,
}

#[derive(Debug, Serialize)]
struct Events {
    /// Events that were checked.
    checked: usize,
    /// Those of them that were read a second time.
    read_twice: usize,
}

/// What the report adds to what was asked and found.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) server: String,
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Counts what was asked, found, and is wrong.
    pub(crate) fn new(
        about: About,
        history: &History,
        found: &Found,
        violations: &[Violation],
    ) -> Self {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut evidence = Vec::new();
        for violation in violations {
            let count = counts.entry(violation.kind.as_str()).or_default();
            *count += 1;
            if *count <= SHOWN {
                evidence.push(violation.clone());
            }
        }
        let About { server, seed, took, faults } = about;
        Self {
            ok: violations.is_empty(),
            server,
            seed,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            operations: Operations {
                asked: history.calls.len(),
                answered: history.answered(),
                requests: history.tries,
                unknown: history.unknown,
                reads: history.sights.iter().filter(|sight| sight.read).count(),
            },
            orders: Orders::count(history, found),
            events: Events { checked: found.log.len(), read_twice: found.first_read.len() },
            faults,
            violations: counts,
            evidence,
            kept: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_ok(&self) -> bool {
        self.ok
    }

    /// Says where the logs and the data are.
    pub(crate) fn kept(&mut self, places: Vec<String>) {
        self.kept = places;
    }

    /// For people.
    pub(crate) fn show(&self) {
        let Operations { asked, answered, requests, unknown, reads } = &self.operations;
        show::line(&format!(
            "judged {} in {:.1} s, with seed {}",
            self.server, self.seconds, self.seed
        ));
        show::line(&format!(
            "operations  {asked} asked for, {answered} answered, in {requests} requests of which \
             {unknown} brought no answer; {reads} reads",
        ));
        let Orders { placed, by_status, on_their_way } = &self.orders;
        let statuses = counted(by_status.iter().map(|(status, count)| (status.as_str(), *count)));
        let way = if *on_their_way == 0 {
            String::new()
        } else {
            format!("; {on_their_way} in good time have not ended")
        };
        show::line(&format!("orders      {placed} placed: {statuses}{way}"));
        let Events { checked, read_twice } = &self.events;
        show::line(&format!("events      {checked} checked, {read_twice} of them read twice"));
        if !self.faults.is_empty() {
            let faults = counted(self.faults.iter().map(|(fault, count)| (*fault, *count)));
            show::line(&format!("faults      {faults}"));
        }
        for kind in Kind::ALL {
            self.show_kind(*kind);
        }
        let all: usize = self.violations.values().sum();
        let verdict = match all {
            0 => "verdict: no violations".to_owned(),
            1 => "verdict: 1 violation".to_owned(),
            many => format!("verdict: {many} violations"),
        };
        show::line(&verdict);
        if !self.kept.is_empty() {
            show::line(&format!("logs and data are kept: {}", self.kept.join(", ")));
        }
    }

    fn show_kind(&self, kind: Kind) {
        let Some(count) = self.violations.get(kind.as_str()) else { return };
        show::line(&format!("\n{kind}, {count} times: {}", kind.meaning()));
        for violation in self.evidence.iter().filter(|violation| violation.kind == kind) {
            let evidence: String = violation.evidence.chars().take(EVIDENCE).collect();
            show::line(&format!("  {evidence}\n    see {}", violation.look));
        }
        show::line("");
    }
}

/// `3 killed, 1 paused`.
fn counted<N: std::fmt::Display>(counts: impl Iterator<Item = (impl AsRef<str>, N)>) -> String {
    let counts: Vec<String> =
        counts.map(|(what, count)| format!("{count} {}", what.as_ref())).collect();
    counts.join(", ")
}

impl Orders {
    fn count(history: &History, found: &Found) -> Self {
        let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
        for order in found.orders.values() {
            *by_status.entry(text(order, "status")).or_default() += 1;
        }
        let stories = Story::all(&found.log, &history.tag);
        let waits =
            |story: &&Story| story.open().is_some() && story.waits(found.until) != Waits::Services;
        let on_their_way = stories.values().filter(waits).count();
        Self { placed: found.orders.len(), by_status, on_their_way }
    }
}
