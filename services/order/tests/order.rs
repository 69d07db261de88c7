//! The rules of the order service, without a database.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

#[path = "order/any_order.rs"]
mod any_order;
#[path = "order/facts.rs"]
mod facts;

use waybill_contract::OrderEvent;
use waybill_contract::order::{
    ArrivalTold, CancelReason, CancelRequested, CatalogueUpdated, OrderCancelled, OrderCompleted,
    OrderDelivered, PaymentSecured, ReasonCode, StockSecured,
};
use waybill_contract::user::{DeclineReason, NotificationKind};
use waybill_order::{
    Command, InvalidLine, Order, OrderService, OrderTables, OrderView, PlaceOrder, Refusal, Status,
    Timer,
};
use waybill_runtime::{
    Listed as _, Message, Service as _, Tables as _, TimerChange, Timestamp, Version,
};

use crate::facts::*;

// Placing.

#[test]
fn an_order_is_placed_at_the_catalogues_prices() {
    let tables = given([catalogue("TEA", 1_250, "EUR"), catalogue("CUP", 800, "EUR")]);
    let events = tables.when(&place(&[("TEA", 2), ("CUP", 1)])).events();
    assert_eq!(events, [placed_with(&[("TEA", 2, 1_250), ("CUP", 1, 800)], 3_300)]);
}

#[test]
fn a_free_product_can_be_ordered() {
    let tables = given([catalogue("FLYER", 0, "EUR")]);
    tables.when(&place(&[("FLYER", 3)])).then([placed_with(&[("FLYER", 3, 0)], 0)]);
}

#[test]
fn what_is_not_in_the_catalogue_is_refused_line_by_line() {
    let tables = given([catalogue("TEA", 1_250, "EUR")]);
    tables.when(&place(&[("NO", 1), ("TEA", 1), ("NEITHER", 1)])).then_refused(invalid(&[
        (0, "there is no product NO"),
        (2, "there is no product NEITHER"),
    ]));
}

#[test]
fn an_order_is_in_one_currency() {
    let tables = given([catalogue("TEA", 1, "EUR"), catalogue("PIE", 1, "USD")]);
    tables
        .when(&place(&[("TEA", 1), ("PIE", 1)]))
        .then_refused(invalid(&[(1, "PIE is priced in USD, other lines in EUR")]));
}

#[test]
fn an_order_comes_to_10_to_the_12_and_not_to_more() {
    let tables = given([catalogue("GOLD", 1_000_000, "EUR"), catalogue("TEA", 1, "EUR")]);
    let most = tables.when(&place(&[("GOLD", 1_000_000)])).events();
    assert_eq!(most, [placed_with(&[("GOLD", 1_000_000, 1_000_000)], 1_000_000_000_000)]);
    let detail = "with this line, the total comes to more than 1000000000000 minor units";
    tables.when(&place(&[("GOLD", 1_000_000), ("TEA", 1)])).then_refused(invalid(&[(1, detail)]));
}

#[test]
fn an_order_without_lines_is_refused() {
    let nothing = InvalidLine { index: None, detail: "must hold at least one line".to_owned() };
    given([]).when(&place(&[])).then_refused(Refusal::InvalidLines(vec![nothing]));
}

// Two answers, in any order.

#[test]
fn the_first_yes_is_noted_and_the_second_confirms() {
    given([placed()]).when(&heard(reserved())).then([stock_secured()]);
    given([placed()]).when(&heard(authorized())).then([payment_secured()]);
    given([placed(), stock_secured()]).when(&heard(authorized())).then([confirmed()]);
    given([placed(), payment_secured()]).when(&heard(reserved())).then([confirmed()]);
}

#[test]
fn a_yes_that_was_heard_before_changes_nothing() {
    given([placed(), stock_secured()]).when(&heard(reserved())).then([]);
    given([placed(), payment_secured()]).when(&heard(authorized())).then([]);
    for yes in [reserved(), authorized()] {
        given([placed(), stock_secured(), confirmed()]).when(&heard(yes)).then([]);
    }
}

