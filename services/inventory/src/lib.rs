//! The inventory service: keeps the list of products and their stock, and sets stock aside for
//! orders.
//!
//! **Hears** the beginning of an order (`order.placed`), its end (`order.rejected`,
//! `order.cancelled`) and that its parcel left (`shipment.dispatched`).
//!
//! **Tells** of each product `product.listed`, `product.changed` and `stock.received`; of each
//! order `stock.reserved` or `stock.rejected`, then `stock.shipped`, `stock.released` or
//! `stock.returned`.
//!
//! **Serves** `POST /v1/products`, `GET /v1/products`, `GET /v1/products/{sku}`,
//! `PATCH /v1/products/{sku}` and `POST /v1/products/{sku}/receipts`.

mod api;
mod stock;

pub use api::{ProductView, routes};
pub use stock::{
    ChangeProduct, Command, InventoryTables, ListProduct, Product, ReceiveStock, Refusal,
    Reservation, Status, Timer,
};

use waybill_contract::{Event, InventoryEvent};
use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Message, Migration, Service, TimerChange, Version,
};

/// The inventory service.
#[derive(Debug)]
pub struct InventoryService;

impl Service for InventoryService {
    const NAME: &'static str = waybill_contract::inventory::SOURCE;
    const HEARS: &'static [&'static str] =
        &["order.placed", "order.rejected", "order.cancelled", "shipment.dispatched"];
    const MIGRATIONS: &'static [Migration] = &[Migration {
        version: 2001,
        name: "stock",
        sql: include_str!("../../../migrations/inventory/0001_stock.sql"),
    }];
    const POSTGRES_MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 3001,
            name: "views",
            sql: include_str!("../../../migrations/postgres/0102_inventory_views.sql"),
        },
        Migration {
            version: 3002,
            name: "room",
            sql: include_str!("../../../migrations/postgres/0105_inventory_room.sql"),
        },
    ];

    type Tables = InventoryTables;
    type Event = InventoryEvent;
    type Heard = Event;
    type Command = Command;
    type Timer = Timer;
    type Refusal = Refusal;
    type Settings = ();

    fn hear(envelope: &Envelope) -> Result<Event, DecodeError> {
        Event::read(envelope)
    }

    fn concerns(message: &Message<Self>, tables: &mut InventoryTables) {
        stock::concerns(message, tables);
    }

    fn decide(
        message: &Message<Self>,
        tables: &InventoryTables,
        _: &Context<'_, Self>,
    ) -> Result<Vec<InventoryEvent>, Refusal> {
        stock::decide(message, tables)
    }

    fn timers(_: &InventoryEvent) -> Vec<TimerChange<Timer>> {
        Vec::new()
    }

    fn version(command: &Command, tables: &InventoryTables) -> Option<Version> {
        tables.products.get(command.sku()).map(|product| product.version)
    }

    fn answer(command: &Command, tables: &InventoryTables, _: &Context<'_, Self>) -> Answer {
        api::answer(command, tables)
    }
}
