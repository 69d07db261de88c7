//! Stock: which products there are, how many of each, and what is set aside for which order.
//!
//! ```text
//! (the order is placed) ──► reserved ──► shipped ──► returned
//!            │                 │
//!            ▼                 ▼
//!        rejected           released ◄── (the order ended before it was heard of)
//! ```
//!
//! All lines of an order are set aside or none. What is *available* is what is on hand and not set
//! aside; it is never negative. When an order ends without being kept, what it holds is free again,
//! and what left the house for it is back on hand. An order that ended before anything was set aside
//! leaves a released reservation without lines, so that it reserves nothing later. What arrives
//! late, twice or after the end changes nothing.

use std::collections::BTreeSet;

use waybill_contract::inventory::{
    ProductChanged, ProductListed, Shortage, StockLine, StockReceived, StockRejected,
    StockReleased, StockReserved, StockReturned, StockShipped,
};
use waybill_contract::order::OrderPlaced;
use waybill_contract::values::LARGEST;
use waybill_contract::{
    Amount, Currency, Event, InventoryEvent, LogisticsEvent, Money, OrderEvent, OrderId, Quantity,
    Sku, Text,
};
use waybill_runtime::{
    Evolve, Json, Message, Recorded, Timestamp, Version, row, tables, text_enum,
};

use crate::InventoryService;

text_enum! {
    /// What became of an order's wish for stock.
    pub enum Status {
        /// All its lines are set aside.
        Reserved = "reserved",
        /// Not all were in stock; nothing is set aside. An end.
        Rejected = "rejected",
        /// What was set aside left the house.
        Shipped = "shipped",
        /// Nothing is set aside (any more). An end.
        Released = "released",
        /// What left the house is back. An end.
        Returned = "returned",
    }
}

row! {
    /// A product and its stock as they stand.
    pub struct Product in products for InventoryEvent {
        /// Its identity.
        sku: text Sku,
        /// Its name.
        name: text Text,
        /// What one costs, in minor units.
        price: bigint Amount,
        /// Of what currency; never changes.
        currency: text Currency,
        /// How many are in the house.
        on_hand: bigint i64,
        /// How many of those are set aside for orders.
        reserved: bigint i64,
        /// When it was listed.
        created_at: bigint Timestamp,
        /// When it or its stock last changed.
        updated_at: bigint Timestamp,
    }
    list ascending by sku where [];
}

row! {
    /// What an order holds.
    pub struct Reservation in reservations for InventoryEvent {
        /// The order.
        order_id: text OrderId,
        /// What became of it.
        status: text Status,
        /// What was set aside; none where nothing ever was.
        lines: text Json<Vec<StockLine>>,
        /// When it was decided.
        created_at: bigint Timestamp,
        /// When it last changed.
        updated_at: bigint Timestamp,
    }
}

tables! {
    /// What the inventory service owns.
    pub struct InventoryTables for InventoryEvent {
        /// Every product.
        products: Product,
        /// What each order holds.
        reservations: Reservation,
    }
}

/// What the inventory service can be asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Put a new product on the list.
    List(ListProduct),
    /// Change a product's name or price.
    Change(ChangeProduct),
    /// Take in stock.
    Receive(ReceiveStock),
}

impl Command {
    /// The product that it is about.
    #[must_use]
    pub fn sku(&self) -> &Sku {
        match self {
            Self::List(list) => &list.sku,
            Self::Change(change) => &change.sku,
            Self::Receive(receive) => &receive.sku,
        }
    }
}

/// Put this product on the list.
#[derive(Clone, Debug)]
pub struct ListProduct {
    /// Its identity.
    pub sku: Sku,
    /// Its name.
    pub name: Text,
    /// What one costs.
    pub price: Money,
    /// How many are there to begin with, if any are.
    pub quantity: Option<Quantity>,
}

/// Change what is given, keep the rest.
#[derive(Clone, Debug)]
pub struct ChangeProduct {
    /// Which product.
    pub sku: Sku,
    /// Its new name.
    pub name: Option<Text>,
    /// What one costs from now on, in the same currency.
    pub price: Option<Money>,
}

