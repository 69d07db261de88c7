//! An order's whole life: what may happen to it, who decides it, and what its row is then.
//!
//! ```text
//! placed ──► confirmed ──► dispatched ──► delivered ──► completed
//!   │            │  ▲           │
//!   │            ▼  │           │
//!   │         cancelling        │
//!   ▼            ▼              ▼
//! rejected    cancelled ◄───────┘ (the parcel failed)
//! ```
//!
//! While *placed*, this service decides: it waits for a yes of inventory and a yes of user, and the
//! first no ends the order. While *confirmed*, logistics decides whether the parcel leaves: a cancel
//! is a request. What arrives late, twice or after the end changes nothing.

use std::time::Duration;

use waybill_contract::inventory::StockRejected;
use waybill_contract::logistics::{ShipmentDelivered, ShipmentDispatched};
use waybill_contract::order::{
    self, CancelReason, CancelRequested, CatalogueUpdated, OrderCancelled, OrderCompleted,
    OrderConfirmed, OrderDelivered, OrderDispatched, OrderPlaced, OrderRejected, PaymentSecured,
    Reason, ReasonCode, StockSecured,
};
use waybill_contract::user::{DeclineReason, NotificationKind, PaymentDeclined};
use waybill_contract::{
    Address, Amount, Currency, Event, InventoryEvent, Line, LogisticsEvent, Money, OrderEvent,
    OrderId, Quantity, ShipmentId, Sku, Text, UserEvent, UserId,
};
use waybill_runtime::{
    Context, Evolve, Json, Message, Recorded, TimerChange, Timestamp, Version, row, tables,
    text_enum,
};

use crate::OrderService;

text_enum! {
    /// Where an order is in its life.
    pub enum Status {
        /// Waits for stock and payment.
        Placed = "placed",
        /// Has both; is being packed.
        Confirmed = "confirmed",
        /// The customer wants it cancelled; logistics decides.
        Cancelling = "cancelling",
        /// On its way.
        Dispatched = "dispatched",
        /// Arrived.
        Delivered = "delivered",
        /// Arrived, and the customer was told. An end.
        Completed = "completed",
        /// Could not be fulfilled. An end.
        Rejected = "rejected",
        /// Cancelled. An end.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// Which of the two answers a placed order already has.
    pub enum Secured {
        /// Neither.
        Nothing = "nothing",
        /// The stock is reserved.
        Stock = "stock",
        /// The payment is authorized.
        Payment = "payment",
        /// Both: it is confirmed.
        Both = "both",
    }
}

text_enum! {
    /// Whether the customer was told of an arrival before it was known here that the parcel left.
    pub enum ArrivalTold {
        /// No.
        No = "no",
        /// Yes: once it is known that it left, it is known that it arrived, too.
        Yes = "yes",
    }
}

row! {
    /// An order as it stands.
    pub struct Order in orders for OrderEvent {
        /// Its identity.
        id: text OrderId,
        /// Its short number, for people.
        number: text String,
        /// Who ordered.
        customer_id: text UserId,
        /// Where it is in its life.
        status: text Status,
        /// Which answers it has.
        secured: text Secured,
        /// What was ordered.
        lines: text Json<Vec<Line>>,
        /// The sum of the lines, in minor units.
        total: bigint Amount,
        /// Of what currency.
        currency: text Currency,
        /// Where it goes.
        ship_to: text Json<Address>,
        /// When it was placed.
        placed_at: bigint Timestamp,
        /// When it last changed.
        updated_at: bigint Timestamp,
        /// When it is cancelled if it is still only placed.
        expires_at: bigint Timestamp,
        /// Its parcel, once that left.
        shipment_id: text Option<ShipmentId>,
        /// Who carries the parcel; empty before it left.
        carrier: text String,
        /// What the carrier calls the parcel; empty before it left.
        tracking_number: text String,
        /// What the customer said when asking to cancel.
        cancel_comment: text Option<Text>,
        /// Why it did not come to a good end.
        reasons: text Json<Vec<Reason>>,
        /// Whether the customer was told that it arrived before it was known that it left.
        arrival_told: text ArrivalTold,
    }
    list newest by id where [];
    list newest by id where [customer_id = "$3"] over status [
        "placed", "confirmed", "cancelling", "dispatched", "delivered", "completed", "rejected",
        "cancelled"
    ];
    list newest by id where [status = "$3"];
    list newest by id where [customer_id = "$3", status = "$4"];
    counted by status: Status;
}

row! {
    /// A product's name and price as this service knows them, so that placing asks nobody else.
    pub struct CatalogueItem in catalogue for OrderEvent {
        /// The product.
        sku: text Sku,
        /// Its name.
        name: text Text,
        /// What one costs, in minor units.
        price: bigint Amount,
        /// Of what currency.
        currency: text Currency,
        /// When it last changed.
        updated_at: bigint Timestamp,
    }
}

tables! {
    /// What the order service owns.
    pub struct OrderTables for OrderEvent {
        /// Every order.
        orders: Order,
        /// Every product that can be ordered.
        catalogue: CatalogueItem,
    }
}

/// What the order service can be asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Place an order.
    Place(PlaceOrder),
    /// Cancel an order.
    Cancel(CancelOrder),
}

