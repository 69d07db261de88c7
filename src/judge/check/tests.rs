//! Every kind of violation is found in a doctored case, and nothing in a clean one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use waybill_runtime::Timestamp;

use super::check;
use crate::client::text;
use crate::judge::found::{Event, Found, Parked};
use crate::judge::history::{Answer, Call, History, Sight, Wish};
use crate::judge::violation::Kind;

const TAG: &str = "judge-t";
const SKU: &str = "judge-t-0";
const ADA: &str = "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
/// Two pieces, which arrive.
const SENT: &str = "01937b6e-7f5a-7c3e-9a51-000000000001";
/// Twenty pieces, which are not there.
const SHORT: &str = "01937b6e-7f5a-7c3e-9a51-000000000002";
/// One piece, cancelled when it was paid for.
const CANCELLED: &str = "01937b6e-7f5a-7c3e-9a51-000000000003";

/// What was answered, and what is there.
struct Case {
    history: History,
    found: Found,
}

impl Case {
    /// One of each kind of order, and all is well.
    fn clean() -> Self {
        let history = History { tag: TAG.to_owned(), ..History::default() };
        let found = Found { until: time(1_000), ..Found::default() };
        let mut case = Self { history, found };
        case.opens();
        case.sends();
        case.is_short();
        case.cancels();
        case.closes();
        case
    }

    /// A product of ten, and a customer with 10.00.
    fn opens(&mut self) {
        let list = Wish::List { sku: SKU.to_owned(), price: 100, quantity: 10 };
        self.call("list", list, &json!({ "sku": SKU }));
        let deposit = Wish::Deposit { customer: ADA.to_owned(), amount: 10_000 };
        self.call("deposit", deposit, &json!({ "id": ADA }));
        let product = format!("product-{SKU}");
        self.event("product.listed", &product, "p", None, &json!({ "sku": SKU, "quantity": 10 }));
        let amount = json!({ "user_id": ADA, "amount": { "amount": 10_000 } });
        self.event("wallet.deposited", &format!("user-{ADA}"), "u", None, &amount);
    }

    fn sends(&mut self) {
        let (lines, total) = self.places(SENT, 2);
        self.of(SENT, "stock.reserved", "order.placed", &json!({ "lines": lines }));
        self.of(SENT, "payment.authorized", "order.placed", &paid(&total));
        self.of(SENT, "order.stock_secured", "stock.reserved", &json!({}));
        self.of(SENT, "order.confirmed", "payment.authorized", &json!({}));
        self.tells(SENT, "confirmed", "order.confirmed");
        self.of(SENT, "shipment.created", "order.confirmed", &json!({ "lines": lines }));
        let left = json!({ "mode": "simulated", "deliver_at": time(20) });
        self.of(SENT, "shipment.dispatched", "shipment.created", &left);
        self.of(SENT, "order.dispatched", "shipment.dispatched", &json!({}));
        self.of(SENT, "stock.shipped", "shipment.dispatched", &json!({ "lines": lines }));
        self.of(SENT, "payment.captured", "shipment.dispatched", &paid(&total));
        self.tells(SENT, "dispatched", "order.dispatched");
        self.of(SENT, "shipment.delivered", "shipment.dispatched", &json!({}));
        self.of(SENT, "order.delivered", "shipment.delivered", &json!({}));
        self.tells(SENT, "delivered", "shipment.delivered");
        self.of(SENT, "order.completed", "shipment.delivered", &json!({}));
    }

    fn is_short(&mut self) {
        let (_, total) = self.places(SHORT, 20);
        let shortages = json!([{ "sku": SKU, "requested": 20, "available": 8 }]);
        self.of(SHORT, "stock.rejected", "order.placed", &json!({ "shortages": shortages }));
        self.of(SHORT, "payment.authorized", "order.placed", &paid(&total));
        self.of(SHORT, "order.rejected", "stock.rejected", &json!({}));
        self.of(SHORT, "payment.released", "order.rejected", &paid(&total));
        self.tells(SHORT, "rejected", "order.rejected");
    }

