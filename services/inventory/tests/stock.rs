//! The rules of stock: given what happened, when a message comes, then this follows.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use waybill_contract::inventory::{
    ProductChanged, ProductListed, Shortage, StockLine, StockReceived, StockRejected,
    StockReleased, StockReserved, StockReturned, StockShipped,
};
use waybill_contract::logistics::{CarrierMode, ShipmentDelivered, ShipmentDispatched};
use waybill_contract::order::{
    CancelReason, CancelRequested, OrderCancelled, OrderPlaced, OrderRejected,
};
use waybill_contract::values::LARGEST;
use waybill_contract::{
    Address, Event, InventoryEvent, Line, Money, OrderId, Quantity, ShipmentId, Sku, Text, UserId,
};
use waybill_inventory::{
    ChangeProduct, Command, InventoryService, InventoryTables, ListProduct, ReceiveStock, Refusal,
    Status,
};
use waybill_runtime::{
    Answer, Context, Event as _, EventId, Json, Message, Position, Recorded, Row, Service as _,
    Tables as _, Timestamp, Version,
};

// Given / when / then.

/// The rows after these events, one second apart.
fn given(events: impl IntoIterator<Item = InventoryEvent>) -> InventoryTables {
    let mut tables = InventoryTables::default();
    for (event, time) in events.into_iter().zip(1..) {
        record(&mut tables, &event, time * 1_000_000);
    }
    tables
}

fn record(tables: &mut InventoryTables, event: &InventoryEvent, micros: i64) {
    let time = Timestamp(micros);
    tables.evolve(&Recorded { id: EventId(order(0).0), time, event });
    tables.keep();
}

trait When {
    fn when(&self, message: Message<InventoryService>) -> Then;
}

impl When for InventoryTables {
    fn when(&self, message: Message<InventoryService>) -> Then {
        Then(InventoryService::decide(&message, self, &context()))
    }
}

fn context() -> Context<'static, InventoryService> {
    Context { now: Timestamp(0), fresh_id: order(0).0, position: Position(1), settings: &() }
}

struct Then(Result<Vec<InventoryEvent>, Refusal>);

impl Then {
    #[track_caller]
    fn then(self, expected: impl Into<InventoryEvent>) {
        assert_eq!(self.0, Ok(vec![expected.into()]));
    }

    #[track_caller]
    fn then_nothing(self) {
        assert_eq!(self.0, Ok(Vec::new()));
    }

    #[track_caller]
    fn then_refused(self, expected: Refusal) {
        assert_eq!(self.0, Err(expected));
    }
}

// What is talked about.