/// Place an order for these products at the catalogue's prices.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// Who orders.
    pub customer_id: UserId,
    /// Which products, and how many of each; 1 to 100, no product twice.
    pub lines: Vec<(Sku, Quantity)>,
    /// Where it goes.
    pub ship_to: Address,
}

/// Cancel this order.
#[derive(Clone, Debug)]
pub struct CancelOrder {
    /// Which order.
    pub order_id: OrderId,
    /// What the customer says about it.
    pub comment: Option<Text>,
}

/// What the order service asks to be reminded of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// The deadline of an order that may still be only placed.
    Expire(OrderId),
}

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long an order may wait for stock and payment.
    pub deadline: Duration,
}

/// Why the order service says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order.
    #[error("there is no order {0}")]
    UnknownOrder(OrderId),
    /// Lines that cannot be ordered, each by its place and why.
    #[error("the order cannot be placed as it is")]
    InvalidLines(Vec<InvalidLine>),
    /// It is too late to cancel.
    #[error("order {order_id} is {status}; it cannot be cancelled any more")]
    TooLateToCancel {
        /// Which order.
        order_id: OrderId,
        /// Where it is.
        status: Status,
    },
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLine {
    /// Its place, from 0; nothing if it is about all of them.
    pub index: Option<usize>,
    /// What is wrong.
    pub detail: String,
}

type Decision = Result<Vec<OrderEvent>, Refusal>;

/// Which rows a message concerns.
pub(crate) fn concerns(message: &Message<OrderService>, tables: &mut OrderTables) {
    match message {
        Message::Command(Command::Place(place)) => {
            place.lines.iter().for_each(|(sku, _)| tables.catalogue.want(sku));
        }
        Message::Command(Command::Cancel(cancel)) => tables.orders.want(&cancel.order_id),
        Message::Due(Timer::Expire(order_id)) => tables.orders.want(order_id),
        Message::Heard(event) => match event {
            Event::Inventory(InventoryEvent::Listed(product)) => {
                tables.catalogue.want(&product.sku);
            }
            Event::Inventory(InventoryEvent::Changed(product)) => {
                tables.catalogue.want(&product.sku);
            }
            other => {
                if let Some(order_id) = order_of(other) {
                    tables.orders.want(&order_id);
                }
            }
        },
    }
}

/// The order that an event of another service answers.
fn order_of(event: &Event) -> Option<OrderId> {
    match event {
        Event::Inventory(InventoryEvent::Reserved(e)) => Some(e.order_id),
        Event::Inventory(InventoryEvent::Rejected(e)) => Some(e.order_id),
        Event::User(UserEvent::Authorized(e)) => Some(e.order_id),
        Event::User(UserEvent::Declined(e)) => Some(e.order_id),
        Event::User(UserEvent::Notified(e)) => Some(e.order_id),
        Event::Logistics(LogisticsEvent::Dispatched(e)) => Some(e.order_id),
        Event::Logistics(LogisticsEvent::Delivered(e)) => Some(e.order_id),
        Event::Logistics(LogisticsEvent::Failed(e)) => Some(e.order_id),
        Event::Logistics(LogisticsEvent::Cancelled(e)) => Some(e.order_id),
        _ => None,
    }
}

