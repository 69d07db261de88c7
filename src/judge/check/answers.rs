//! Whether what was answered is there, once, as it was answered.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::{number, text};
use crate::judge::found::Found;
use crate::judge::history::{Answer, Call, History, Wish};
use crate::judge::story::Story;
use crate::judge::violation::{Kind, Violation};

/// What of an order never changes.
const FIXED: [&str; 7] = ["id", "number", "customer_id", "lines", "total", "ship_to", "placed_at"];

pub(super) fn check(
    history: &History,
    found: &Found,
    stories: &BTreeMap<String, Story>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for call in &history.calls {
        violations.extend(answered_once(call));
        violations.extend(answered_well(call));
    }
    let prices = prices(history);
    let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &found.listed {
        *listed.entry(id).or_default() += 1;
    }
    for (call, order) in history.placed() {
        violations.extend(as_asked(call, order, &prices));
        violations.extend(still_there(call, order, found, stories));
        violations.extend(listed_once(call, order, &listed));
    }
    violations.extend(one_order_for_each_key(history, found, stories));
    violations.extend(kept_promises(history, stories));
    violations.extend(never_back(history));
    violations
}

fn named(call: &Call) -> String {
    format!("POST {} under key {}", call.path, call.key)
}

/// A request is answered, and whenever it is repeated, in the same way.
fn answered_once(call: &Call) -> Option<Violation> {
    let Some((first, rest)) = call.answers.split_first() else {
        let evidence = format!("{} was never answered: {}", named(call), call.trouble);
        return Some(Violation::new(Kind::Hanging, evidence, &call.path));
    };
    let other = rest.iter().find(|answer| *answer != first)?;
    let id = |answer: &Answer| match answer {
        Answer::Yes(value) => text(value, "id"),
        Answer::No { .. } => String::new(),
    };
    let (one, two) = (id(first), id(other));
    if one != two && !one.is_empty() && !two.is_empty() {
        let evidence = format!("{} was answered with {one} and then with {two}", named(call));
        return Some(Violation::new(Kind::Doubled, evidence, &call.path));
    }
    let evidence = format!("{} was answered {first} and then {other}", named(call));
    Some(Violation::new(Kind::Changed, evidence, &call.path))
}

/// All requests of the judge are in order, but those that reuse a key.
fn answered_well(call: &Call) -> Option<Violation> {
    let (status, why) = match (call.answers.first()?, &call.wish) {
        (Answer::Yes(value), Wish::Reuse) => {
            let evidence =
                format!("{} was another request under a used key, and became {value}", named(call));
            return Some(Violation::new(Kind::Doubled, evidence, &call.path));
        }
        // A parcel may be faster than its customer, and its carrier than the judge.
        (Answer::Yes(_), _)
        | (Answer::No { status: 422, .. }, Wish::Reuse)
        | (Answer::No { status: 409, .. }, Wish::Cancel { .. } | Wish::Track { .. }) => {
            return None;
        }
        (Answer::No { status, why }, _) => (status, why),
    };
    let gone = *status == 404 && !matches!(call.wish, Wish::Reuse);
    let kind = if gone { Kind::Lost } else { Kind::Refused };
    let evidence = format!("{} was answered {status} {why}", named(call));
    Some(Violation::new(kind, evidence, &call.path))
}

/// The price of each product.
fn prices(history: &History) -> BTreeMap<&str, i64> {
    history
        .calls
        .iter()
        .filter_map(|call| match &call.wish {
            Wish::List { sku, price, .. } => Some((sku.as_str(), *price)),
            _ => None,
        })
        .collect()
}

/// What was answered is what was asked for.
fn as_asked(call: &Call, order: &Value, prices: &BTreeMap<&str, i64>) -> Option<Violation> {
    let Wish::Place { customer, lines } = &call.wish else { return None };
    let mut total = 0;
    let mut answered = BTreeMap::new();
    for line in order.get("lines").and_then(Value::as_array).into_iter().flatten() {
        let (sku, quantity) = (text(line, "sku"), number(line, "quantity"));
        let price = number(line, "unit_price.amount");
        total += price * quantity;
        if prices.get(sku.as_str()) != Some(&price) {
            let evidence = format!("{} was answered with {sku} at {price}", named(call));
            return Some(Violation::new(Kind::Changed, evidence, &call.path));
        }
        answered.insert(sku, quantity);
    }
    let same = &answered == lines
        && text(order, "customer_id") == *customer
        && text(order, "ship_to.line2") == call.key
        && number(order, "total.amount") == total;
    let evidence = || format!("{} asked for {} and was answered {order}", named(call), call.body);
    (!same).then(|| Violation::new(Kind::Changed, evidence(), &call.path))
}

