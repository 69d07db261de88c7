//! Whether stock and money are what came in less what went out, at every moment of the history.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::stories::quantities;
use crate::client::{number, text};
use crate::judge::found::{Event, Found};
use crate::judge::history::{History, Wish};
use crate::judge::story::Story;
use crate::judge::violation::{Kind, Violation};

/// What there is of a product or in a wallet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Book {
    /// What came in.
    received: i64,
    /// What is there, set aside or not.
    whole: i64,
    /// What of it is set aside.
    aside: i64,
}

impl Book {
    fn free(self) -> i64 {
        self.whole - self.aside
    }
}

/// A page of the books: of a product by its SKU, of a wallet by its owner's id.
type Books = BTreeMap<String, Book>;

pub(super) fn check(
    history: &History,
    found: &Found,
    stories: &BTreeMap<String, Story>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut stock: Books =
        found.products.keys().map(|sku| (sku.clone(), Book::default())).collect();
    let mut money: Books = found.customers.keys().map(|id| (id.clone(), Book::default())).collect();
    for event in &found.log {
        violations.extend(truly_refused(event, &stock, &money, found));
        for (name, change) in stock_changes(event) {
            violations.extend(enter(&mut stock, &name, change, event));
        }
        for (name, change) in money_changes(event) {
            violations.extend(enter(&mut money, &name, change, event));
        }
    }
    let answered = answered(history);
    violations.extend(came_in(&answered, &stock, "/v1/products"));
    violations.extend(came_in(&answered, &money, "/v1/users"));
    // What open orders move may have moved between two looks.
    let moving = moving(stories);
    stock.retain(|name, _| !moving.contains(name));
    money.retain(|name, _| !moving.contains(name));
    violations.extend(stands(&stock, &found.products, "/v1/products", |shown| {
        (number(shown, "on_hand"), number(shown, "reserved"), number(shown, "available"))
    }));
    violations.extend(stands(&money, &found.customers, "/v1/users", |shown| {
        let free = number(shown, "balance.available.amount");
        let held = number(shown, "balance.held.amount");
        (free + held, held, free)
    }));
    violations.extend(sold(&answered, found));
    violations
}

/// What an event does to products.
fn stock_changes(event: &Event) -> Vec<(String, Book)> {
    let data = &event.body.data;
    let incoming = |quantity| {
        let change = Book { received: quantity, whole: quantity, aside: 0 };
        vec![(text(data, "sku"), change)]
    };
    let each = |whole: i64, aside: i64| {
        let of = |(sku, quantity): (String, i64)| {
            (sku, Book { received: 0, whole: whole * quantity, aside: aside * quantity })
        };
        quantities(data).into_iter().map(of).collect()
    };
    match event.kind() {
        "product.listed" | "stock.received" => incoming(number(data, "quantity")),
        "stock.reserved" => each(0, 1),
        "stock.released" => each(0, -1),
        "stock.shipped" => each(-1, -1),
        "stock.returned" => each(1, 0),
        _ => Vec::new(),
    }
}

/// What an event does to wallets.
fn money_changes(event: &Event) -> Vec<(String, Book)> {
    let data = &event.body.data;
    let amount = number(data, "amount.amount");
    let change =
        |received, whole, aside| vec![(text(data, "user_id"), Book { received, whole, aside })];
    match event.kind() {
        "wallet.deposited" => change(amount, amount, 0),
        "payment.authorized" => change(0, 0, amount),
        "payment.released" => change(0, 0, -amount),
        "payment.captured" => change(0, -amount, -amount),
        "payment.refunded" => change(0, amount, 0),
        _ => Vec::new(),
    }
}

/// Enters a change; what there is, free or set aside, must not fall below nothing.
fn enter(books: &mut Books, name: &str, change: Book, event: &Event) -> Option<Violation> {
    let book = books.get_mut(name)?;
    book.received += change.received;
    book.whole += change.whole;
    book.aside += change.aside;
    if book.free() >= 0 && book.aside >= 0 {
        return None;
    }
    let evidence = format!(
        "{name}: after {} at position {} there are {}, of which {} are set aside",
        event.kind(),
        event.position,
        book.whole,
        book.aside,
    );
    Some(Violation::new(Kind::Oversold, evidence, format!("/v1/audit/events/{}", event.body.id)))
}