#[test]
fn the_first_no_rejects_at_once_and_says_why() {
    let shortage = (ReasonCode::OutOfStock, "TEA: 2 ordered, 1 available");
    given([placed()]).when(&heard(out_of_stock())).then([rejected(shortage)]);
    given([placed(), payment_secured()]).when(&heard(out_of_stock())).then([rejected(shortage)]);
    for (why, reason) in [
        (
            DeclineReason::InsufficientFunds,
            (ReasonCode::InsufficientFunds, "the balance does not cover the total".to_owned()),
        ),
        (
            DeclineReason::CurrencyMismatch,
            (ReasonCode::CurrencyMismatch, "the wallet holds another currency".to_owned()),
        ),
        (
            DeclineReason::UnknownCustomer,
            (ReasonCode::UnknownCustomer, format!("there is no user {}", customer())),
        ),
    ] {
        let expected = rejected((reason.0, &reason.1));
        given([placed(), stock_secured()]).when(&heard(declined(why))).then([expected]);
    }
}

#[test]
fn an_answer_after_the_end_changes_nothing() {
    let no = declined(DeclineReason::InsufficientFunds);
    for end in [rejected((ReasonCode::OutOfStock, "none")), cancelled(CancelReason::Customer, None)]
    {
        for late in [reserved(), authorized(), out_of_stock(), no.clone()] {
            given([placed(), end.clone()]).when(&heard(late)).then([]);
        }
    }
}

#[test]
fn an_answer_about_an_order_that_is_not_here_changes_nothing() {
    for news in [reserved(), authorized(), out_of_stock(), dispatched_parcel(), failed_parcel()] {
        given([]).when(&heard(news)).then([]);
    }
}

// The deadline.

#[test]
fn an_order_that_is_only_placed_expires_at_its_deadline() {
    for before in
        [vec![placed()], vec![placed(), stock_secured()], vec![placed(), payment_secured()]]
    {
        given(before).when(&deadline()).then([cancelled(CancelReason::Expired, None)]);
    }
    given([placed(), stock_secured(), confirmed()]).when(&deadline()).then([]);
    given([]).when(&deadline()).then([]);
}

#[test]
fn the_deadline_is_a_timer_from_placed_until_the_order_is_decided() {
    let key = format!("expire-{}", order(1));
    let (due_at, timer) = (Timestamp(900_000_000), Timer::Expire(order(1)));
    let set = TimerChange::Set { key: key.clone(), due_at, timer };
    assert_eq!(OrderService::timers(&placed()), [set]);
    for early in [stock_secured(), payment_secured()] {
        assert_eq!(OrderService::timers(&early), []);
    }
    let no = rejected((ReasonCode::OutOfStock, "none"));
    for decided in [confirmed(), no, cancelled(CancelReason::Customer, None)] {
        assert_eq!(OrderService::timers(&decided), [TimerChange::Clear { key: key.clone() }]);
    }
}

// Cancelling.

#[test]
fn a_placed_order_is_cancelled_at_once() {
    given([placed()])
        .when(&cancel(Some("too slow")))
        .then([cancelled(CancelReason::Customer, Some("too slow"))]);
    given([placed(), stock_secured()])
        .when(&cancel(None))
        .then([cancelled(CancelReason::Customer, None)]);
}

#[test]
fn a_confirmed_order_is_asked_to_be_cancelled_once() {
    let requested = CancelRequested { order_id: order(1), comment: None }.into();
    let confirmed_order = [placed(), stock_secured(), confirmed()];
    given(confirmed_order.clone()).when(&cancel(None)).then([requested]);
    given(confirmed_order.into_iter().chain([cancel_requested()])).when(&cancel(None)).then([]);
}

#[test]
fn logistics_decides_the_race_between_a_cancel_and_the_parcels_leaving() {
    let cancelling = [placed(), stock_secured(), confirmed(), cancel_requested()];
    given(cancelling.clone())
        .when(&heard(cancelled_parcel()))
        .then([cancelled(CancelReason::Customer, None)]);
    given(cancelling.clone()).when(&heard(dispatched_parcel())).then([dispatched()]);
    let left = given(cancelling.into_iter().chain([dispatched()]));
    left.when(&heard(cancelled_parcel())).then([]);
    left.when(&cancel(None)).then_refused(too_late(Status::Dispatched));
}