/// What follows from a message.
pub(crate) fn decide(
    message: &Message<OrderService>,
    tables: &OrderTables,
    context: &Context<'_, OrderService>,
) -> Decision {
    match message {
        Message::Command(Command::Place(place)) => decide_place(place, tables, context),
        Message::Command(Command::Cancel(cancel)) => decide_cancel(cancel, tables),
        Message::Due(Timer::Expire(order_id)) => {
            Ok(tables.orders.get(order_id).map_or_else(Vec::new, expire))
        }
        Message::Heard(Event::Inventory(InventoryEvent::Listed(product))) => {
            Ok(catalogue(&product.sku, &product.name, &product.price, tables))
        }
        Message::Heard(Event::Inventory(InventoryEvent::Changed(product))) => {
            Ok(catalogue(&product.sku, &product.name, &product.price, tables))
        }
        Message::Heard(event) => {
            let order = order_of(event).and_then(|order_id| tables.orders.get(&order_id));
            Ok(order.map_or_else(Vec::new, |order| order.hear(event)))
        }
    }
}

fn decide_place(
    place: &PlaceOrder,
    tables: &OrderTables,
    context: &Context<'_, OrderService>,
) -> Decision {
    let order_id = OrderId(context.fresh_id);
    let (lines, total) = price(&place.lines, tables).map_err(Refusal::InvalidLines)?;
    Ok(vec![
        OrderPlaced {
            order_id,
            // The place in the outbox: unique, short, and known before anything is stored.
            number: format!("W-{}", context.position),
            customer_id: place.customer_id,
            lines,
            total,
            ship_to: place.ship_to.clone(),
            expires_at: context.now.plus(context.settings.deadline),
        }
        .into(),
    ])
}

/// The lines at the catalogue's prices, and their sum; or everything that is wrong with them.
fn price(
    ordered: &[(Sku, Quantity)],
    tables: &OrderTables,
) -> Result<(Vec<Line>, Money), Vec<InvalidLine>> {
    let mut lines: Vec<Line> = Vec::with_capacity(ordered.len());
    let mut invalid = Vec::new();
    let mut sum = Amount::ZERO;
    for (index, (sku, quantity)) in ordered.iter().enumerate() {
        let mut refuse = |detail| invalid.push(InvalidLine { index: Some(index), detail });
        let Some(item) = tables.catalogue.get(sku) else {
            refuse(format!("there is no product {sku}"));
            continue;
        };
        if let Some(first) = lines.first().filter(|l| l.unit_price.currency != item.currency) {
            let other = &first.unit_price.currency;
            refuse(format!("{sku} is priced in {}, other lines in {other}", item.currency));
            continue;
        }
        match item.price.times(*quantity).and_then(|amount| sum.plus(amount)) {
            Ok(next) => sum = next,
            Err(too_much) => refuse(format!("with this line, the total {too_much}")),
        }
        lines.push(Line {
            sku: sku.clone(),
            name: item.name.clone(),
            quantity: *quantity,
            unit_price: Money { amount: item.price, currency: item.currency.clone() },
        });
    }
    match lines.first().map(|line| line.unit_price.currency.clone()) {
        Some(currency) if invalid.is_empty() => Ok((lines, Money { amount: sum, currency })),
        None if invalid.is_empty() => {
            Err(vec![InvalidLine { index: None, detail: "must hold at least one line".to_owned() }])
        }
        _ => Err(invalid),
    }
}

fn decide_cancel(cancel: &CancelOrder, tables: &OrderTables) -> Decision {
    let order_id = cancel.order_id;
    let order = tables.orders.get(&order_id).ok_or(Refusal::UnknownOrder(order_id))?;
    match order.status {
        Status::Placed => Ok(order.cancelled(CancelReason::Customer, cancel.comment.clone())),
        Status::Confirmed => {
            Ok(vec![CancelRequested { order_id, comment: cancel.comment.clone() }.into()])
        }
        Status::Cancelling => Ok(Vec::new()),
        status => Err(Refusal::TooLateToCancel { order_id, status }),
    }
}

