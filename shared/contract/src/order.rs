//! Events of the order service.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waybill_runtime::{Timestamp, text_enum};

use crate::values::{Address, Line, Money, OrderId, ShipmentId, Sku, Text, UserId};

/// The service's name in an event's source.
pub const SOURCE: &str = "order";

events! {
    /// What happens to orders, and to the order service's copy of the catalogue.
    pub enum OrderEvent {
        /// A customer placed an order.
        Placed(OrderPlaced) = "order.placed" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// Its stock is reserved; the payment is still open.
        StockSecured(StockSecured) = "order.stock_secured" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// Its payment is authorized; the stock is still open.
        PaymentSecured(PaymentSecured) = "order.payment_secured" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// Stock and payment are secured: it may be shipped.
        Confirmed(OrderConfirmed) = "order.confirmed" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// It cannot be fulfilled.
        Rejected(OrderRejected) = "order.rejected" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// The customer asks to cancel while logistics decides whether the parcel leaves.
        CancelRequested(CancelRequested) = "order.cancel_requested" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// It is cancelled.
        Cancelled(OrderCancelled) = "order.cancelled" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// Its parcel left.
        Dispatched(OrderDispatched) = "order.dispatched" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// Its parcel arrived.
        Delivered(OrderDelivered) = "order.delivered" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// The customer was told that it arrived, which is known here before it is that it left.
        ArrivalTold(ArrivalTold) = "order.arrival_told" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// It arrived and the customer was told so.
        Completed(OrderCompleted) = "order.completed" / 1,
            stream |e| stream(e.order_id), order |e| Some(e.order_id);
        /// A product's name and price as the order service knows them.
        CatalogueUpdated(CatalogueUpdated) = "catalogue.updated" / 1,
            stream |e| format!("catalogue-{}", e.sku), order |_| None;
    }
}

fn stream(order_id: OrderId) -> String {
    format!("order-{order_id}")
}

/// Data of `order.placed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: OrderId,
    /// Its short number, for people.
    pub number: String,
    /// Who ordered.
    pub customer_id: UserId,
    /// What was ordered, with the prices of that moment.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
    /// Where it goes.
    pub ship_to: Address,
    /// When it is cancelled if it is still not confirmed.
    pub expires_at: Timestamp,
}

/// Data of `order.stock_secured`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockSecured {
    /// The order.
    pub order_id: OrderId,
}

/// Data of `order.payment_secured`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentSecured {
    /// The order.
    pub order_id: OrderId,
}

/// Data of `order.confirmed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: UserId,
    /// What to pack.
    pub lines: Vec<Line>,
    /// Where it goes.
    pub ship_to: Address,
}

text_enum! {
    /// Why an order cannot be fulfilled.
    pub enum ReasonCode {
        /// Less in stock than ordered.
        OutOfStock = "out_of_stock",
        /// The customer's balance is too low.
        InsufficientFunds = "insufficient_funds",
        /// The customer holds another currency.
        CurrencyMismatch = "currency_mismatch",
        /// There is no such customer.
        UnknownCustomer = "unknown_customer",
        /// The customer cancelled it.
        CancelledByCustomer = "customer",
        /// Nobody confirmed it in time.
        Expired = "expired",
        /// The parcel did not arrive.
        ShipmentFailed = "shipment_failed",
    }
}

/// Why an order did not come to a good end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// For programs.
    #[schema(value_type = String, example = "out_of_stock")]
    pub code: ReasonCode,
    /// For people.
    #[schema(example = "TEA-500: 3 ordered, 1 available")]
    pub detail: String,
}

/// Data of `order.rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRejected {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: UserId,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Data of `order.cancel_requested`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// The order.
    pub order_id: OrderId,
    /// What the customer says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Text>,
}

text_enum! {
    /// Why an order was cancelled.
    pub enum CancelReason {
        /// The customer asked for it.
        Customer = "customer",
        /// Its deadline passed before it was confirmed.
        Expired = "expired",
        /// Its parcel did not arrive.
        ShipmentFailed = "shipment_failed",
    }
}

/// Data of `order.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: UserId,
    /// Why.
    pub reason: CancelReason,
    /// What is known about it beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Text>,
}

/// Data of `order.dispatched`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDispatched {
    /// The order.
    pub order_id: OrderId,
    /// Its parcel.
    pub shipment_id: ShipmentId,
    /// Who carries it.
    pub carrier: String,
    /// What the carrier calls it.
    pub tracking_number: String,
}

/// Data of `order.delivered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDelivered {
    /// The order.
    pub order_id: OrderId,
}

/// Data of `order.arrival_told`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalTold {
    /// The order.
    pub order_id: OrderId,
}

/// Data of `order.completed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCompleted {
    /// The order.
    pub order_id: OrderId,
}

/// Data of `catalogue.updated`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueUpdated {
    /// The product.
    pub sku: Sku,
    /// Its name.
    pub name: Text,
    /// What one costs.
    pub price: Money,
}