#[test]
fn what_the_customer_said_outlives_the_race() {
    let comment = Some(text("too slow"));
    let requested: OrderEvent = CancelRequested { order_id: order(1), comment }.into();
    given([placed(), stock_secured(), confirmed(), requested])
        .when(&heard(cancelled_parcel()))
        .then([cancelled(CancelReason::Customer, Some("too slow"))]);
}

#[test]
fn it_is_too_late_to_cancel_what_has_left_or_ended() {
    let way = [placed(), stock_secured(), confirmed(), dispatched(), delivered(), completed()];
    for (length, status) in
        [(4, Status::Dispatched), (5, Status::Delivered), (6, Status::Completed)]
    {
        given(way[..length].iter().cloned()).when(&cancel(None)).then_refused(too_late(status));
    }
    given([placed(), rejected((ReasonCode::OutOfStock, "none"))])
        .when(&cancel(None))
        .then_refused(too_late(Status::Rejected));
    given([placed(), cancelled(CancelReason::Customer, None)])
        .when(&cancel(None))
        .then_refused(too_late(Status::Cancelled));
}

#[test]
fn an_order_that_is_not_here_cannot_be_cancelled() {
    given([]).when(&cancel(None)).then_refused(Refusal::UnknownOrder(order(1)));
}

// The parcel.

#[test]
fn an_order_follows_its_parcel_to_its_end() {
    let way = [placed(), stock_secured(), confirmed(), dispatched(), delivered()];
    given(way[..3].iter().cloned()).when(&heard(dispatched_parcel())).then([dispatched()]);
    given(way[..4].iter().cloned()).when(&heard(delivered_parcel())).then([delivered()]);
    given(way).when(&heard(told(NotificationKind::Delivered))).then([completed()]);
}

#[test]
fn news_of_an_arrival_that_overtakes_the_news_before_it_brings_them_along() {
    let confirmed_order = [placed(), stock_secured(), confirmed()];
    given(confirmed_order.clone())
        .when(&heard(delivered_parcel()))
        .then([dispatched(), delivered()]);
    let sent = given(confirmed_order.into_iter().chain([dispatched()]));
    sent.when(&heard(told(NotificationKind::Delivered))).then([delivered(), completed()]);
}

#[test]
fn being_told_of_the_arrival_before_anything_of_the_parcel_is_known_is_not_forgotten() {
    let confirmed_order = [placed(), stock_secured(), confirmed()];
    let told_of_it = heard(told(NotificationKind::Delivered));
    given(confirmed_order.clone()).when(&told_of_it).then([arrival_told()]);
    let early = || given(confirmed_order.iter().cloned().chain([arrival_told()]));
    early().when(&told_of_it).then([]);
    let all = [dispatched(), delivered(), completed()];
    early().when(&heard(dispatched_parcel())).then(all.clone());
    early().when(&heard(delivered_parcel())).then(all);
}

#[test]
fn only_being_told_of_the_arrival_completes() {
    let arrived = [placed(), stock_secured(), confirmed(), dispatched(), delivered()];
    for kind in NotificationKind::ALL.iter().filter(|kind| **kind != NotificationKind::Delivered) {
        given(arrived.clone()).when(&heard(told(*kind))).then([]);
    }
}

#[test]
fn a_parcel_that_fails_before_it_arrived_ends_the_order() {
    let way = [placed(), stock_secured(), confirmed(), cancel_requested(), dispatched()];
    let end = cancelled(CancelReason::ShipmentFailed, Some("lost"));
    for length in [3, 4, 5] {
        given(way[..length].iter().cloned()).when(&heard(failed_parcel())).then([end.clone()]);
    }
    given(way.into_iter().chain([delivered()])).when(&heard(failed_parcel())).then([]);
    given([placed()]).when(&heard(failed_parcel())).then([]);
}

// The catalogue.

#[test]
fn the_catalogue_follows_the_products_and_notes_only_changes() {
    let listed = heard(listed("TEA", 1_250));
    given([]).when(&listed).then([catalogue("TEA", 1_250, "EUR")]);
    let known = given([catalogue("TEA", 1_250, "EUR")]);
    known.when(&heard(changed("TEA", 1_250))).then([]);
    known.when(&heard(changed("TEA", 1_300))).then([catalogue("TEA", 1_300, "EUR")]);
}

