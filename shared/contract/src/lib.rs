//! Every event that crosses a border of Waybill: its name, its version, its data.
//!
//! What stands here is published. `tests/published.rs` holds one example of every event as it was
//! first written; an example that can no longer be read, or is written differently, fails there.
//!
//! # Layout
//! - [`values`]: ids, money, SKUs, texts: types whose every value is valid.
//! - [`order`], [`inventory`], [`user`], [`logistics`]: the events of each service.
//! - [`Event`]: any of them, for those who hear several services.

#[macro_use]
mod macros;

pub mod inventory;
pub mod logistics;
pub mod order;
pub mod user;
pub mod values;

pub use inventory::InventoryEvent;
pub use logistics::LogisticsEvent;
pub use order::OrderEvent;
pub use user::UserEvent;
pub use values::{
    Address, Amount, Currency, Email, Invalid, Line, Money, OrderId, Quantity, ShipmentId, Sku,
    Text, UserId,
};

use waybill_runtime::{DecodeError, Envelope, Event as _};

/// An event of any service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of the order service.
    Order(OrderEvent),
    /// Of the inventory service.
    Inventory(InventoryEvent),
    /// Of the user service.
    User(UserEvent),
    /// Of the logistics service.
    Logistics(LogisticsEvent),
}

impl Event {
    /// Reads an event by the service that wrote it.
    pub fn read(envelope: &Envelope) -> Result<Self, DecodeError> {
        let Envelope { kind, schema, data, .. } = envelope;
        match envelope.source.as_str() {
            order::SOURCE => OrderEvent::decode(kind, *schema, data).map(Self::Order),
            inventory::SOURCE => InventoryEvent::decode(kind, *schema, data).map(Self::Inventory),
            user::SOURCE => UserEvent::decode(kind, *schema, data).map(Self::User),
            logistics::SOURCE => LogisticsEvent::decode(kind, *schema, data).map(Self::Logistics),
            _ => Err(DecodeError::Unknown { kind: kind.clone(), schema: *schema }),
        }
    }
}
