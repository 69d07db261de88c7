//! Given / when / then, and what the tests talk about.

use std::time::Duration;

use waybill_contract::inventory::{
    ProductChanged, ProductListed, Shortage, StockReceived, StockRejected, StockReserved,
};
use waybill_contract::logistics::{
    CarrierMode, ShipmentCancelled, ShipmentDelivered, ShipmentDispatched, ShipmentFailed,
};
use waybill_contract::order::{
    OrderConfirmed, OrderDispatched, OrderPlaced, OrderRejected, Reason, ReasonCode,
};
use waybill_contract::user::{
    DeclineReason, NotificationKind, PaymentAuthorized, PaymentDeclined, UserNotified,
};
use waybill_contract::{
    Address, Event, InventoryEvent, Line, LogisticsEvent, Money, OrderEvent, OrderId, Quantity,
    ShipmentId, Sku, Text, UserEvent, UserId,
};
use waybill_order::{
    CancelOrder, Command, Order, OrderService, OrderTables, PlaceOrder, Refusal, Settings, Timer,
};
use waybill_runtime::{Context, EventId, Message, Position, Recorded, Service, Tables, Timestamp};

// Given / when / then.

/// The rows after these events, one second apart.
pub(crate) fn given(events: impl IntoIterator<Item = OrderEvent>) -> Given {
    let mut tables = OrderTables::default();
    for (event, second) in events.into_iter().zip(1..) {
        record(&mut tables, &event, Timestamp(second * 1_000_000));
    }
    Given(tables)
}

pub(crate) fn record(tables: &mut OrderTables, event: &OrderEvent, time: Timestamp) {
    tables.evolve(&Recorded { id: EventId(order(0).0), time, event });
    tables.keep();
}

pub(crate) struct Given(pub(crate) OrderTables);

impl Given {
    pub(crate) fn when(&self, message: &Message<OrderService>) -> Then {
        Then(OrderService::decide(message, &self.0, &context()))
    }

    #[track_caller]
    pub(crate) fn order(&self) -> &Order {
        self.0.orders.get(&order(1)).unwrap()
    }
}

pub(crate) struct Then(Result<Vec<OrderEvent>, Refusal>);

impl Then {
    #[track_caller]
    pub(crate) fn then(self, expected: impl IntoIterator<Item = OrderEvent>) {
        assert_eq!(self.0, Ok(expected.into_iter().collect()));
    }

    #[track_caller]
    pub(crate) fn then_refused(self, expected: Refusal) {
        assert_eq!(self.0, Err(expected));
    }

    #[track_caller]
    pub(crate) fn events(self) -> Vec<OrderEvent> {
        self.0.unwrap()
    }
}

const SETTINGS: Settings = Settings { deadline: Duration::from_mins(15) };

pub(crate) fn context() -> Context<'static, OrderService> {
    context_for(order(1), Timestamp(0))
}

pub(crate) fn context_for(fresh: OrderId, now: Timestamp) -> Context<'static, OrderService> {
    Context { now, fresh_id: fresh.0, position: Position(17), settings: &SETTINGS }
}

// What is talked about.

pub(crate) fn order(number: usize) -> OrderId {
    format!("01937b6e-7f5a-7c3e-9a51-{number:012x}").parse().unwrap()
}

pub(crate) fn customer() -> UserId {
    "01937b6e-7f5a-7c3e-9a51-aaaaaaaaaaaa".parse().unwrap()
}

fn parcel() -> ShipmentId {
    "01937b6e-7f5a-7c3e-9a51-bbbbbbbbbbbb".parse().unwrap()
}

pub(crate) fn sku(text: &str) -> Sku {
    text.parse().unwrap()
}

pub(crate) fn text(text: &str) -> Text {
    text.parse().unwrap()
}

pub(crate) fn quantity(number: i64) -> Quantity {
    number.try_into().unwrap()
}

pub(crate) fn money(amount: i64, currency: &str) -> Money {
    Money { amount: amount.try_into().unwrap(), currency: currency.parse().unwrap() }
}

pub(crate) fn address() -> Address {
    Address {
        name: text("Ada Lovelace"),
        line1: text("12 St James's Square"),
        line2: None,
        city: text("London"),
        postal_code: text("SW1Y 4JH"),
        country: text("United Kingdom"),
    }
}

fn lines(ordered: &[(&str, i64, i64)]) -> Vec<Line> {
    let line = |&(name, number, price): &(&str, i64, i64)| Line {
        sku: sku(name),
        name: text(name),
        quantity: quantity(number),
        unit_price: money(price, "EUR"),
    };
    ordered.iter().map(line).collect()
}

// What is asked for.

pub(crate) fn place(ordered: &[(&str, i64)]) -> Message<OrderService> {
    let lines = ordered.iter().map(|(name, number)| (sku(name), quantity(*number))).collect();
    let place = PlaceOrder { customer_id: customer(), lines, ship_to: address() };
    Message::Command(Command::Place(place))
}

pub(crate) fn cancel(comment: Option<&str>) -> Message<OrderService> {
    cancel_of(order(1), comment)
}

pub(crate) fn cancel_of(order_id: OrderId, comment: Option<&str>) -> Message<OrderService> {
    Message::Command(Command::Cancel(CancelOrder { order_id, comment: comment.map(text) }))
}

