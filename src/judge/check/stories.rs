//! Whether each order went its way to one end, each step once, and what was set aside came back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::{number, text};
use crate::judge::found::Found;
use crate::judge::story::{Story, Waits};
use crate::judge::violation::{Kind, Violation};

/// From which status to which an order may go.
const WAYS: [(&str, &str); 13] = [
    ("", "placed"),
    ("placed", "placed"),
    ("placed", "confirmed"),
    ("placed", "rejected"),
    ("placed", "cancelled"),
    ("confirmed", "cancelling"),
    ("confirmed", "dispatched"),
    ("confirmed", "cancelled"),
    ("cancelling", "dispatched"),
    ("cancelling", "cancelled"),
    ("dispatched", "delivered"),
    ("dispatched", "cancelled"),
    ("delivered", "completed"),
];
/// What cannot happen after what, in the streams of stock and payment.
const AFTER: [(&str, &str); 8] = [
    ("stock.shipped", "stock.reserved"),
    ("stock.returned", "stock.shipped"),
    ("payment.captured", "payment.authorized"),
    ("payment.refunded", "payment.captured"),
    ("shipment.dispatched", "shipment.created"),
    ("shipment.delivered", "shipment.dispatched"),
    ("shipment.failed", "shipment.created"),
    ("order.confirmed", "stock.reserved"),
];
/// What contradicts an end.
const AGAINST: [(&str, &[&str]); 3] = [
    (
        "completed",
        &[
            "stock.rejected",
            "stock.released",
            "stock.returned",
            "payment.declined",
            "payment.released",
            "payment.refunded",
            "shipment.failed",
            "shipment.cancelled",
        ],
    ),
    ("rejected", &["stock.shipped", "payment.captured", "shipment.created"]),
    ("cancelled", &["shipment.delivered"]),
];
/// What a customer is told of an order that ends so.
const TOLD: [(&str, &[&str]); 2] =
    [("completed", &["confirmed", "delivered", "dispatched"]), ("rejected", &["rejected"])];

pub(super) fn check(found: &Found, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, story) in stories {
        violations.extend(each_step_once(id, story));
        violations.extend(in_order(id, story));
        violations.extend(comes_to_its_end(id, story, found));
        violations.extend(fits_its_end(id, story));
        violations.extend(about_the_order(id, story));
        violations.extend(as_shown(id, story, found));
    }
    violations
}

/// What happens to an order happens once; only a parcel may be seen on its way often.
fn each_step_once(id: &str, story: &Story) -> Vec<Violation> {
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in story.events() {
        let step = match event.kind() {
            "shipment.in_transit" => continue,
            "user.notified" => format!("user.notified {}", text(&event.body.data, "kind")),
            kind => kind.to_owned(),
        };
        times.entry(step).or_default().push(event.position);
    }
    let doubled = times.into_iter().filter(|(_, positions)| positions.len() > 1);
    let violation = |(step, positions): (String, Vec<i64>)| {
        let evidence = format!("{step} happened at positions {positions:?}");
        Violation::of_order(Kind::Doubled, id, evidence)
    };
    doubled.map(violation).collect()
}

/// An order goes from status to status as it may, and nothing happens before what it needs.
fn in_order(id: &str, story: &Story) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut before = "";
    for (kind, status) in story.statuses() {
        if !WAYS.contains(&(before, status)) {
            let evidence = format!("{kind} came while it was {before:?}");
            violations.push(Violation::of_order(Kind::Reordered, id, evidence));
        }
        before = status;
    }
    for (later, earlier) in AFTER {
        let first = |kind: &str| story.named(kind).next().map(|event| event.position);
        let Some(position) = first(later) else { continue };
        if first(earlier).is_none_or(|cause| cause > position) {
            let evidence = format!("{later} at position {position} came without {earlier} before");
            violations.push(Violation::of_order(Kind::Reordered, id, evidence));
        }
    }
    violations
}