    fn cancels(&mut self) {
        let (_, total) = self.places(CANCELLED, 1);
        self.of(CANCELLED, "payment.authorized", "order.placed", &paid(&total));
        self.of(CANCELLED, "order.payment_secured", "payment.authorized", &json!({}));
        self.of(CANCELLED, "order.cancelled", "", &json!({}));
        let wish = Wish::Cancel { order: CANCELLED.to_owned() };
        self.call("cancel", wish, &json!({ "id": CANCELLED, "status": "cancelled" }));
        self.of(CANCELLED, "stock.released", "order.cancelled", &json!({ "lines": [] }));
        self.of(CANCELLED, "payment.released", "order.cancelled", &paid(&total));
        self.tells(CANCELLED, "cancelled", "order.cancelled");
    }

    /// What the API shows in the end.
    fn closes(&mut self) {
        for (id, status, version) in
            [(SENT, "completed", 6), (SHORT, "rejected", 2), (CANCELLED, "cancelled", 3)]
        {
            let mut order = self.order(id).clone();
            order["status"] = json!(status);
            order["version"] = json!(version);
            self.found.states.insert(id.to_owned(), order.clone());
            self.found.orders.insert(id.to_owned(), order);
            self.found.listed.push(id.to_owned());
            let events = self.found.log.iter().filter(|event| event.body.correlationid == id);
            let timeline = events.map(|event| event.body.id.clone()).collect();
            self.found.timelines.insert(id.to_owned(), timeline);
            for version in [1, version] {
                let (by, order) = (0, id.to_owned());
                let sight = Sight { by, order, version: Some(version), read: version > 1 };
                self.history.sights.push(sight);
            }
        }
        let product = json!({ "on_hand": 8, "reserved": 0, "available": 8 });
        self.found.products.insert(SKU.to_owned(), product);
        let (free, held) = (json!({ "amount": 9_800 }), json!({ "amount": 0 }));
        let user = json!({ "balance": { "available": free, "held": held } });
        self.found.customers.insert(ADA.to_owned(), user);
        self.found.first_read =
            self.found.log.iter().map(|event| (event.position, event.digest)).collect();
    }

    /// An order that was answered, and its first event; its lines and its total.
    fn places(&mut self, id: &str, quantity: i64) -> (Value, Value) {
        let key = format!("{TAG}-order-{id}");
        let line = json!({ "sku": SKU, "quantity": quantity, "unit_price": { "amount": 100 } });
        let (lines, total) = (json!([line]), json!({ "amount": 100 * quantity }));
        let order = json!({
            "id": id, "number": "W-1", "customer_id": ADA, "status": "placed", "lines": lines,
            "total": total, "ship_to": { "line2": key }, "placed_at": time(0), "version": 1,
        });
        let wanted = BTreeMap::from([(SKU.to_owned(), quantity)]);
        let wish = Wish::Place { customer: ADA.to_owned(), lines: wanted };
        self.history.calls.push(call(&key, "/v1/orders", wish, &order));
        self.of(id, "order.placed", "", &order);
        (lines, total)
    }

    fn tells(&mut self, order: &str, kind: &str, cause: &str) {
        self.of(order, "user.notified", cause, &json!({ "kind": kind, "order_id": order }));
    }

    /// An event of an order, caused by its event of that name, or by a command.
    fn of(&mut self, order: &str, kind: &str, cause: &str, data: &Value) {
        let owner = kind.split('.').next().unwrap();
        let stream = match owner {
            "stock" => format!("reservation-{order}"),
            "user" => format!("user-{ADA}"),
            owner => format!("{owner}-{order}"),
        };
        let of_order = |event: &&Event| event.body.correlationid == order && event.kind() == cause;
        let cause = self.found.log.iter().find(of_order).map(|event| event.body.id.clone());
        self.event(kind, &stream, order, cause.as_deref(), data);
    }