// What is shown.

#[test]
fn an_order_shows_where_it_is_and_why() {
    let sent = given([placed(), stock_secured(), confirmed(), dispatched()]);
    let view = OrderView::from(sent.order());
    assert_eq!((view.status, view.version), (Status::Dispatched, Version(4)));
    assert_eq!((view.placed_at, view.updated_at), (Timestamp(1_000_000), Timestamp(4_000_000)));
    assert_eq!(view.shipment.map(|parcel| parcel.tracking_number).as_deref(), Some("T-1"));
    assert!(view.reasons.is_empty());

    let ended = given([placed(), cancelled(CancelReason::Customer, Some("too slow"))]);
    let reasons = OrderView::from(ended.order()).reasons;
    assert_eq!(reasons.len(), 1);
    assert_eq!(
        (reasons[0].code, reasons[0].detail.as_str()),
        (ReasonCode::CancelledByCustomer, "too slow")
    );
}

#[test]
fn the_answer_to_a_placed_order_is_the_order_and_where_it_is() {
    let tables = given([placed()]);
    let command = Command::Place(PlaceOrder {
        customer_id: customer(),
        lines: vec![(sku("TEA"), quantity(2))],
        ship_to: address(),
    });
    let answer = OrderService::answer(&command, &tables.0, &context());
    assert_eq!((answer.status, answer.version), (201, Version(1)));
    assert_eq!(answer.location, format!("/v1/orders/{}", order(1)));
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["id"], order(1).to_string());
    assert_eq!(body["total"], serde_json::json!({"amount": 2_500, "currency": "EUR"}));
    assert_eq!(body["shipment"], serde_json::Value::Null);
    assert_eq!(OrderService::version(&command, &tables.0), None);
}

#[test]
fn a_service_asks_for_the_rows_that_a_message_concerns() {
    for message in
        [place(&[("TEA", 1)]), cancel(None), deadline(), heard(reserved()), heard(listed("A", 1))]
    {
        let mut tables = OrderTables::default();
        OrderService::concerns(&message, &mut tables);
        assert!(tables.any_wanted(), "{message:?}");
    }
    let mut tables = OrderTables::default();
    OrderService::concerns(&Message::Heard(received()), &mut tables);
    assert!(!tables.any_wanted());
}

fn stock_secured() -> OrderEvent {
    StockSecured { order_id: order(1) }.into()
}

fn payment_secured() -> OrderEvent {
    PaymentSecured { order_id: order(1) }.into()
}

fn arrival_told() -> OrderEvent {
    ArrivalTold { order_id: order(1) }.into()
}

fn delivered() -> OrderEvent {
    OrderDelivered { order_id: order(1) }.into()
}

fn completed() -> OrderEvent {
    OrderCompleted { order_id: order(1) }.into()
}

fn cancel_requested() -> OrderEvent {
    CancelRequested { order_id: order(1), comment: None }.into()
}

fn cancelled(reason: CancelReason, comment: Option<&str>) -> OrderEvent {
    let comment = comment.map(text);
    OrderCancelled { order_id: order(1), customer_id: customer(), reason, comment }.into()
}

fn catalogue(name: &str, price: i64, currency: &str) -> OrderEvent {
    CatalogueUpdated { sku: sku(name), name: text(name), price: money(price, currency) }.into()
}

fn too_late(status: Status) -> Refusal {
    Refusal::TooLateToCancel { order_id: order(1), status }
}

fn invalid(lines: &[(usize, &str)]) -> Refusal {
    let line = |&(index, detail): &(usize, &str)| InvalidLine {
        index: Some(index),
        detail: detail.to_owned(),
    };
    Refusal::InvalidLines(lines.iter().map(line).collect())
}

#[test]
fn a_customers_orders_are_listed_whatever_their_status() {
    let list = Order::LISTS.iter().find(|list| list.filters == ["customer_id"]).unwrap();
    for status in Status::TEXTS {
        assert!(list.sql.contains(&format!("status = '{status}'")), "{status}: {}", list.sql);
    }
}