fn expire(order: &Order) -> Vec<OrderEvent> {
    match order.status {
        Status::Placed => order.cancelled(CancelReason::Expired, None),
        _ => Vec::new(),
    }
}

fn catalogue(sku: &Sku, name: &Text, price: &Money, tables: &OrderTables) -> Vec<OrderEvent> {
    let known = tables.catalogue.get(sku);
    if known.is_some_and(|item| {
        item.name == *name && item.price == price.amount && item.currency == price.currency
    }) {
        return Vec::new();
    }
    vec![CatalogueUpdated { sku: sku.clone(), name: name.clone(), price: price.clone() }.into()]
}

impl Order {
    /// What follows for this order from what another service says.
    fn hear(&self, event: &Event) -> Vec<OrderEvent> {
        match event {
            Event::Inventory(InventoryEvent::Reserved(_)) => self.secure(Secured::Stock),
            Event::User(UserEvent::Authorized(_)) => self.secure(Secured::Payment),
            Event::Inventory(InventoryEvent::Rejected(rejected)) => {
                self.reject(shortages(rejected))
            }
            Event::User(UserEvent::Declined(declined)) => self.reject(vec![decline(declined)]),
            Event::Logistics(LogisticsEvent::Dispatched(parcel)) => self.dispatch(parcel),
            Event::Logistics(LogisticsEvent::Delivered(parcel)) => self.deliver(parcel),
            Event::Logistics(LogisticsEvent::Cancelled(_)) => match self.status {
                Status::Confirmed | Status::Cancelling => {
                    self.cancelled(CancelReason::Customer, self.cancel_comment.clone())
                }
                _ => Vec::new(),
            },
            Event::Logistics(LogisticsEvent::Failed(failed)) => match self.status {
                Status::Confirmed | Status::Cancelling | Status::Dispatched => {
                    self.cancelled(CancelReason::ShipmentFailed, Some(failed.reason.clone()))
                }
                _ => Vec::new(),
            },
            Event::User(UserEvent::Notified(told)) if told.kind == NotificationKind::Delivered => {
                self.complete()
            }
            _ => Vec::new(),
        }
    }

    /// One of the two answers is yes: the first is noted, the second confirms.
    fn secure(&self, answer: Secured) -> Vec<OrderEvent> {
        let order_id = self.id;
        match (self.status, self.secured, answer) {
            (Status::Placed, Secured::Nothing, Secured::Stock) => {
                vec![StockSecured { order_id }.into()]
            }
            (Status::Placed, Secured::Nothing, Secured::Payment) => {
                vec![PaymentSecured { order_id }.into()]
            }
            (Status::Placed, Secured::Stock, Secured::Payment)
            | (Status::Placed, Secured::Payment, Secured::Stock) => vec![
                OrderConfirmed {
                    order_id,
                    customer_id: self.customer_id,
                    lines: self.lines.0.clone(),
                    ship_to: self.ship_to.0.clone(),
                }
                .into(),
            ],
            _ => Vec::new(),
        }
    }

    /// The first no ends the order at once.
    fn reject(&self, reasons: Vec<Reason>) -> Vec<OrderEvent> {
        if self.status != Status::Placed {
            return Vec::new();
        }
        let (order_id, customer_id) = (self.id, self.customer_id);
        vec![OrderRejected { order_id, customer_id, reasons }.into()]
    }

    fn cancelled(&self, reason: CancelReason, comment: Option<Text>) -> Vec<OrderEvent> {
        let (order_id, customer_id) = (self.id, self.customer_id);
        vec![OrderCancelled { order_id, customer_id, reason, comment }.into()]
    }

    fn dispatch(&self, parcel: &ShipmentDispatched) -> Vec<OrderEvent> {
        match self.status {
            Status::Confirmed | Status::Cancelling => {
                let order_id = self.id;
                let mut follows = vec![self.dispatched(
                    parcel.shipment_id,
                    &parcel.carrier,
                    &parcel.tracking_number,
                )];
                if self.arrival_told == ArrivalTold::Yes {
                    follows.push(OrderDelivered { order_id }.into());
                    follows.push(OrderCompleted { order_id }.into());
                }
                follows
            }
            _ => Vec::new(),
        }
    }