fn sku(text: &str) -> Sku {
    text.parse().unwrap()
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn quantity(number: i64) -> Quantity {
    number.try_into().unwrap()
}

fn money(amount: i64, currency: &str) -> Money {
    Money { amount: amount.try_into().unwrap(), currency: currency.parse().unwrap() }
}

fn order(number: usize) -> OrderId {
    format!("01937b6e-7f5a-7c3e-9a51-{number:012x}").parse().unwrap()
}

fn stock_lines(lines: &[(&str, i64)]) -> Vec<StockLine> {
    let line =
        |&(name, number): &(&str, i64)| StockLine { sku: sku(name), quantity: quantity(number) };
    lines.iter().map(line).collect()
}

// What happened.

fn listed(name: &str, number: i64) -> InventoryEvent {
    let price = money(1999, "EUR");
    ProductListed { sku: sku(name), name: text("Tea"), price, quantity: number }.into()
}

fn received(name: &str, number: i64) -> InventoryEvent {
    StockReceived { sku: sku(name), quantity: quantity(number), reference: None }.into()
}

fn reserved(number: usize, lines: &[(&str, i64)]) -> InventoryEvent {
    StockReserved { order_id: order(number), lines: stock_lines(lines) }.into()
}

fn rejected(number: usize, shortages: Vec<Shortage>) -> InventoryEvent {
    StockRejected { order_id: order(number), shortages }.into()
}

fn shortage(name: &str, requested: i64, available: i64) -> Shortage {
    Shortage { sku: sku(name), requested: quantity(requested), available }
}

fn shipped(number: usize, lines: &[(&str, i64)]) -> InventoryEvent {
    StockShipped { order_id: order(number), lines: stock_lines(lines) }.into()
}

fn released(number: usize, lines: &[(&str, i64)]) -> InventoryEvent {
    StockReleased { order_id: order(number), lines: stock_lines(lines) }.into()
}

fn returned(number: usize, lines: &[(&str, i64)]) -> InventoryEvent {
    StockReturned { order_id: order(number), lines: stock_lines(lines) }.into()
}

// What comes.

fn list(name: &str, number: Option<i64>) -> Message<InventoryService> {
    Message::Command(Command::List(ListProduct {
        sku: sku(name),
        name: text("Tea"),
        price: money(1999, "EUR"),
        quantity: number.map(quantity),
    }))
}

fn change(name: &str, new: Option<&str>, price: Option<Money>) -> Message<InventoryService> {
    let new = new.map(text);
    Message::Command(Command::Change(ChangeProduct { sku: sku(name), name: new, price }))
}

fn receive(name: &str, number: i64) -> Message<InventoryService> {
    Message::Command(Command::Receive(ReceiveStock {
        sku: sku(name),
        quantity: quantity(number),
        reference: None,
    }))
}

fn placed(number: usize, lines: &[(&str, i64)]) -> Message<InventoryService> {
    let line = |&(name, number): &(&str, i64)| Line {
        sku: sku(name),
        name: text("Tea"),
        quantity: quantity(number),
        unit_price: money(1999, "EUR"),
    };
    let place = text("somewhere");
    Message::Heard(Event::Order(
        OrderPlaced {
            order_id: order(number),
            number: format!("W-{number}"),
            customer_id: UserId(order(0).0),
            lines: lines.iter().map(line).collect(),
            total: money(1999, "EUR"),
            ship_to: Address {
                name: place.clone(),
                line1: place.clone(),
                line2: None,
                city: place.clone(),
                postal_code: place.clone(),
                country: place,
            },
            expires_at: Timestamp(0),
        }
        .into(),
    ))
}

fn order_rejected(number: usize) -> Message<InventoryService> {
    let (order_id, customer_id) = (order(number), UserId(order(0).0));
    Message::Heard(Event::Order(OrderRejected { order_id, customer_id, reasons: vec![] }.into()))
}

fn order_cancelled(number: usize, reason: CancelReason) -> Message<InventoryService> {
    let (order_id, customer_id) = (order(number), UserId(order(0).0));
    let cancelled = OrderCancelled { order_id, customer_id, reason, comment: None };
    Message::Heard(Event::Order(cancelled.into()))
}

fn dispatched(number: usize) -> Message<InventoryService> {
    Message::Heard(Event::Logistics(
        ShipmentDispatched {
            shipment_id: ShipmentId(order(number).0),
            order_id: order(number),
            carrier: "pigeon".to_owned(),
            tracking_number: "P-1".to_owned(),
            mode: CarrierMode::Manual,
            in_transit_at: None,
            deliver_at: None,
        }
        .into(),
    ))
}

// The list of products.

#[test]
fn a_product_is_listed_with_its_first_stock() {
    given([]).when(list("TEA", Some(5))).then(listed("TEA", 5));
}

#[test]
fn a_product_may_be_listed_before_any_of_it_is_there() {
    given([]).when(list("TEA", None)).then(listed("TEA", 0));
}

#[test]
fn a_taken_sku_is_refused() {
    given([listed("TEA", 5)])
        .when(list("TEA", Some(1)))
        .then_refused(Refusal::SkuTaken(sku("TEA")));
}

#[test]
fn a_product_changes_in_what_is_given_and_keeps_the_rest() {
    let tables = given([listed("TEA", 5)]);
    tables.when(change("TEA", Some("Green tea"), None)).then(ProductChanged {
        sku: sku("TEA"),
        name: text("Green tea"),
        price: money(1999, "EUR"),
    });
    tables.when(change("TEA", None, Some(money(2499, "EUR")))).then(ProductChanged {
        sku: sku("TEA"),
        name: text("Tea"),
        price: money(2499, "EUR"),
    });
}

#[test]
fn a_change_that_changes_nothing_leaves_no_trace() {
    let tables = given([listed("TEA", 5)]);
    tables.when(change("TEA", None, None)).then_nothing();
    tables.when(change("TEA", Some("Tea"), Some(money(1999, "EUR")))).then_nothing();
}

#[test]
fn the_currency_of_a_product_never_changes() {
    given([listed("TEA", 5)])
        .when(change("TEA", None, Some(money(1999, "USD"))))
        .then_refused(Refusal::OtherCurrency);
}

#[test]
fn a_product_that_nobody_listed_cannot_be_changed_or_received() {
    let unknown = || Refusal::UnknownProduct(sku("TEA"));
    given([]).when(change("TEA", Some("Green tea"), None)).then_refused(unknown());
    given([]).when(receive("TEA", 1)).then_refused(unknown());
}

#[test]
fn stock_comes_in() {
    given([listed("TEA", 5)]).when(receive("TEA", 7)).then(received("TEA", 7));
    let tables = given([listed("TEA", 5), received("TEA", 7)]);
    assert_eq!(on_hand_and_reserved(&tables, "TEA"), (12, 0));
}

#[test]
fn stock_comes_in_up_to_the_largest_and_not_beyond() {
    let tables = given([listed("TEA", LARGEST - 10)]);
    tables.when(receive("TEA", 10)).then(received("TEA", 10));
    tables
        .when(receive("TEA", 11))
        .then_refused(Refusal::TooMuchStock { sku: sku("TEA"), on_hand: LARGEST - 10 });
}

// Orders.

#[test]
fn all_lines_of_an_order_are_reserved_if_all_are_available() {
    given([listed("TEA", 5), listed("POT", 1)])
        .when(placed(1, &[("TEA", 5), ("POT", 1)]))
        .then(reserved(1, &[("TEA", 5), ("POT", 1)]));
}

#[test]
fn no_line_of_an_order_is_reserved_if_one_is_short() {
    given([listed("TEA", 5), listed("POT", 1)])
        .when(placed(1, &[("TEA", 1), ("POT", 2)]))
        .then(rejected(1, vec![shortage("POT", 2, 1)]));
}

#[test]
fn every_shortage_of_an_order_is_named() {
    given([listed("TEA", 5), listed("POT", 1)])
        .when(placed(1, &[("TEA", 6), ("POT", 2)]))
        .then(rejected(1, vec![shortage("TEA", 6, 5), shortage("POT", 2, 1)]));
}

#[test]
fn a_product_that_nobody_listed_is_short() {
    given([]).when(placed(1, &[("TEA", 1)])).then(rejected(1, vec![shortage("TEA", 1, 0)]));
}

#[test]
fn what_one_order_holds_is_not_available_to_another() {
    given([listed("TEA", 5), reserved(1, &[("TEA", 4)])])
        .when(placed(2, &[("TEA", 2)]))
        .then(rejected(2, vec![shortage("TEA", 2, 1)]));
}

#[test]
fn lines_that_name_a_product_twice_cannot_take_more_than_is_there() {
    let tables = given([listed("TEA", 5)]);
    tables
        .when(placed(1, &[("TEA", 3), ("TEA", 3)]))
        .then(rejected(1, vec![shortage("TEA", 3, 2)]));
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 3), ("TEA", 2)])]);
    assert_eq!(on_hand_and_reserved(&tables, "TEA"), (5, 5));
}

