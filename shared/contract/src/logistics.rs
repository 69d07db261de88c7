//! Events of the logistics service.

use serde::{Deserialize, Serialize};
use waybill_runtime::{Timestamp, text_enum};

use crate::values::{Address, Line, OrderId, ShipmentId, Text};

/// The service's name in an event's source.
pub const SOURCE: &str = "logistics";

events! {
    /// What happens to parcels.
    pub enum LogisticsEvent {
        /// A parcel is being packed.
        Created(ShipmentCreated) = "shipment.created" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
        /// It left.
        Dispatched(ShipmentDispatched) = "shipment.dispatched" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
        /// The carrier saw it on its way.
        InTransit(ShipmentInTransit) = "shipment.in_transit" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
        /// It arrived.
        Delivered(ShipmentDelivered) = "shipment.delivered" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
        /// It will not arrive.
        Failed(ShipmentFailed) = "shipment.failed" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
        /// It will not leave: its order is being cancelled.
        Cancelled(ShipmentCancelled) = "shipment.cancelled" / 1,
            stream |e| stream(e.shipment_id), order |e| Some(e.order_id);
    }
}

fn stream(shipment_id: ShipmentId) -> String {
    format!("shipment-{shipment_id}")
}

text_enum! {
    /// Who moves parcels.
    pub enum CarrierMode {
        /// They move by themselves, by timers.
        Simulated = "simulated",
        /// They move by what is posted to the tracking route.
        Manual = "manual",
    }
}

/// Data of `shipment.created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentCreated {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// What is in it.
    pub lines: Vec<Line>,
    /// Where it goes.
    pub ship_to: Address,
    /// When it is packed and leaves.
    pub dispatch_at: Timestamp,
}

/// Data of `shipment.dispatched`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentDispatched {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// Who carries it.
    pub carrier: String,
    /// What the carrier calls it.
    pub tracking_number: String,
    /// Who moves it from here.
    pub mode: CarrierMode,
    /// When the simulated carrier reports it on its way, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_transit_at: Option<Timestamp>,
    /// When the simulated carrier delivers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
}

/// Data of `shipment.in_transit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentInTransit {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// Where it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Text>,
    /// What the carrier says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

/// Data of `shipment.delivered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentDelivered {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// Who carried it.
    pub carrier: String,
    /// What the carrier calls it.
    pub tracking_number: String,
    /// Where it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Text>,
    /// What the carrier says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

/// Data of `shipment.failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentFailed {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// Why.
    pub reason: Text,
    /// Where it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Text>,
}

/// Data of `shipment.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentCancelled {
    /// The parcel.
    pub shipment_id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
}