/// An order that was answered is there, with a history, and as it was answered.
fn still_there(
    call: &Call,
    order: &Value,
    found: &Found,
    stories: &BTreeMap<String, Story>,
) -> Vec<Violation> {
    let id = text(order, "id");
    let look = format!("/v1/orders/{id}");
    let lost = |what: &str| {
        let evidence = format!("order {id}, answered to {}, {what}", named(call));
        Violation::new(Kind::Lost, evidence, &look)
    };
    let mut violations = Vec::new();
    match found.orders.get(&id) {
        None => violations.push(lost("is not there")),
        Some(now) => {
            let changed = FIXED.iter().find(|part| now.get(**part) != order.get(**part));
            violations.extend(changed.map(|part| {
                let (was, is) = (text(order, part), text(now, part));
                let evidence = format!("order {id}: {part} was answered as {was} and is {is}");
                Violation::new(Kind::Changed, evidence, &look)
            }));
        }
    }
    if !stories.contains_key(&id) {
        violations.push(lost("has no event"));
    }
    violations
}

/// An order that was answered stands once in the lists.
fn listed_once(call: &Call, order: &Value, listed: &BTreeMap<&str, usize>) -> Option<Violation> {
    let id = text(order, "id");
    let times = listed.get(id.as_str()).copied().unwrap_or_default();
    let kind = match times {
        0 => Kind::Lost,
        1 => return None,
        _ => Kind::Doubled,
    };
    let evidence = format!("answered to {}, it is listed {times} times", named(call));
    Some(Violation::of_order(kind, &id, evidence))
}

/// No key has two orders, and no order is there that nobody asked for.
fn one_order_for_each_key(
    history: &History,
    found: &Found,
    stories: &BTreeMap<String, Story>,
) -> Vec<Violation> {
    let places = |call: &&Call| matches!(call.wish, Wish::Place { .. });
    let asked: BTreeSet<&str> =
        history.calls.iter().filter(places).map(|call| call.key.as_str()).collect();
    let mut by_key: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (id, order) in &found.orders {
        by_key.entry(text(order, "ship_to.line2")).or_default().push(id);
    }
    for (id, story) in stories.iter().filter(|(id, _)| !found.orders.contains_key(*id)) {
        by_key.entry(story.key()).or_default().push(id);
    }
    let mut violations = Vec::new();
    for (key, ids) in &by_key {
        if ids.len() > 1 {
            let evidence = format!("key {key} has {} orders: {}", ids.len(), ids.join(", "));
            violations.push(Violation::of_order(Kind::Doubled, ids[0], evidence));
        } else if !asked.contains(key.as_str()) {
            let evidence = format!("nobody asked for it (key {key})");
            violations.push(Violation::of_order(Kind::Doubled, ids[0], evidence));
        }
    }
    violations
}

/// What was answered to a cancellation, or to a carrier, stands in the order's history.
fn kept_promises(history: &History, stories: &BTreeMap<String, Story>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for call in &history.calls {
        let Some(done) = call.done() else { continue };
        let (order, event) = match &call.wish {
            Wish::Cancel { order } if text(done, "status") == "cancelled" => {
                (order, "order.cancelled".to_owned())
            }
            Wish::Cancel { order } => (order, "order.cancel_requested".to_owned()),
            Wish::Track { order, status } => (order, format!("shipment.{status}")),
            _ => continue,
        };
        if !stories.get(order).is_some_and(|story| story.has(&event)) {
            let evidence = format!("{} was answered, and there is no {event}", named(call));
            violations.push(Violation::of_order(Kind::Lost, order, evidence));
        }
    }
    violations
}

/// Nobody sees an older version of an order after a newer one.
fn never_back(history: &History) -> Vec<Violation> {
    let mut newest: BTreeMap<(usize, &str), i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for sight in &history.sights {
        let seen = newest.entry((sight.by, &sight.order)).or_default();
        match sight.version {
            None if *seen > 0 => {
                let evidence = format!("it was seen in version {seen}, and then not at all");
                violations.push(Violation::of_order(Kind::Lost, &sight.order, evidence));
            }
            Some(version) if sight.read && version < *seen => {
                let evidence = format!("version {version} was seen after version {seen}");
                violations.push(Violation::of_order(Kind::Stale, &sight.order, evidence));
            }
            Some(version) => *seen = version.max(*seen),
            None => {}
        }
    }
    violations
}