/// Take in this many.
#[derive(Clone, Debug)]
pub struct ReceiveStock {
    /// Of which product.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
    /// What the receipt refers to, such as a delivery note.
    pub reference: Option<Text>,
}

/// What the inventory service asks to be reminded of: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Timer {}

/// Why the inventory service says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such product.
    #[error("there is no product {0}")]
    UnknownProduct(Sku),
    /// The SKU names another product.
    #[error("there already is a product {0}")]
    SkuTaken(Sku),
    /// A price in another currency than the product's.
    #[error("the currency of a product cannot change")]
    OtherCurrency,
    /// More than the house holds of one product.
    #[error("{sku} has {on_hand} on hand; with this receipt it would be more than {LARGEST}")]
    TooMuchStock {
        /// Which product.
        sku: Sku,
        /// How many are in the house.
        on_hand: i64,
    },
}

type Decision = Result<Vec<InventoryEvent>, Refusal>;

/// Which rows a message concerns.
pub(crate) fn concerns(message: &Message<InventoryService>, tables: &mut InventoryTables) {
    match message {
        Message::Command(command) => tables.products.want(command.sku()),
        Message::Heard(event) => {
            let Some(order_id) = order_of(event) else {
                return;
            };
            tables.reservations.want(&order_id);
            if let Event::Order(OrderEvent::Placed(placed)) = event {
                placed.lines.iter().for_each(|line| tables.products.want(&line.sku));
            }
            // The products that a settlement changes stand in the reservation, once that is loaded.
            if let Some(reservation) = tables.reservations.get(&order_id) {
                reservation.lines.0.iter().for_each(|line| tables.products.want(&line.sku));
            }
        }
        Message::Due(timer) => match *timer {},
    }
}

/// The order whose stock an event of another service is about.
fn order_of(event: &Event) -> Option<OrderId> {
    match event {
        Event::Order(OrderEvent::Placed(e)) => Some(e.order_id),
        Event::Order(OrderEvent::Rejected(e)) => Some(e.order_id),
        Event::Order(OrderEvent::Cancelled(e)) => Some(e.order_id),
        Event::Logistics(LogisticsEvent::Dispatched(e)) => Some(e.order_id),
        _ => None,
    }
}

/// What follows from a message.
pub(crate) fn decide(message: &Message<InventoryService>, tables: &InventoryTables) -> Decision {
    match message {
        Message::Command(Command::List(list)) => decide_list(list, tables),
        Message::Command(Command::Change(change)) => decide_change(change, tables),
        Message::Command(Command::Receive(receive)) => decide_receive(receive, tables),
        Message::Heard(event) => Ok(hear(event, tables).into_iter().collect()),
        Message::Due(timer) => match *timer {},
    }
}

fn decide_list(list: &ListProduct, tables: &InventoryTables) -> Decision {
    if tables.products.get(&list.sku).is_some() {
        return Err(Refusal::SkuTaken(list.sku.clone()));
    }
    Ok(vec![
        ProductListed {
            sku: list.sku.clone(),
            name: list.name.clone(),
            price: list.price.clone(),
            quantity: list.quantity.map_or(0, Quantity::get),
        }
        .into(),
    ])
}

fn decide_change(change: &ChangeProduct, tables: &InventoryTables) -> Decision {
    let product = known(&change.sku, tables)?;
    let name = change.name.as_ref().unwrap_or(&product.name);
    let price = change.price.clone().unwrap_or_else(|| product.unit_price());
    if price.currency != product.currency {
        return Err(Refusal::OtherCurrency);
    }
    if *name == product.name && price.amount == product.price {
        return Ok(Vec::new());
    }
    Ok(vec![ProductChanged { sku: change.sku.clone(), name: name.clone(), price }.into()])
}