#[test]
fn what_was_reserved_is_shipped_when_the_parcel_leaves() {
    let past = [listed("TEA", 5), reserved(1, &[("TEA", 2)])];
    given(past).when(dispatched(1)).then(shipped(1, &[("TEA", 2)]));
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 2)]), shipped(1, &[("TEA", 2)])]);
    assert_eq!(on_hand_and_reserved(&tables, "TEA"), (3, 0));
}

#[test]
fn what_was_reserved_is_released_when_the_order_ends() {
    let past = || given([listed("TEA", 5), reserved(1, &[("TEA", 2)])]);
    past().when(order_rejected(1)).then(released(1, &[("TEA", 2)]));
    for &reason in CancelReason::ALL {
        past().when(order_cancelled(1, reason)).then(released(1, &[("TEA", 2)]));
    }
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 2)]), released(1, &[("TEA", 2)])]);
    assert_eq!(on_hand_and_reserved(&tables, "TEA"), (5, 0));
}

#[test]
fn what_was_shipped_comes_back_when_the_parcel_failed() {
    let lines = &[("TEA", 2)];
    given([listed("TEA", 5), reserved(1, lines), shipped(1, lines)])
        .when(order_cancelled(1, CancelReason::ShipmentFailed))
        .then(returned(1, lines));
    let past = [listed("TEA", 5), reserved(1, lines), shipped(1, lines), returned(1, lines)];
    assert_eq!(on_hand_and_reserved(&given(past), "TEA"), (5, 0));
}

