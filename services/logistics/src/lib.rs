//! The logistics service: decides whether and when a parcel leaves, and follows it to its end.
//!
//! **Hears** that an order may be shipped (`order.confirmed`) and that its customer wants it
//! cancelled (`order.cancel_requested`).
//!
//! **Tells** of each parcel `shipment.created`, `shipment.dispatched` or `shipment.cancelled`,
//! `shipment.in_transit`, and `shipment.delivered` or `shipment.failed`.
//!
//! **Serves** `GET /v1/shipments`, `GET /v1/shipments/{id}` and `POST /v1/shipments/{id}/tracking`.

mod api;
mod shipment;

pub use api::{ShipmentLine, ShipmentView, routes};
pub use shipment::{
    Command, LogisticsTables, RecordTracking, Refusal, Settings, Shipment, Status, Timer,
    TrackingStatus,
};

use waybill_contract::{Event, LogisticsEvent};
use waybill_runtime::{
    Answer, Context, DecodeError, Envelope, Message, Migration, Service, TimerChange, Version,
};

/// The logistics service.
#[derive(Debug)]
pub struct LogisticsService;

impl Service for LogisticsService {
    const NAME: &'static str = waybill_contract::logistics::SOURCE;
    const HEARS: &'static [&'static str] = &["order.confirmed", "order.cancel_requested"];
    const MIGRATIONS: &'static [Migration] = &[Migration {
        version: 2001,
        name: "shipments",
        sql: include_str!("../../../migrations/logistics/0001_shipments.sql"),
    }];
    const POSTGRES_MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 3001,
            name: "views",
            sql: include_str!("../../../migrations/postgres/0103_logistics_views.sql"),
        },
        Migration {
            version: 3002,
            name: "room",
            sql: include_str!("../../../migrations/postgres/0106_logistics_room.sql"),
        },
    ];

    type Tables = LogisticsTables;
    type Event = LogisticsEvent;
    type Heard = Event;
    type Command = Command;
    type Timer = Timer;
    type Refusal = Refusal;
    type Settings = Settings;

    fn hear(envelope: &Envelope) -> Result<Event, DecodeError> {
        Event::read(envelope)
    }

    fn concerns(message: &Message<Self>, tables: &mut LogisticsTables) {
        shipment::concerns(message, tables);
    }

    fn decide(
        message: &Message<Self>,
        tables: &LogisticsTables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<LogisticsEvent>, Refusal> {
        shipment::decide(message, tables, context)
    }

    fn timers(event: &LogisticsEvent) -> Vec<TimerChange<Timer>> {
        shipment::timers(event)
    }

    fn version(command: &Command, tables: &LogisticsTables) -> Option<Version> {
        let Command::RecordTracking(report) = command;
        tables.shipments.get(&report.order_id).map(|parcel| parcel.version)
    }

    fn answer(command: &Command, tables: &LogisticsTables, _: &Context<'_, Self>) -> Answer {
        api::answer(command, tables)
    }
}