    fn event(
        &mut self,
        kind: &str,
        stream: &str,
        correlation: &str,
        cause: Option<&str>,
        data: &Value,
    ) {
        let position = self.found.log.len() + 1;
        let of_stream = self.found.log.iter().filter(|event| event.body.subject == stream);
        let actor = if cause.is_some() { "/services/x" } else { "http" };
        let item = json!({
            "position": position, "recorded_at": time(1),
            "event": {
                "id": format!("e{position}"), "type": kind, "subject": stream,
                "streamversion": of_stream.count() + 1, "correlationid": correlation,
                "causationid": cause.unwrap_or("command"), "actor": actor,
                "data": data,
            },
        });
        self.found.log.push(Event::read(&item).unwrap());
    }

    fn call(&mut self, name: &str, wish: Wish, answer: &Value) {
        self.history.calls.push(call(&format!("{TAG}-{name}"), "/v1/x", wish, answer));
    }

    /// The request of an order.
    fn placed(&mut self, order: &str) -> &mut Call {
        let of_order = |call: &&mut Call| {
            matches!(call.wish, Wish::Place { .. })
                && call.done().is_some_and(|o| text(o, "id") == order)
        };
        self.history.calls.iter_mut().find(of_order).unwrap()
    }

    /// An order as it was answered.
    fn order(&mut self, id: &str) -> &Value {
        self.placed(id).done().unwrap()
    }

    fn index(&self, order: &str, kind: &str) -> usize {
        let of_order = |event: &Event| event.body.correlationid == order && event.kind() == kind;
        self.found.log.iter().position(of_order).unwrap()
    }

    fn event_of(&mut self, order: &str, kind: &str) -> &mut Event {
        let index = self.index(order, kind);
        &mut self.found.log[index]
    }

    /// Removes an event as if it had never been: positions and versions close over it.
    fn never(&mut self, order: &str, kind: &str) {
        let index = self.index(order, kind);
        let gone = self.found.log.remove(index);
        for event in &mut self.found.log[index..] {
            event.position -= 1;
            if event.body.subject == gone.body.subject {
                event.body.streamversion -= 1;
            }
        }
        let timeline = self.found.timelines.get_mut(order).unwrap();
        timeline.retain(|id| *id != gone.body.id);
        self.found.first_read =
            self.found.log.iter().map(|event| (event.position, event.digest)).collect();
    }

    /// What is found, by kind and in words.
    fn verdict(&self) -> Vec<(Kind, String)> {
        let violations = check(&self.history, &self.found);
        violations.into_iter().map(|one| (one.kind, one.evidence)).collect()
    }