pub(crate) fn deadline() -> Message<OrderService> {
    Message::Due(Timer::Expire(order(1)))
}

// What this service says.

pub(crate) fn placed() -> OrderEvent {
    placed_with(&[("TEA", 2, 1_250)], 2_500)
}

pub(crate) fn placed_with(ordered: &[(&str, i64, i64)], total: i64) -> OrderEvent {
    OrderPlaced {
        order_id: order(1),
        number: "W-17".to_owned(),
        customer_id: customer(),
        lines: lines(ordered),
        total: money(total, "EUR"),
        ship_to: address(),
        expires_at: Timestamp(900_000_000),
    }
    .into()
}

pub(crate) fn confirmed() -> OrderEvent {
    OrderConfirmed {
        order_id: order(1),
        customer_id: customer(),
        lines: lines(&[("TEA", 2, 1_250)]),
        ship_to: address(),
    }
    .into()
}

pub(crate) fn rejected((code, detail): (ReasonCode, &str)) -> OrderEvent {
    let reasons = vec![Reason { code, detail: detail.to_owned() }];
    OrderRejected { order_id: order(1), customer_id: customer(), reasons }.into()
}

pub(crate) fn dispatched() -> OrderEvent {
    OrderDispatched {
        order_id: order(1),
        shipment_id: parcel(),
        carrier: "Swift".to_owned(),
        tracking_number: "T-1".to_owned(),
    }
    .into()
}

// What others say.

pub(crate) fn heard(event: Event) -> Message<OrderService> {
    Message::Heard(event)
}

pub(crate) fn reserved() -> Event {
    reserved_for(order(1))
}

pub(crate) fn reserved_for(order_id: OrderId) -> Event {
    Event::Inventory(StockReserved { order_id, lines: Vec::new() }.into())
}

pub(crate) fn out_of_stock() -> Event {
    out_of_stock_for(order(1))
}

pub(crate) fn out_of_stock_for(order_id: OrderId) -> Event {
    let shortage = Shortage { sku: sku("TEA"), requested: quantity(2), available: 1 };
    Event::Inventory(StockRejected { order_id, shortages: vec![shortage] }.into())
}

pub(crate) fn authorized() -> Event {
    authorized_for(order(1))
}

pub(crate) fn authorized_for(order_id: OrderId) -> Event {
    let amount = money(2_500, "EUR");
    Event::User(PaymentAuthorized { order_id, user_id: customer(), amount }.into())
}

pub(crate) fn declined(reason: DeclineReason) -> Event {
    declined_for(order(1), reason)
}

pub(crate) fn declined_for(order_id: OrderId, reason: DeclineReason) -> Event {
    Event::User(PaymentDeclined { order_id, user_id: customer(), reason }.into())
}

pub(crate) fn told(kind: NotificationKind) -> Event {
    told_of(order(1), kind)
}

pub(crate) fn told_of(order_id: OrderId, kind: NotificationKind) -> Event {
    let text = "news".to_owned();
    Event::User(UserEvent::Notified(UserNotified { user_id: customer(), order_id, kind, text }))
}

pub(crate) fn dispatched_parcel() -> Event {
    dispatched_parcel_of(order(1))
}

pub(crate) fn dispatched_parcel_of(order_id: OrderId) -> Event {
    Event::Logistics(LogisticsEvent::Dispatched(ShipmentDispatched {
        shipment_id: parcel(),
        order_id,
        carrier: "Swift".to_owned(),
        tracking_number: "T-1".to_owned(),
        mode: CarrierMode::Manual,
        in_transit_at: None,
        deliver_at: None,
    }))
}

pub(crate) fn delivered_parcel() -> Event {
    delivered_parcel_of(order(1))
}

pub(crate) fn delivered_parcel_of(order_id: OrderId) -> Event {
    Event::Logistics(LogisticsEvent::Delivered(ShipmentDelivered {
        shipment_id: parcel(),
        order_id,
        carrier: "Swift".to_owned(),
        tracking_number: "T-1".to_owned(),
        location: None,
        note: None,
    }))
}

pub(crate) fn failed_parcel() -> Event {
    failed_parcel_of(order(1))
}

pub(crate) fn failed_parcel_of(order_id: OrderId) -> Event {
    let failed =
        ShipmentFailed { shipment_id: parcel(), order_id, reason: text("lost"), location: None };
    Event::Logistics(LogisticsEvent::Failed(failed))
}

pub(crate) fn cancelled_parcel() -> Event {
    cancelled_parcel_of(order(1))
}

pub(crate) fn cancelled_parcel_of(order_id: OrderId) -> Event {
    Event::Logistics(ShipmentCancelled { shipment_id: parcel(), order_id }.into())
}

pub(crate) fn listed(name: &str, price: i64) -> Event {
    let (sku, name, price) = (sku(name), text(name), money(price, "EUR"));
    Event::Inventory(ProductListed { sku, name, price, quantity: 0 }.into())
}

pub(crate) fn changed(name: &str, price: i64) -> Event {
    let (sku, name, price) = (sku(name), text(name), money(price, "EUR"));
    Event::Inventory(InventoryEvent::Changed(ProductChanged { sku, name, price }))
}

pub(crate) fn received() -> Event {
    let received = StockReceived { sku: sku("TEA"), quantity: quantity(1), reference: None };
    Event::Inventory(InventoryEvent::Received(received))
}
