//! The order service: takes orders, and follows each to its end.
//!
//! **Hears** the catalogue (`product.listed`, `product.changed`), the answers of inventory
//! (`stock.reserved`, `stock.rejected`) and of user (`payment.authorized`, `payment.declined`), a
//! parcel's way (`shipment.dispatched`, `shipment.delivered`, `shipment.failed`,
//! `shipment.cancelled`) and that the customer was told of it (`user.notified`).
//!
//! **Tells** of each order `order.placed`, `order.stock_secured` or `order.payment_secured`,
//! `order.confirmed`, `order.rejected`, `order.cancel_requested`, `order.cancelled`,
//! `order.dispatched`, `order.delivered`, `order.arrival_told` and `order.completed`; and
//! `catalogue.updated` of its own copy of the catalogue.
//!
//! **Serves** `POST /v1/orders`, `GET /v1/orders`, `GET /v1/orders/{id}` and
//! `POST /v1/orders/{id}/cancel`.

mod api;
mod order;

pub use api::{OrderView, ShipmentView, routes};
pub use order::{
    CancelOrder, CatalogueItem, Command, InvalidLine, Order, OrderTables, PlaceOrder, Refusal,
    Secured, Settings, Status, Timer,
};

use waybill_contract::{Event, OrderEvent};
use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Message, Migration, Service, TimerChange, Version,
};

/// The order service.
#[derive(Debug)]
pub struct OrderService;

impl Service for OrderService {
    const NAME: &'static str = waybill_contract::order::SOURCE;
    const HEARS: &'static [&'static str] = &[
        "product.listed",
        "product.changed",
        "stock.reserved",
        "stock.rejected",
        "payment.authorized",
        "payment.declined",
        "shipment.dispatched",
        "shipment.delivered",
        "shipment.failed",
        "shipment.cancelled",
        "user.notified",
    ];
    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 2001,
            name: "orders",
            sql: include_str!("../../../migrations/order/0001_orders.sql"),
        },
        Migration {
            version: 2002,
            name: "arrival_told",
            sql: include_str!("../../../migrations/order/0002_arrival_told.sql"),
        },
        Migration {
            version: 2003,
            name: "fewer_indexes",
            sql: include_str!("../../../migrations/order/0003_fewer_indexes.sql"),
        },
    ];
    const POSTGRES_MIGRATIONS: &'static [Migration] = &[Migration {
        version: 3001,
        name: "views",
        sql: include_str!("../../../migrations/postgres/0101_order_views.sql"),
    }];

    type Tables = OrderTables;
    type Event = OrderEvent;
    type Heard = Event;
    type Command = Command;
    type Timer = Timer;
    type Refusal = Refusal;
    type Settings = Settings;

    fn hear(envelope: &Envelope) -> Result<Event, DecodeError> {
        Event::read(envelope)
    }

    fn concerns(message: &Message<Self>, tables: &mut OrderTables) {
        order::concerns(message, tables);
    }

    fn decide(
        message: &Message<Self>,
        tables: &OrderTables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<OrderEvent>, Refusal> {
        order::decide(message, tables, context)
    }

    fn timers(event: &OrderEvent) -> Vec<TimerChange<Timer>> {
        order::timers(event)
    }

    fn version(command: &Command, tables: &OrderTables) -> Option<Version> {
        match command {
            Command::Place(_) => None,
            Command::Cancel(cancel) => tables.orders.get(&cancel.order_id).map(|o| o.version),
        }
    }

    fn answer(command: &Command, tables: &OrderTables, context: &Context<'_, Self>) -> Answer {
        api::answer(command, tables, context)
    }
}