/// Whoever is refused for want of stock or money was right to be: it was not there at that moment.
fn truly_refused(event: &Event, stock: &Books, money: &Books, found: &Found) -> Option<Violation> {
    let (data, order) = (&event.body.data, &event.body.correlationid);
    let enough = match event.kind() {
        "stock.rejected" => {
            let shortages = data.get("shortages").and_then(Value::as_array)?;
            shortages.iter().any(|one| {
                let book = stock.get(&text(one, "sku"));
                book.is_some_and(|book| book.free() >= number(one, "requested"))
            })
        }
        "payment.declined" if text(data, "reason") == "insufficient_funds" => {
            let total = number(found.orders.get(order)?, "total.amount");
            money.get(&text(data, "user_id"))?.free() >= total
        }
        _ => return None,
    };
    let evidence = || format!("{} says {data}, and there was enough", event.kind());
    enough.then(|| Violation::of_order(Kind::Refused, order, evidence()))
}

/// How much of each product, or of each customer's money, was answered as taken in.
fn answered(history: &History) -> BTreeMap<&str, i64> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for call in history.calls.iter().filter(|call| call.done().is_some()) {
        let (name, amount) = match &call.wish {
            Wish::List { sku, quantity, .. } | Wish::Receive { sku, quantity } => (sku, quantity),
            Wish::Deposit { customer, amount } => (customer, amount),
            _ => continue,
        };
        *sums.entry(name).or_default() += amount;
    }
    sums
}

/// What was answered as taken in came in, once.
fn came_in(answered: &BTreeMap<&str, i64>, books: &Books, path: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, book) in books {
        let amount = answered.get(name.as_str()).copied().unwrap_or_default();
        let kind = match book.received.cmp(&amount) {
            Ordering::Less => Kind::Lost,
            Ordering::Equal => continue,
            Ordering::Greater => Kind::Doubled,
        };
        let evidence =
            format!("{name}: {amount} were answered as taken in, {} came in", book.received);
        violations.push(Violation::new(kind, evidence, format!("{path}/{name}")));
    }
    violations
}

/// The products and customers of orders that are still open.
fn moving(stories: &BTreeMap<String, Story>) -> BTreeSet<String> {
    let open = stories.values().filter(|story| story.open().is_some());
    let placed = open.flat_map(|story| story.named("order.placed"));
    placed.flat_map(|event| parts(&event.body.data).into_keys()).collect()
}

/// What an order takes: of products by their SKUs, of money by the customer's id.
fn parts(order: &Value) -> BTreeMap<String, i64> {
    let mut parts = quantities(order);
    parts.insert(text(order, "customer_id"), number(order, "total.amount"));
    parts
}

/// What is shown is what the history makes.
fn stands(
    books: &Books,
    shown: &BTreeMap<String, Value>,
    path: &str,
    read: impl Fn(&Value) -> (i64, i64, i64),
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, book) in books {
        let Some(value) = shown.get(name) else { continue };
        let (whole, aside, free) = read(value);
        if (whole, aside, free) != (book.whole, book.aside, book.free()) {
            let evidence = format!(
                "{name} shows {whole}, {aside} of them set aside, {free} free; \
                 its events make {}, {} and {}",
                book.whole,
                book.aside,
                book.free(),
            );
            violations.push(Violation::new(Kind::Unbalanced, evidence, format!("{path}/{name}")));
        }
    }
    violations
}

/// Without a look at events: completed orders took what is missing, and no more than came in.
fn sold(answered: &BTreeMap<&str, i64>, found: &Found) -> Vec<Violation> {
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    let mut unsettled: BTreeSet<String> = BTreeSet::new();
    for order in found.orders.values() {
        let parts = parts(order);
        match text(order, "status").as_str() {
            "completed" => {
                for (name, amount) in parts {
                    *taken.entry(name).or_default() += amount;
                }
            }
            "rejected" | "cancelled" => {}
            _ => unsettled.extend(parts.into_keys()),
        }
    }
    let stock = found
        .products
        .iter()
        .map(|(sku, shown)| (sku, number(shown, "on_hand"), format!("/v1/products/{sku}")));
    let money = found.customers.iter().map(|(id, shown)| {
        let free = number(shown, "balance.available.amount");
        (id, free + number(shown, "balance.held.amount"), format!("/v1/users/{id}"))
    });
    let mut violations = Vec::new();
    for (name, left, look) in stock.chain(money) {
        let came = answered.get(name.as_str()).copied().unwrap_or_default();
        let took = taken.get(name).copied().unwrap_or_default();
        let evidence =
            format!("{name}: {came} came in, completed orders took {took}, {left} are left");
        if took > came || left < 0 {
            violations.push(Violation::new(Kind::Oversold, evidence, look));
        } else if !unsettled.contains(name) && came - took != left {
            violations.push(Violation::new(Kind::Unbalanced, evidence, look));
        }
    }
    violations
}