    fn deliver(&self, parcel: &ShipmentDelivered) -> Vec<OrderEvent> {
        let delivered = OrderDelivered { order_id: self.id }.into();
        match self.status {
            Status::Dispatched => vec![delivered],
            // The news of its leaving is still on the way: it did leave.
            Status::Confirmed | Status::Cancelling => {
                let mut follows = vec![
                    self.dispatched(parcel.shipment_id, &parcel.carrier, &parcel.tracking_number),
                    delivered,
                ];
                if self.arrival_told == ArrivalTold::Yes {
                    follows.push(OrderCompleted { order_id: self.id }.into());
                }
                follows
            }
            _ => Vec::new(),
        }
    }

    fn dispatched(&self, shipment_id: ShipmentId, carrier: &str, tracking: &str) -> OrderEvent {
        OrderDispatched {
            order_id: self.id,
            shipment_id,
            carrier: carrier.to_owned(),
            tracking_number: tracking.to_owned(),
        }
        .into()
    }

    /// The customer was told that it arrived, which may be known here before its arrival is, and in
    /// an event store that was filled again from the outboxes even before its leaving.
    fn complete(&self) -> Vec<OrderEvent> {
        let order_id = self.id;
        match (self.status, self.arrival_told) {
            (Status::Delivered, _) => vec![OrderCompleted { order_id }.into()],
            (Status::Dispatched, _) => {
                vec![OrderDelivered { order_id }.into(), OrderCompleted { order_id }.into()]
            }
            (Status::Confirmed | Status::Cancelling, ArrivalTold::No) => {
                vec![order::ArrivalTold { order_id }.into()]
            }
            _ => Vec::new(),
        }
    }
}

fn shortages(rejected: &StockRejected) -> Vec<Reason> {
    let reason = |shortage: &waybill_contract::inventory::Shortage| Reason {
        code: ReasonCode::OutOfStock,
        detail: format!(
            "{}: {} ordered, {} available",
            shortage.sku, shortage.requested, shortage.available
        ),
    };
    rejected.shortages.iter().map(reason).collect()
}

fn decline(declined: &PaymentDeclined) -> Reason {
    let (code, detail) = match declined.reason {
        DeclineReason::UnknownCustomer => {
            (ReasonCode::UnknownCustomer, format!("there is no user {}", declined.user_id))
        }
        DeclineReason::InsufficientFunds => {
            (ReasonCode::InsufficientFunds, "the balance does not cover the total".to_owned())
        }
        DeclineReason::CurrencyMismatch => {
            (ReasonCode::CurrencyMismatch, "the wallet holds another currency".to_owned())
        }
    };
    Reason { code, detail }
}

fn cancel_reason(event: &OrderCancelled) -> Reason {
    let (code, plain) = match event.reason {
        CancelReason::Customer => (ReasonCode::CancelledByCustomer, "cancelled by the customer"),
        CancelReason::Expired => (ReasonCode::Expired, "not confirmed before its deadline"),
        CancelReason::ShipmentFailed => (ReasonCode::ShipmentFailed, "the parcel did not arrive"),
    };
    let detail = event.comment.as_ref().map_or_else(|| plain.to_owned(), ToString::to_string);
    Reason { code, detail }
}

/// The timers that an event sets or clears: the deadline, from placed until anything is decided.
pub(crate) fn timers(event: &OrderEvent) -> Vec<TimerChange<Timer>> {
    let key = |order_id: OrderId| format!("expire-{order_id}");
    match event {
        OrderEvent::Placed(e) => vec![TimerChange::Set {
            key: key(e.order_id),
            due_at: e.expires_at,
            timer: Timer::Expire(e.order_id),
        }],
        OrderEvent::Confirmed(OrderConfirmed { order_id, .. })
        | OrderEvent::Rejected(OrderRejected { order_id, .. })
        | OrderEvent::Cancelled(OrderCancelled { order_id, .. }) => {
            vec![TimerChange::Clear { key: key(*order_id) }]
        }
        _ => Vec::new(),
    }
}