#[test]
fn a_parcel_that_failed_before_its_leaving_was_heard_of_leaves_the_stock_as_it_was() {
    let past = [listed("TEA", 5), reserved(1, &[("TEA", 2)])];
    given(past)
        .when(order_cancelled(1, CancelReason::ShipmentFailed))
        .then(released(1, &[("TEA", 2)]));
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 2)]), released(1, &[("TEA", 2)])]);
    tables.when(dispatched(1)).then_nothing();
    assert_eq!(on_hand_and_reserved(&tables, "TEA"), (5, 0));
}

#[test]
fn an_order_that_ended_before_it_was_heard_of_reserves_nothing_later() {
    let past = || given([listed("TEA", 5)]);
    past().when(order_rejected(1)).then(released(1, &[]));
    past().when(order_cancelled(1, CancelReason::Customer)).then(released(1, &[]));
    let tables = given([listed("TEA", 5), released(1, &[])]);
    tables.when(placed(1, &[("TEA", 2)])).then_nothing();
}

#[test]
fn nothing_follows_from_what_is_heard_again_or_after_the_end() {
    let lines = &[("TEA", 2)];
    let (tea, held, out) = (listed("TEA", 5), reserved(1, lines), shipped(1, lines));
    let cancelled = || order_cancelled(1, CancelReason::ShipmentFailed);

    given([tea.clone(), held.clone()]).when(placed(1, lines)).then_nothing();
    given([tea.clone(), held.clone(), out.clone()]).when(placed(1, lines)).then_nothing();
    given([tea.clone(), held.clone(), out.clone()]).when(dispatched(1)).then_nothing();

    let rejected = given([rejected(1, vec![shortage("TEA", 2, 0)])]);
    let released = given([tea.clone(), held.clone(), released(1, lines)]);
    let returned = given([tea, held, out, returned(1, lines)]);
    for ended in [rejected, released, returned] {
        ended.when(placed(1, lines)).then_nothing();
        ended.when(dispatched(1)).then_nothing();
        ended.when(order_rejected(1)).then_nothing();
        ended.when(cancelled()).then_nothing();
    }
}

#[test]
fn a_parcel_of_an_order_that_holds_nothing_changes_nothing() {
    given([listed("TEA", 5)]).when(dispatched(1)).then_nothing();
}

#[test]
fn other_news_of_orders_and_parcels_change_nothing() {
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 2)])]);
    let asked = CancelRequested { order_id: order(1), comment: None };
    tables.when(Message::Heard(Event::Order(asked.into()))).then_nothing();
    let arrived = ShipmentDelivered {
        shipment_id: ShipmentId(order(1).0),
        order_id: order(1),
        carrier: "pigeon".to_owned(),
        tracking_number: "P-1".to_owned(),
        location: None,
        note: None,
    };
    tables.when(Message::Heard(Event::Logistics(arrived.into()))).then_nothing();
}

