//! Events of the inventory service.

use serde::{Deserialize, Serialize};

use crate::values::{Money, OrderId, Quantity, Sku, Text};

/// The service's name in an event's source.
pub const SOURCE: &str = "inventory";

events! {
    /// What happens to products and to the stock that orders reserve.
    pub enum InventoryEvent {
        /// A product is new on the list.
        Listed(ProductListed) = "product.listed" / 1,
            stream |e| product(&e.sku), order |_| None;
        /// A product's name or price changed.
        Changed(ProductChanged) = "product.changed" / 1,
            stream |e| product(&e.sku), order |_| None;
        /// Stock came in.
        Received(StockReceived) = "stock.received" / 1,
            stream |e| product(&e.sku), order |_| None;
        /// All lines of an order are set aside for it.
        Reserved(StockReserved) = "stock.reserved" / 1,
            stream |e| reservation(e.order_id), order |e| Some(e.order_id);
        /// Not all lines of an order are in stock; none is set aside.
        Rejected(StockRejected) = "stock.rejected" / 1,
            stream |e| reservation(e.order_id), order |e| Some(e.order_id);
        /// What was set aside left the house.
        Shipped(StockShipped) = "stock.shipped" / 1,
            stream |e| reservation(e.order_id), order |e| Some(e.order_id);
        /// What was set aside is free again; no lines where nothing was set aside yet.
        Released(StockReleased) = "stock.released" / 1,
            stream |e| reservation(e.order_id), order |e| Some(e.order_id);
        /// What left the house came back.
        Returned(StockReturned) = "stock.returned" / 1,
            stream |e| reservation(e.order_id), order |e| Some(e.order_id);
    }
}

fn product(sku: &Sku) -> String {
    format!("product-{sku}")
}

fn reservation(order_id: OrderId) -> String {
    format!("reservation-{order_id}")
}

/// Data of `product.listed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductListed {
    /// The product.
    pub sku: Sku,
    /// Its name.
    pub name: Text,
    /// What one costs.
    pub price: Money,
    /// How many are there to begin with.
    pub quantity: i64,
}

/// Data of `product.changed`: the whole as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductChanged {
    /// The product.
    pub sku: Sku,
    /// Its name.
    pub name: Text,
    /// What one costs.
    pub price: Money,
}

/// Data of `stock.received`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// The product.
    pub sku: Sku,
    /// How many came in.
    pub quantity: Quantity,
    /// What the receipt refers to, such as a delivery note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Text>,
}

/// How many of one product an order holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLine {
    /// The product.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
}

/// Data of `stock.reserved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReserved {
    /// The order.
    pub order_id: OrderId,
    /// What is set aside.
    pub lines: Vec<StockLine>,
}

/// One line that is not in stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The product.
    pub sku: Sku,
    /// How many were asked for.
    pub requested: Quantity,
    /// How many there were.
    pub available: i64,
}

/// Data of `stock.rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRejected {
    /// The order.
    pub order_id: OrderId,
    /// What is missing.
    pub shortages: Vec<Shortage>,
}

/// Data of `stock.shipped`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockShipped {
    /// The order.
    pub order_id: OrderId,
    /// What left.
    pub lines: Vec<StockLine>,
}

/// Data of `stock.released`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReleased {
    /// The order.
    pub order_id: OrderId,
    /// What is free again.
    pub lines: Vec<StockLine>,
}

/// Data of `stock.returned`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReturned {
    /// The order.
    pub order_id: OrderId,
    /// What came back.
    pub lines: Vec<StockLine>,
}