impl Evolve for Order {
    fn changed_by(event: &OrderEvent) -> Vec<OrderId> {
        match event {
            OrderEvent::Placed(e) => vec![e.order_id],
            OrderEvent::StockSecured(e) => vec![e.order_id],
            OrderEvent::PaymentSecured(e) => vec![e.order_id],
            OrderEvent::Confirmed(e) => vec![e.order_id],
            OrderEvent::Rejected(e) => vec![e.order_id],
            OrderEvent::CancelRequested(e) => vec![e.order_id],
            OrderEvent::Cancelled(e) => vec![e.order_id],
            OrderEvent::Dispatched(e) => vec![e.order_id],
            OrderEvent::Delivered(e) => vec![e.order_id],
            OrderEvent::ArrivalTold(e) => vec![e.order_id],
            OrderEvent::Completed(e) => vec![e.order_id],
            OrderEvent::CatalogueUpdated(_) => Vec::new(),
        }
    }

    fn evolve(row: Option<Self>, _: &OrderId, recorded: &Recorded<'_, OrderEvent>) -> Option<Self> {
        if let OrderEvent::Placed(placed) = recorded.event {
            return Some(Self::placed(placed, recorded.time));
        }
        let mut order = row?;
        order.updated_at = recorded.time;
        match recorded.event {
            OrderEvent::StockSecured(_) => order.secured = Secured::Stock,
            OrderEvent::PaymentSecured(_) => order.secured = Secured::Payment,
            OrderEvent::Confirmed(_) => {
                order.status = Status::Confirmed;
                order.secured = Secured::Both;
            }
            OrderEvent::Rejected(e) => {
                order.status = Status::Rejected;
                order.reasons = Json(e.reasons.clone());
            }
            OrderEvent::CancelRequested(e) => {
                order.status = Status::Cancelling;
                order.cancel_comment.clone_from(&e.comment);
            }
            OrderEvent::Cancelled(e) => {
                order.status = Status::Cancelled;
                order.reasons = Json(vec![cancel_reason(e)]);
            }
            OrderEvent::Dispatched(e) => {
                order.status = Status::Dispatched;
                order.shipment_id = Some(e.shipment_id);
                order.carrier.clone_from(&e.carrier);
                order.tracking_number.clone_from(&e.tracking_number);
            }
            OrderEvent::Delivered(_) => order.status = Status::Delivered,
            OrderEvent::ArrivalTold(_) => order.arrival_told = ArrivalTold::Yes,
            OrderEvent::Completed(_) => order.status = Status::Completed,
            OrderEvent::Placed(_) | OrderEvent::CatalogueUpdated(_) => {}
        }
        Some(order)
    }
}

impl Order {
    fn placed(event: &OrderPlaced, time: Timestamp) -> Self {
        Self {
            id: event.order_id,
            number: event.number.clone(),
            customer_id: event.customer_id,
            status: Status::Placed,
            secured: Secured::Nothing,
            lines: Json(event.lines.clone()),
            total: event.total.amount,
            currency: event.total.currency.clone(),
            ship_to: Json(event.ship_to.clone()),
            placed_at: time,
            updated_at: time,
            expires_at: event.expires_at,
            shipment_id: None,
            carrier: String::new(),
            tracking_number: String::new(),
            cancel_comment: None,
            reasons: Json(Vec::new()),
            arrival_told: ArrivalTold::No,
            version: Version(0),
        }
    }
}

impl Evolve for CatalogueItem {
    fn changed_by(event: &OrderEvent) -> Vec<Sku> {
        match event {
            OrderEvent::CatalogueUpdated(e) => vec![e.sku.clone()],
            _ => Vec::new(),
        }
    }

    fn evolve(row: Option<Self>, _: &Sku, recorded: &Recorded<'_, OrderEvent>) -> Option<Self> {
        let OrderEvent::CatalogueUpdated(updated) = recorded.event else { return row };
        Some(Self {
            sku: updated.sku.clone(),
            name: updated.name.clone(),
            price: updated.price.amount,
            currency: updated.price.currency.clone(),
            updated_at: recorded.time,
            version: Version(0),
        })
    }
}