/// It ends within its time, and so does all that was set aside for it.
fn comes_to_its_end(id: &str, story: &Story, found: &Found) -> Option<Violation> {
    let why = story.open()?;
    // Those that are packed or on their way for long are in good time.
    let late = story.waits(found.until) == Waits::Services;
    let evidence = format!("{why}; it is {}", story.status());
    late.then(|| Violation::of_order(Kind::Hanging, id, evidence))
}

/// What happened with stock, payment and parcel is what its end says.
fn fits_its_end(id: &str, story: &Story) -> Vec<Violation> {
    let end = story.status();
    let against = AGAINST.iter().filter(|(status, _)| *status == end);
    let against = against.flat_map(|(_, kinds)| *kinds).filter(|kind| story.has(kind));
    let mut violations: Vec<Violation> = against
        .map(|kind| {
            Violation::of_order(Kind::Contradicted, id, format!("it is {end}, and there is {kind}"))
        })
        .collect();
    for (_, told) in TOLD.iter().filter(|(status, _)| *status == end) {
        let kinds: BTreeSet<String> =
            story.named("user.notified").map(|event| text(&event.body.data, "kind")).collect();
        if story.open().is_none() && !kinds.iter().eq(*told) {
            let evidence = format!("it is {end}, and its customer was told {kinds:?}");
            violations.push(Violation::of_order(Kind::Contradicted, id, evidence));
        }
    }
    violations
}

/// What is set aside, shipped, held and spent is what was ordered.
fn about_the_order(id: &str, story: &Story) -> Vec<Violation> {
    let Some(placed) = story.named("order.placed").next() else { return Vec::new() };
    let (lines, total) = (quantities(&placed.body.data), number(&placed.body.data, "total.amount"));
    let mut violations = Vec::new();
    for event in story.events() {
        let data = &event.body.data;
        let differs = match event.kind() {
            "stock.reserved" | "stock.shipped" | "stock.returned" | "shipment.created" => {
                quantities(data) != lines
            }
            "payment.authorized" | "payment.captured" | "payment.refunded" => {
                number(data, "amount.amount") != total
            }
            _ => false,
        };
        if differs {
            let evidence =
                format!("it was placed as {}, and {} says {data}", placed.body.data, event.kind());
            violations.push(Violation::of_order(Kind::Changed, id, evidence));
        }
    }
    violations
}

/// How many of each product.
pub(super) fn quantities(data: &Value) -> BTreeMap<String, i64> {
    let lines = data.get("lines").and_then(Value::as_array).into_iter().flatten();
    lines.map(|line| (text(line, "sku"), number(line, "quantity"))).collect()
}

/// The order, its history, and the order that its history makes say the same.
fn as_shown(id: &str, story: &Story, found: &Found) -> Vec<Violation> {
    let Some(order) = found.orders.get(id) else {
        let evidence = "it is in the event store, and the order service does not know it";
        return vec![Violation::of_order(Kind::Lost, id, evidence)];
    };
    if story.open().is_some() {
        // It may have gone on between two looks.
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut contradicted = |evidence: String| {
        violations.push(Violation::of_order(Kind::Contradicted, id, evidence));
    };
    let status = text(order, "status");
    if status != story.status() {
        contradicted(format!("it is {status}, and its history ends as {}", story.status()));
    }
    let own = story.statuses().count();
    if text(order, "version") != own.to_string() {
        contradicted(format!("version {} after {own} events", text(order, "version")));
    }
    if found.states.get(id) != Some(order) {
        let state = found.states.get(id).unwrap_or(&Value::Null);
        contradicted(format!("it is {order}, and its history makes it {state}"));
    }
    if let Some(timeline) = found.timelines.get(id)
        && !timeline.iter().eq(story.events().iter().map(|event| &event.body.id))
    {
        let (shown, there) = (timeline.len(), story.events().len());
        contradicted(format!("its history shows {shown} events, the event store holds {there}"));
    }
    violations
}