#[test]
fn a_reservation_remembers_what_was_set_aside_and_when() {
    let lines = &[("TEA", 2)];
    let tables = given([listed("TEA", 5), reserved(1, lines), shipped(1, lines)]);
    let reservation = tables.reservations.get(&order(1)).unwrap();
    assert_eq!(reservation.status, Status::Shipped);
    assert_eq!(reservation.lines, Json(stock_lines(lines)));
    assert_eq!(reservation.created_at, Timestamp(2_000_000));
    assert_eq!(reservation.updated_at, Timestamp(3_000_000));
    assert_eq!(reservation.version.0, 2);
}

// The rows that a message concerns.

#[test]
fn a_placed_order_concerns_its_reservation_and_its_products() {
    let mut tables = InventoryTables::default();
    InventoryService::concerns(&placed(1, &[("TEA", 2)]), &mut tables);
    assert!(tables.reservations.is_wanting());
    assert!(tables.products.is_wanting());
}

#[test]
fn the_end_of_an_order_concerns_the_products_of_its_reservation_once_that_is_loaded() {
    for message in [order_rejected(1), order_cancelled(1, CancelReason::Customer), dispatched(1)] {
        let mut tables = InventoryTables::default();
        InventoryService::concerns(&message, &mut tables);
        assert!(tables.reservations.is_wanting());
        assert!(!tables.products.is_wanting());

        let event = reserved(1, &[("TEA", 2)]);
        let recorded = Recorded { id: EventId(order(0).0), time: Timestamp(0), event: &event };
        let mut tables = InventoryTables::default();
        tables.reservations.evolve(&recorded);
        InventoryService::concerns(&message, &mut tables);
        assert!(!tables.reservations.is_wanting());
        assert!(tables.products.is_wanting());
    }
}

#[test]
fn a_command_concerns_its_product() {
    for message in [list("TEA", None), change("TEA", None, None), receive("TEA", 1)] {
        let mut tables = InventoryTables::default();
        InventoryService::concerns(&message, &mut tables);
        assert!(tables.products.is_wanting());
    }
}

// What a command is answered.

#[test]
fn the_answer_to_a_new_product_says_where_it_is_and_what_it_is() {
    let tables = given([listed("TEA", 5)]);
    let body = r#"{"sku":"TEA","name":"Tea","price":{"amount":1999,"currency":"EUR"},"#.to_owned()
        + r#""on_hand":5,"reserved":0,"available":5,"#
        + r#""created_at":"1970-01-01T00:00:01.000000Z","updated_at":"1970-01-01T00:00:01.000000Z"}"#;
    let location = "/v1/products/TEA".to_owned();
    let expected = Answer { status: 201, location, version: Version(1), body };
    assert_eq!(answer(list("TEA", Some(5)), &tables), expected);
}