    /// Exactly these kinds are found, and one of them says this.
    #[track_caller]
    fn shows(&self, kinds: &[Kind], evidence: &str) {
        let verdict = self.verdict();
        let found: BTreeSet<Kind> = verdict.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(found, kinds.iter().copied().collect(), "{verdict:#?}");
        let said = verdict.iter().any(|(kind, said)| *kind == kinds[0] && said.contains(evidence));
        assert!(said, "{evidence:?} is not in {verdict:#?}");
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn paid(total: &Value) -> Value {
    json!({ "user_id": ADA, "amount": total })
}

fn call(key: &str, path: &str, wish: Wish, answer: &Value) -> Call {
    Call {
        key: key.to_owned(),
        path: path.to_owned(),
        body: Value::Null,
        wish,
        answers: vec![Answer::Yes(answer.clone())],
        trouble: String::new(),
    }
}

fn no(status: u16) -> Answer {
    Answer::No { status, why: "no".to_owned() }
}

#[test]
fn a_clean_case_shows_nothing() {
    assert_eq!(Case::clean().verdict(), []);
}

#[test]
fn an_answered_order_that_is_gone_is_lost() {
    let mut case = Case::clean();
    case.found.orders.remove(SENT);
    let verdict = case.verdict();
    assert!(verdict.iter().any(|(kind, said)| *kind == Kind::Lost && said.contains("not there")));
}

#[test]
fn an_answered_order_that_no_list_shows_is_lost() {
    let mut case = Case::clean();
    case.found.listed.retain(|id| id != SHORT);
    case.shows(&[Kind::Lost], "listed 0 times");
}

#[test]
fn an_answered_order_without_events_is_lost() {
    let mut case = Case::clean();
    case.found.log.retain(|event| event.body.correlationid != CANCELLED);
    case.shows(&[Kind::Lost], "has no event");
}

#[test]
fn stock_that_was_answered_as_taken_in_and_did_not_come_is_lost() {
    let mut case = Case::clean();
    let wish = Wish::Receive { sku: SKU.to_owned(), quantity: 5 };
    case.call("receipt", wish, &json!({}));
    case.shows(&[Kind::Lost, Kind::Unbalanced], "15 were answered as taken in, 10 came in");
}

#[test]
fn an_answered_cancellation_that_history_does_not_know_is_lost() {
    let mut case = Case::clean();
    let wish = Wish::Cancel { order: SENT.to_owned() };
    case.call("cancel-2", wish, &json!({ "id": SENT, "status": "cancelling" }));
    case.shows(&[Kind::Lost], "order.cancel_requested");
}

#[test]
fn an_event_that_was_read_and_is_gone_is_lost() {
    let mut case = Case::clean();
    case.found.first_read.push((999, 1));
    case.shows(&[Kind::Lost], "position 999");
}

#[test]
fn a_position_without_an_event_is_a_loss() {
    let mut case = Case::clean();
    let last = case.found.log.len() - 1;
    case.found.log[last].position += 1;
    case.found.first_read.pop();
    case.shows(&[Kind::Lost], "there is nothing from");
}

#[test]
fn an_order_that_was_seen_and_then_not_is_lost() {
    let mut case = Case::clean();
    let sight = Sight { by: 0, order: SENT.to_owned(), version: None, read: true };
    case.history.sights.push(sight);
    case.shows(&[Kind::Lost], "then not at all");
}

#[test]
fn two_orders_of_one_key_are_doubled() {
    let mut case = Case::clean();
    let key = text(case.order(SENT), "ship_to.line2");
    let twin = "01937b6e-7f5a-7c3e-9a51-000000000009";
    let mut order = case.found.orders[SENT].clone();
    order["id"] = json!(twin);
    case.found.orders.insert(twin.to_owned(), order);
    let verdict = case.verdict();
    let said = format!("key {key} has 2 orders");
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Doubled && all.contains(&said)));
}

#[test]
fn an_order_that_nobody_asked_for_is_doubled() {
    let mut case = Case::clean();
    case.history
        .calls
        .retain(|call| !matches!(call.wish, Wish::Place { .. }) || !call.key.ends_with(SHORT));
    case.shows(&[Kind::Doubled], "nobody asked for it");
}

#[test]
fn an_order_that_is_listed_twice_is_doubled() {
    let mut case = Case::clean();
    case.found.listed.push(SENT.to_owned());
    case.shows(&[Kind::Doubled], "listed 2 times");
}

#[test]
fn a_key_that_is_answered_with_another_order_is_doubled() {
    let mut case = Case::clean();
    let mut other = case.order(SENT).clone();
    other["id"] = json!(ADA);
    case.placed(SENT).answers.push(Answer::Yes(other));
    case.shows(&[Kind::Doubled], "and then with");
}

#[test]
fn another_request_under_a_used_key_that_is_accepted_is_doubled() {
    let mut case = Case::clean();
    case.call("order-1", Wish::Reuse, &json!({ "id": ADA }));
    case.shows(&[Kind::Doubled], "under a used key");
    case.history.calls.pop();
    case.call("order-1", Wish::Reuse, &json!({}));
    case.history.calls.last_mut().unwrap().answers = vec![no(422)];
    assert_eq!(case.verdict(), [], "it is to be refused");
}