fn decide_receive(receive: &ReceiveStock, tables: &InventoryTables) -> Decision {
    let ReceiveStock { sku, quantity, reference } = receive;
    let on_hand = known(sku, tables)?.on_hand;
    if on_hand + quantity.get() > LARGEST {
        return Err(Refusal::TooMuchStock { sku: sku.clone(), on_hand });
    }
    Ok(vec![
        StockReceived { sku: sku.clone(), quantity: *quantity, reference: reference.clone() }
            .into(),
    ])
}

fn known<'a>(sku: &Sku, tables: &'a InventoryTables) -> Result<&'a Product, Refusal> {
    tables.products.get(sku).ok_or_else(|| Refusal::UnknownProduct(sku.clone()))
}

/// What follows from what another service says.
fn hear(event: &Event, tables: &InventoryTables) -> Option<InventoryEvent> {
    let order_id = order_of(event)?;
    match (event, tables.reservations.get(&order_id)) {
        (Event::Order(OrderEvent::Placed(placed)), None) => Some(reserve(placed, tables)),
        // An end before the beginning leaves a mark, so that the beginning reserves nothing later.
        (Event::Order(OrderEvent::Rejected(_) | OrderEvent::Cancelled(_)), None) => {
            Some(StockReleased { order_id, lines: Vec::new() }.into())
        }
        (Event::Order(OrderEvent::Rejected(_) | OrderEvent::Cancelled(_)), Some(reservation)) => {
            reservation.settle()
        }
        (Event::Logistics(LogisticsEvent::Dispatched(_)), Some(reservation)) => reservation.ship(),
        _ => None,
    }
}

/// Sets all lines of an order aside, or none.
fn reserve(placed: &OrderPlaced, tables: &InventoryTables) -> InventoryEvent {
    let mut lines: Vec<StockLine> = Vec::with_capacity(placed.lines.len());
    let mut shortages = Vec::new();
    for line in &placed.lines {
        let (sku, requested) = (line.sku.clone(), line.quantity);
        let available =
            tables.products.get(&sku).map_or(0, Product::available) - quantity_of(&sku, &lines);
        if requested.get() > available {
            shortages.push(Shortage { sku, requested, available });
        } else {
            lines.push(StockLine { sku, quantity: requested });
        }
    }
    let order_id = placed.order_id;
    if shortages.is_empty() {
        StockReserved { order_id, lines }.into()
    } else {
        StockRejected { order_id, shortages }.into()
    }
}

/// How many of a product the lines hold.
fn quantity_of(sku: &Sku, lines: &[StockLine]) -> i64 {
    lines.iter().filter(|line| line.sku == *sku).map(|line| line.quantity.get()).sum()
}

impl Product {
    /// How many can be set aside.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.reserved
    }

    /// What one costs.
    #[must_use]
    pub fn unit_price(&self) -> Money {
        Money { amount: self.price, currency: self.currency.clone() }
    }
}

impl Reservation {
    /// The order's parcel left, with what was set aside.
    fn ship(&self) -> Option<InventoryEvent> {
        let (order_id, lines) = (self.order_id, self.lines.0.clone());
        match self.status {
            Status::Reserved => Some(StockShipped { order_id, lines }.into()),
            // A parcel that failed may be settled before its leaving is heard of: it did leave and
            // is back, which is what the books say already.
            Status::Rejected | Status::Shipped | Status::Released | Status::Returned => None,
        }
    }

    /// The order ended without being kept.
    fn settle(&self) -> Option<InventoryEvent> {
        let (order_id, lines) = (self.order_id, self.lines.0.clone());
        match self.status {
            Status::Reserved => Some(StockReleased { order_id, lines }.into()),
            Status::Shipped => Some(StockReturned { order_id, lines }.into()),
            Status::Rejected | Status::Released | Status::Returned => None,
        }
    }
}