#[test]
fn the_answer_to_a_receipt_shows_the_stock_as_it_is_then() {
    let tables = given([listed("TEA", 5), reserved(1, &[("TEA", 2)]), received("TEA", 7)]);
    let answer = answer(receive("TEA", 7), &tables);
    assert_eq!((answer.status, answer.version), (200, Version(3)));
    assert!(answer.body.contains(r#""on_hand":12,"reserved":2,"available":10"#), "{}", answer.body);
}

#[test]
fn a_command_is_about_the_version_of_its_product() {
    let receive = command(receive("TEA", 1));
    assert_eq!(InventoryService::version(&receive, &given([])), None);
    let tables = given([listed("TEA", 5), received("TEA", 7)]);
    assert_eq!(InventoryService::version(&receive, &tables), Some(Version(2)));
}

fn answer(message: Message<InventoryService>, tables: &InventoryTables) -> Answer {
    InventoryService::answer(&command(message), tables, &context())
}

fn command(message: Message<InventoryService>) -> Command {
    match message {
        Message::Command(command) => command,
        other => panic!("{other:?} is no command"),
    }
}

fn on_hand_and_reserved(tables: &InventoryTables, name: &str) -> (i64, i64) {
    let product = tables.products.get(&sku(name)).unwrap();
    (product.on_hand, product.reserved)
}

// Any commands and news, in any order, any number of times.

const PRODUCTS: [&str; 3] = ["TEA", "POT", "cup.2"];
const ORDERS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    List { product: usize, quantity: i64 },
    Reprice { product: usize, amount: i64 },
    Receive { product: usize, quantity: i64 },
    Place { order: usize },
    Reject { order: usize },
    Cancel { order: usize },
    Dispatch { order: usize },
}

/// What each order asks for: some of each product, or none of it.
type Baskets = Vec<[i64; PRODUCTS.len()]>;

fn baskets() -> impl Strategy<Value = Baskets> {
    let basket = prop::array::uniform3(0..4_i64).prop_map(|[a, b, c]| [a + 1, b, c]);
    prop::collection::vec(basket, ORDERS)
}

fn step() -> impl Strategy<Value = Step> {
    let product = || 0..PRODUCTS.len();
    let order = || 0..ORDERS;
    prop_oneof![
        2 => (product(), 0..9_i64).prop_map(|(product, quantity)| Step::List { product, quantity }),
        1 => (product(), 0..9_i64).prop_map(|(product, amount)| Step::Reprice { product, amount }),
        2 => (product(), 1..9_i64).prop_map(|(product, quantity)| Step::Receive { product, quantity }),
        4 => order().prop_map(|order| Step::Place { order }),
        1 => order().prop_map(|order| Step::Reject { order }),
        2 => order().prop_map(|order| Step::Cancel { order }),
        3 => order().prop_map(|order| Step::Dispatch { order }),
    ]
}

/// Everything that the order service and logistics may say about every order, some of it twice, in
/// any order; every order ends.
fn endings() -> impl Strategy<Value = Vec<Step>> {
    let news = (0..ORDERS).flat_map(|order| {
        let (place, dispatch) = (Step::Place { order }, Step::Dispatch { order });
        let end = if order % 2 == 0 { Step::Cancel { order } } else { Step::Reject { order } };
        [place, place, dispatch, dispatch, end, end]
    });
    Just(news.collect::<Vec<_>>()).prop_shuffle()
}

impl Step {
    fn message(self, baskets: &Baskets) -> Message<InventoryService> {
        match self {
            Self::List { product, quantity } => {
                list(PRODUCTS[product], Some(quantity).filter(|&number| number > 0))
            }
            Self::Reprice { product, amount } => {
                change(PRODUCTS[product], None, Some(money(amount, "EUR")))
            }
            Self::Receive { product, quantity } => receive(PRODUCTS[product], quantity),
            Self::Place { order } => {
                let lines = PRODUCTS.into_iter().zip(baskets[order]);
                let lines: Vec<_> = lines.filter(|&(_, quantity)| quantity > 0).collect();
                placed(order, &lines)
            }
            Self::Reject { order } => order_rejected(order),
            Self::Cancel { order } => order_cancelled(order, CancelReason::ShipmentFailed),
            Self::Dispatch { order } => dispatched(order),
        }
    }
}

/// A house in which things happen: its rows and the outbox that they are the fold of.
#[derive(Default)]
struct House {
    tables: InventoryTables,
    outbox: Vec<InventoryEvent>,
}

impl House {
    fn stocked() -> Self {
        let mut house = Self::default();
        for name in PRODUCTS {
            house.record(listed(name, 9));
        }
        house
    }

    fn record(&mut self, event: InventoryEvent) {
        let micros = i64::try_from(self.outbox.len() + 1).unwrap() * 1_000_000;
        record(&mut self.tables, &event, micros);
        self.outbox.push(event);
    }

    /// How many events follow.
    fn step(&mut self, step: Step, baskets: &Baskets) -> usize {
        let events = self.tables.when(step.message(baskets)).0.unwrap_or_default();
        let count = events.len();
        for event in events {
            self.record(event);
        }
        count
    }

    fn check(&self) {
        self.nothing_is_oversold_or_lost();
        self.what_is_reserved_is_held_by_open_reservations();
        self.rows_are_the_fold_of_the_outbox();
    }

    fn nothing_is_oversold_or_lost(&self) {
        let mut came_in: BTreeMap<&Sku, i64> = BTreeMap::new();
        let mut is_out: BTreeMap<&Sku, i64> = BTreeMap::new();
        for event in &self.outbox {
            match event {
                InventoryEvent::Listed(e) => *came_in.entry(&e.sku).or_default() += e.quantity,
                InventoryEvent::Received(e) => {
                    *came_in.entry(&e.sku).or_default() += e.quantity.get();
                }
                InventoryEvent::Shipped(e) => tally(&mut is_out, &e.lines, 1),
                InventoryEvent::Returned(e) => tally(&mut is_out, &e.lines, -1),
                _ => {}
            }
        }
        for product in self.tables.products.present() {
            let out = is_out.get(&product.sku).copied().unwrap_or(0);
            assert_eq!(product.on_hand + out, came_in[&product.sku], "{}", product.sku);
            assert!((0..=product.on_hand).contains(&product.reserved), "{product:?}");
            assert!(out >= 0, "more of {} came back than left", product.sku);
        }
    }

    fn what_is_reserved_is_held_by_open_reservations(&self) {
        let mut held: BTreeMap<&Sku, i64> = BTreeMap::new();
        for reservation in self.tables.reservations.present() {
            if reservation.status == Status::Reserved {
                tally(&mut held, &reservation.lines.0, 1);
            }
        }
        for product in self.tables.products.present() {
            let held = held.get(&product.sku).copied().unwrap_or(0);
            assert_eq!(product.reserved, held, "{}", product.sku);
        }
    }

    /// The outbox as it is stored, folded anew, gives the rows as they are stored.
    fn rows_are_the_fold_of_the_outbox(&self) {
        let stored = self.outbox.iter().map(|event| {
            let data = event.encode().unwrap();
            InventoryEvent::decode(event.kind(), event.schema(), &data).unwrap()
        });
        let folded = given(stored);
        assert_eq!(folded.products.present(), self.tables.products.present());
        assert_eq!(folded.reservations.present(), self.tables.reservations.present());
        self.tables.products.present().into_iter().for_each(survives_storage);
        self.tables.reservations.present().into_iter().for_each(survives_storage);
    }
}

fn survives_storage<R: Row + Debug + PartialEq>(row: &R) {
    assert_eq!(R::from_cells(row.cells()).unwrap(), *row);
}

fn tally<'a>(sums: &mut BTreeMap<&'a Sku, i64>, lines: &'a [StockLine], sign: i64) {
    for line in lines {
        *sums.entry(&line.sku).or_default() += sign * line.quantity.get();
    }
}