#[test]
fn a_step_that_happened_twice_is_doubled() {
    let mut case = Case::clean();
    case.tells(SENT, "delivered", "shipment.delivered");
    let id = case.found.log.last().unwrap().body.id.clone();
    case.found.timelines.get_mut(SENT).unwrap().push(id);
    case.shows(&[Kind::Doubled], "user.notified delivered");
}

#[test]
fn an_event_that_stands_twice_is_doubled() {
    let mut case = Case::clean();
    case.event("order.placed", "order-of-others", "others", None, &json!({}));
    case.found.log.last_mut().unwrap().body.id = "e1".to_owned();
    case.shows(&[Kind::Doubled], "the same event is at position 1");
}

#[test]
fn money_that_came_in_twice_is_doubled() {
    let mut case = Case::clean();
    let amount = json!({ "user_id": ADA, "amount": { "amount": 10_000 } });
    case.event("wallet.deposited", &format!("user-{ADA}"), "u", None, &amount);
    case.found.customers.get_mut(ADA).unwrap()["balance"]["available"]["amount"] = json!(19_800);
    case.shows(
        &[Kind::Doubled, Kind::Unbalanced],
        "10000 were answered as taken in, 20000 came in",
    );
}

#[test]
fn stock_that_was_set_aside_without_being_there_is_oversold() {
    let mut case = Case::clean();
    case.event_of("p", "product.listed").body.data["quantity"] = json!(1);
    let verdict = case.verdict();
    let said = "after stock.reserved at position 4 there are 1, of which 2 are set aside";
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Oversold && all.contains(said)));
}

#[test]
fn more_completed_orders_than_stock_are_oversold() {
    let mut case = Case::clean();
    let order = case.found.orders.get_mut(SHORT).unwrap();
    order["status"] = json!("completed");
    let verdict = case.verdict();
    let said = "10 came in, completed orders took 22";
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Oversold && all.contains(said)));
}

#[test]
fn stock_and_money_that_are_not_what_is_left_are_unbalanced() {
    let mut case = Case::clean();
    case.found.products.get_mut(SKU).unwrap()["on_hand"] = json!(9);
    case.shows(&[Kind::Unbalanced], "shows 9");
    let mut case = Case::clean();
    case.found.customers.get_mut(ADA).unwrap()["balance"]["held"]["amount"] = json!(7);
    case.shows(&[Kind::Unbalanced], "9807");
}

#[test]
fn events_that_change_places_are_reordered() {
    let mut case = Case::clean();
    let (one, two) = (case.index(SENT, "order.delivered"), case.index(SENT, "order.completed"));
    let (first, second) = (case.found.log[one].position, case.found.log[two].position);
    case.found.log[one].position = second;
    case.found.log[two].position = first;
    case.found.log.swap(one, two);
    let verdict = case.verdict();
    let said = "order.completed came while it was \"dispatched\"";
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Reordered && all.contains(said)));
}

#[test]
fn a_step_before_the_one_it_needs_is_reordered() {
    let mut case = Case::clean();
    case.never(SENT, "shipment.created");
    let verdict = case.verdict();
    let said = "shipment.dispatched at position 9 came without shipment.created before";
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Reordered && all.contains(said)));
}

#[test]
fn an_effect_before_its_cause_is_reordered() {
    let mut case = Case::clean();
    let later = case.event_of(SENT, "order.completed").body.id.clone();
    case.event_of(SENT, "order.delivered").body.causationid = later;
    case.shows(&[Kind::Reordered], "its cause");
}

#[test]
fn an_effect_without_a_cause_is_a_loss() {
    let mut case = Case::clean();
    case.event_of(SENT, "order.delivered").body.causationid = "nothing".to_owned();
    case.shows(&[Kind::Lost], "its cause nothing is not there");
}