/// What an event sets aside, takes out or puts back.
fn lines_of(event: &InventoryEvent) -> &[StockLine] {
    match event {
        InventoryEvent::Reserved(e) => &e.lines,
        InventoryEvent::Shipped(e) => &e.lines,
        InventoryEvent::Released(e) => &e.lines,
        InventoryEvent::Returned(e) => &e.lines,
        InventoryEvent::Listed(_)
        | InventoryEvent::Changed(_)
        | InventoryEvent::Received(_)
        | InventoryEvent::Rejected(_) => &[],
    }
}

impl Evolve for Product {
    fn changed_by(event: &InventoryEvent) -> Vec<Sku> {
        match event {
            InventoryEvent::Listed(e) => vec![e.sku.clone()],
            InventoryEvent::Changed(e) => vec![e.sku.clone()],
            InventoryEvent::Received(e) => vec![e.sku.clone()],
            reservation => {
                // Each once, however many lines name it: an event changes a row once.
                let skus: BTreeSet<&Sku> =
                    lines_of(reservation).iter().map(|line| &line.sku).collect();
                skus.into_iter().cloned().collect()
            }
        }
    }

    fn evolve(
        row: Option<Self>,
        sku: &Sku,
        recorded: &Recorded<'_, InventoryEvent>,
    ) -> Option<Self> {
        if let InventoryEvent::Listed(listed) = recorded.event {
            return Some(Self::listed(listed, recorded.time));
        }
        let mut product = row?;
        product.updated_at = recorded.time;
        let quantity = quantity_of(sku, lines_of(recorded.event));
        match recorded.event {
            InventoryEvent::Changed(e) => {
                product.name.clone_from(&e.name);
                product.price = e.price.amount;
                product.currency.clone_from(&e.price.currency);
            }
            InventoryEvent::Received(e) => product.on_hand += e.quantity.get(),
            InventoryEvent::Reserved(_) => product.reserved += quantity,
            InventoryEvent::Shipped(_) => {
                product.on_hand -= quantity;
                product.reserved -= quantity;
            }
            InventoryEvent::Released(_) => product.reserved -= quantity,
            InventoryEvent::Returned(_) => product.on_hand += quantity,
            InventoryEvent::Listed(_) | InventoryEvent::Rejected(_) => {}
        }
        Some(product)
    }
}

impl Product {
    fn listed(event: &ProductListed, time: Timestamp) -> Self {
        Self {
            sku: event.sku.clone(),
            name: event.name.clone(),
            price: event.price.amount,
            currency: event.price.currency.clone(),
            on_hand: event.quantity,
            reserved: 0,
            created_at: time,
            updated_at: time,
            version: Version(0),
        }
    }
}

impl Evolve for Reservation {
    fn changed_by(event: &InventoryEvent) -> Vec<OrderId> {
        match event {
            InventoryEvent::Listed(_)
            | InventoryEvent::Changed(_)
            | InventoryEvent::Received(_) => Vec::new(),
            InventoryEvent::Reserved(e) => vec![e.order_id],
            InventoryEvent::Rejected(e) => vec![e.order_id],
            InventoryEvent::Shipped(e) => vec![e.order_id],
            InventoryEvent::Released(e) => vec![e.order_id],
            InventoryEvent::Returned(e) => vec![e.order_id],
        }
    }

    fn evolve(
        row: Option<Self>,
        order_id: &OrderId,
        recorded: &Recorded<'_, InventoryEvent>,
    ) -> Option<Self> {
        let status = match recorded.event {
            InventoryEvent::Listed(_)
            | InventoryEvent::Changed(_)
            | InventoryEvent::Received(_) => return row,
            InventoryEvent::Reserved(_) => Status::Reserved,
            InventoryEvent::Rejected(_) => Status::Rejected,
            InventoryEvent::Shipped(_) => Status::Shipped,
            InventoryEvent::Released(_) => Status::Released,
            InventoryEvent::Returned(_) => Status::Returned,
        };
        Some(Self {
            order_id: *order_id,
            status,
            lines: Json(lines_of(recorded.event).to_vec()),
            created_at: row.map_or(recorded.time, |row| row.created_at),
            updated_at: recorded.time,
            version: Version(0),
        })
    }
}