proptest! {
    #[test]
    fn the_books_balance_whatever_comes_in_any_order_and_however_often(
        baskets in baskets(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut house = House::default();
        for step in steps {
            house.step(step, &baskets);
            house.check();
        }
    }

    #[test]
    fn news_heard_twice_in_a_row_count_once(
        baskets in baskets(),
        news in endings(),
    ) {
        let mut house = House::stocked();
        for step in news {
            house.step(step, &baskets);
            prop_assert_eq!(house.step(step, &baskets), 0);
        }
    }

    #[test]
    fn once_every_order_has_ended_all_stock_is_back_in_whatever_order_that_was_heard(
        baskets in baskets(),
        news in endings(),
    ) {
        let mut house = House::stocked();
        for step in news {
            house.step(step, &baskets);
            house.check();
        }
        for product in house.tables.products.present() {
            prop_assert_eq!((product.on_hand, product.reserved), (9, 0));
        }
        for reservation in house.tables.reservations.present() {
            prop_assert!(reservation.status != Status::Reserved);
            prop_assert!(reservation.status != Status::Shipped);
        }
    }

    #[test]
    fn an_order_that_is_kept_takes_its_stock_with_it(
        baskets in baskets(),
        repeats in prop::collection::vec((0..ORDERS, any::<bool>()), 0..30),
    ) {
        let mut house = House::stocked();
        for order in 0..ORDERS {
            house.step(Step::Place { order }, &baskets);
            house.step(Step::Dispatch { order }, &baskets);
        }
        for (order, place) in repeats {
            let again = if place { Step::Place { order } } else { Step::Dispatch { order } };
            prop_assert_eq!(house.step(again, &baskets), 0);
        }
        house.check();
        for product in house.tables.products.present() {
            prop_assert_eq!(product.reserved, 0);
        }
    }
}