#[test]
fn versions_of_a_stream_have_no_gap_and_do_not_go_back() {
    let mut case = Case::clean();
    case.event_of(SENT, "order.completed").body.streamversion += 1;
    case.shows(&[Kind::Lost], "comes after 5");
    case.event_of(SENT, "order.completed").body.streamversion = 2;
    case.shows(&[Kind::Reordered], "comes after 5");
}

#[test]
fn times_of_the_event_store_do_not_go_back() {
    let mut case = Case::clean();
    case.found.log.last_mut().unwrap().recorded_at = time(0);
    case.shows(&[Kind::Reordered], "recorded");
}

#[test]
fn an_older_version_after_a_newer_one_is_stale() {
    let mut case = Case::clean();
    let sight = Sight { by: 0, order: SENT.to_owned(), version: Some(2), read: true };
    case.history.sights.push(sight.clone());
    case.shows(&[Kind::Stale], "version 2 was seen after version 6");
    case.history.sights.pop();
    case.history.sights.push(Sight { read: false, ..sight.clone() });
    case.history.sights.push(Sight { by: 1, ..sight });
    assert_eq!(case.verdict(), [], "a repeated answer is old, and others may not have seen more");
}

#[test]
fn a_request_that_was_never_answered_hangs() {
    let mut case = Case::clean();
    let wish = Wish::Cancel { order: SENT.to_owned() };
    case.call("cancel-2", wish, &json!({}));
    let call = case.history.calls.last_mut().unwrap();
    call.answers.clear();
    call.trouble = "503 not now".to_owned();
    case.shows(&[Kind::Hanging], "503 not now");
}

/// A case in which the parcel was not delivered, whose carrier is this.
fn on_its_way(mode: &str, deliver_at: Timestamp) -> Case {
    let mut case = Case::clean();
    case.never(SENT, "order.completed");
    case.never(SENT, "order.delivered");
    case.never(SENT, "shipment.delivered");
    let left = json!({ "mode": mode, "deliver_at": deliver_at });
    case.event_of(SENT, "shipment.dispatched").body.data = left;
    case.found.log.retain(|event| event.body.data["kind"] != "delivered");
    case
}

#[test]
fn an_order_that_does_not_end_hangs_unless_it_is_in_good_time() {
    let hangs = |case: &Case| case.verdict().iter().any(|(kind, _)| *kind == Kind::Hanging);
    assert!(hangs(&on_its_way("simulated", time(20))));
    assert!(!hangs(&on_its_way("simulated", time(1_001))), "it is delivered later");
    assert!(!hangs(&on_its_way("manual", time(20))), "its carrier has not spoken");
}

#[test]
fn what_stays_set_aside_after_an_end_hangs() {
    let mut case = Case::clean();
    case.never(SHORT, "payment.released");
    let balance = &mut case.found.customers.get_mut(ADA).unwrap()["balance"];
    (balance["available"]["amount"], balance["held"]["amount"]) = (json!(7_800), json!(2_000));
    case.shows(&[Kind::Hanging], "its payment is not settled");
}

#[test]
fn an_end_that_the_customer_is_not_told_hangs() {
    let mut case = Case::clean();
    case.never(SHORT, "user.notified");
    case.shows(&[Kind::Hanging], "not told");
}

#[test]
fn an_order_that_is_not_as_it_was_answered_is_changed() {
    let mut case = Case::clean();
    for orders in [&mut case.found.orders, &mut case.found.states] {
        orders.get_mut(SENT).unwrap()["number"] = json!("W-2");
    }
    case.shows(&[Kind::Changed], "number was answered as W-1 and is W-2");
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_changed() {
    let mut case = Case::clean();
    let Wish::Place { lines, .. } = &mut case.placed(SENT).wish else { panic!() };
    lines.insert(SKU.to_owned(), 3);
    case.shows(&[Kind::Changed], "asked for");
}

#[test]
fn an_answer_that_changes_when_it_is_repeated_is_changed() {
    let mut case = Case::clean();
    let mut later = case.order(SENT).clone();
    later["version"] = json!(2);
    case.placed(SENT).answers.push(Answer::Yes(later));
    case.shows(&[Kind::Changed], "and then");
}

#[test]
fn an_event_that_was_another_when_it_was_first_read_is_changed() {
    let mut case = Case::clean();
    case.found.first_read[3].1 ^= 1;
    case.shows(&[Kind::Changed], "position 4");
}

#[test]
fn stock_that_is_not_what_was_ordered_is_changed() {
    let mut case = Case::clean();
    case.event_of(SENT, "shipment.created").body.data["lines"][0]["quantity"] = json!(1);
    case.shows(&[Kind::Changed], "shipment.created says");
}

#[test]
fn places_that_say_different_things_are_contradicted() {
    let mut case = Case::clean();
    for orders in [&mut case.found.orders, &mut case.found.states] {
        orders.get_mut(SENT).unwrap()["version"] = json!(7);
    }
    case.shows(&[Kind::Contradicted], "version 7 after 6 events");

    let mut case = Case::clean();
    case.found.states.get_mut(SENT).unwrap()["status"] = json!("delivered");
    case.shows(&[Kind::Contradicted], "its history makes it");

    let mut case = Case::clean();
    case.found.timelines.get_mut(SENT).unwrap().pop();
    case.shows(&[Kind::Contradicted], "its history shows 15 events");

    let mut case = Case::clean();
    case.of(SHORT, "shipment.created", "order.rejected", &json!({}));
    let verdict = case.verdict();
    let said = "it is rejected, and there is shipment.created";
    assert!(verdict.iter().any(|(kind, all)| *kind == Kind::Contradicted && all.contains(said)));
}

#[test]
fn what_an_open_order_moves_between_two_looks_is_no_violation() {
    let mut case = on_its_way("simulated", time(1_001));
    let order = case.found.orders.get_mut(SENT).unwrap();
    order["status"] = json!("delivered");
    case.found.products.get_mut(SKU).unwrap()["on_hand"] = json!(7);
    let kinds: BTreeSet<Kind> = case.verdict().into_iter().map(|(kind, _)| kind).collect();
    assert!(
        !kinds.contains(&Kind::Contradicted) && !kinds.contains(&Kind::Unbalanced),
        "{kinds:?}"
    );
}

#[test]
fn a_request_that_is_in_order_is_not_to_be_refused() {
    let mut case = Case::clean();
    case.call("receipt", Wish::Receive { sku: SKU.to_owned(), quantity: 1 }, &json!({}));
    case.history.calls.last_mut().unwrap().answers = vec![no(422)];
    case.shows(&[Kind::Refused], "was answered 422");
    let wish = Wish::Cancel { order: SENT.to_owned() };
    case.history.calls.last_mut().unwrap().wish = wish;
    case.history.calls.last_mut().unwrap().answers = vec![no(409)];
    assert_eq!(case.verdict(), [], "it may be too late");
}

#[test]
fn an_order_that_is_refused_for_want_of_stock_that_is_there_was_refused_wrongly() {
    let mut case = Case::clean();
    let data = &mut case.event_of(SHORT, "stock.rejected").body.data;
    data["shortages"][0]["requested"] = json!(8);
    case.shows(&[Kind::Refused], "there was enough");
}

#[test]
fn messages_of_the_run_that_are_parked_are_shown_and_those_of_others_are_not() {
    let parked = |lane: &str| Parked {
        service: "user",
        id: "e4".to_owned(),
        lane: lane.to_owned(),
        cause: "it panicked".to_owned(),
    };
    let mut case = Case::clean();
    case.found.parked.push(parked("others"));
    assert_eq!(case.verdict(), []);
    case.found.parked.push(parked(SENT));
    case.shows(&[Kind::Parked], "it panicked");
    case.found.parked = vec![parked("p")];
    case.shows(&[Kind::Parked], "it panicked");
}
