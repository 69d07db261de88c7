//! A parcel's whole life: what may happen to it, who decides it, and what its row is then.
//!
//! ```text
//! created ──► dispatched ──► in_transit ──► delivered
//!    │            │             │
//!    ▼            └──────┬──────┘
//! cancelled              ▼
//!                      failed
//! ```
//!
//! Whether a parcel leaves is decided here and nowhere else: it is *dispatched* once packed, or
//! *cancelled* if the request to cancel its order is heard before that, and never both. From then on
//! the carrier says what becomes of it: the simulated one by timers, any one by its tracking
//! reports. What arrives late, twice or after the end changes nothing.

use std::time::Duration;

use waybill_contract::logistics::{
    CarrierMode, ShipmentCancelled, ShipmentCreated, ShipmentDelivered, ShipmentDispatched,
    ShipmentFailed, ShipmentInTransit,
};
use waybill_contract::order::OrderConfirmed;
use waybill_contract::{
    Address, Event, Line, LogisticsEvent, OrderEvent, OrderId, ShipmentId, Text,
};
use waybill_runtime::{
    Context, Evolve, Json, Message, Recorded, TimerChange, Timestamp, Version, row, tables,
    text_enum,
};

use crate::LogisticsService;

/// Who carries the parcels.
const CARRIER: &str = "Waybill Parcel";

text_enum! {
    /// Where a parcel is in its life.
    pub enum Status {
        /// Is being packed.
        Created = "created",
        /// Left.
        Dispatched = "dispatched",
        /// Was seen on its way.
        InTransit = "in_transit",
        /// Arrived. An end.
        Delivered = "delivered",
        /// Will not arrive. An end.
        Failed = "failed",
        /// Will not leave. An end.
        Cancelled = "cancelled",
    }
}

row! {
    /// A parcel as it stands; an order has one.
    pub struct Shipment in shipments for LogisticsEvent {
        /// Its order.
        order_id: text OrderId,
        /// Its identity.
        id: text ShipmentId,
        /// Where it is in its life.
        status: text Status,
        /// What is in it; nothing if it was cancelled before its order was known here.
        lines: text Json<Vec<Line>>,
        /// Where it goes; nothing if it was cancelled before its order was known here.
        ship_to: text Json<Option<Address>>,
        /// Who carries it; empty before it left.
        carrier: text String,
        /// What the carrier calls it; empty before it left.
        tracking_number: text String,
        /// Where it was last seen.
        location: text Option<Text>,
        /// What the carrier's last report says beyond that; why, where it failed.
        note: text Option<Text>,
        /// When it came into being.
        created_at: bigint Timestamp,
        /// When it last changed.
        updated_at: bigint Timestamp,
    }
    list newest by id where [];
    list newest by id where [order_id = "$3"];
    list newest by id where [id = "$3"];
}

tables! {
    /// What the logistics service owns.
    pub struct LogisticsTables for LogisticsEvent {
        /// Every parcel.
        shipments: Shipment,
    }
}

/// What the logistics service can be asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Record what a carrier reports.
    RecordTracking(RecordTracking),
}

text_enum! {
    /// What a carrier can report about a parcel.
    pub enum TrackingStatus {
        /// It was seen on its way.
        InTransit = "in_transit",
        /// It arrived.
        Delivered = "delivered",
        /// It will not arrive.
        Failed = "failed",
    }
}

/// Record what a carrier reports about this parcel.
#[derive(Clone, Debug)]
pub struct RecordTracking {
    /// The parcel's order.
    pub order_id: OrderId,
    /// Which parcel.
    pub shipment_id: ShipmentId,
    /// What became of it.
    pub status: TrackingStatus,
    /// Where that was.
    pub location: Option<Text>,
    /// What the carrier says about it.
    pub note: Option<Text>,
}

/// What the logistics service asks to be reminded of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// The order's parcel is packed.
    Pack(OrderId),
    /// The simulated carrier is half way.
    InTransit(OrderId),
    /// The simulated carrier is at the door.
    Deliver(OrderId),
}

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who moves the parcels that are dispatched from now on.
    pub carrier: CarrierMode,
    /// How long packing takes.
    pub packing: Duration,
    /// How long the simulated carrier takes from here to the door.
    pub transit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            carrier: CarrierMode::Simulated,
            packing: Duration::ZERO,
            transit: Duration::from_secs(2),
        }
    }
}

/// Why the logistics service says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such parcel.
    #[error("there is no shipment {0}")]
    UnknownShipment(ShipmentId),
    /// Carriers report only on parcels that left and did not come to an end.
    #[error("shipment {shipment_id} is {status}; a carrier has nothing to report on it")]
    NotOnItsWay {
        /// Which parcel.
        shipment_id: ShipmentId,
        /// Where it is.
        status: Status,
    },
}

type Decision = Result<Vec<LogisticsEvent>, Refusal>;

/// Which rows a message concerns.
pub(crate) fn concerns(message: &Message<LogisticsService>, tables: &mut LogisticsTables) {
    let order_id = match message {
        Message::Command(Command::RecordTracking(report)) => report.order_id,
        Message::Due(
            Timer::Pack(order_id) | Timer::InTransit(order_id) | Timer::Deliver(order_id),
        ) => *order_id,
        Message::Heard(Event::Order(OrderEvent::Confirmed(e))) => e.order_id,
        Message::Heard(Event::Order(OrderEvent::CancelRequested(e))) => e.order_id,
        Message::Heard(_) => return,
    };
    tables.shipments.want(&order_id);
}

/// What follows from a message.
pub(crate) fn decide(
    message: &Message<LogisticsService>,
    tables: &LogisticsTables,
    context: &Context<'_, LogisticsService>,
) -> Decision {
    let parcel = |order_id| tables.shipments.get(order_id);
    match message {
        Message::Command(Command::RecordTracking(report)) => {
            record_tracking(report, parcel(&report.order_id))
        }
        Message::Heard(Event::Order(OrderEvent::Confirmed(order))) => {
            Ok(create(order, parcel(&order.order_id), context))
        }
        Message::Heard(Event::Order(OrderEvent::CancelRequested(request))) => {
            Ok(cancel(request.order_id, parcel(&request.order_id), context))
        }
        Message::Heard(_) => Ok(Vec::new()),
        Message::Due(timer) => Ok(due(timer, tables, context)),
    }
}

fn create(
    order: &OrderConfirmed,
    parcel: Option<&Shipment>,
    context: &Context<'_, LogisticsService>,
) -> Vec<LogisticsEvent> {
    // One that is there was created before, or cancelled before the order was known here.
    if parcel.is_some() {
        return Vec::new();
    }
    vec![
        ShipmentCreated {
            shipment_id: ShipmentId(context.fresh_id),
            order_id: order.order_id,
            lines: order.lines.clone(),
            ship_to: order.ship_to.clone(),
            dispatch_at: context.now.plus(context.settings.packing),
        }
        .into(),
    ]
}

fn cancel(
    order_id: OrderId,
    parcel: Option<&Shipment>,
    context: &Context<'_, LogisticsService>,
) -> Vec<LogisticsEvent> {
    let shipment_id = match parcel.map(|parcel| (parcel.status, parcel.id)) {
        // A tombstone, so that the order's confirmation creates nothing when it comes.
        None => ShipmentId(context.fresh_id),
        Some((Status::Created, id)) => id,
        Some(_) => return Vec::new(),
    };
    vec![ShipmentCancelled { shipment_id, order_id }.into()]
}

fn due(
    timer: &Timer,
    tables: &LogisticsTables,
    context: &Context<'_, LogisticsService>,
) -> Vec<LogisticsEvent> {
    let (Timer::Pack(order_id) | Timer::InTransit(order_id) | Timer::Deliver(order_id)) = timer;
    let Some(parcel) = tables.shipments.get(order_id) else { return Vec::new() };
    match (timer, parcel.status) {
        (Timer::Pack(_), Status::Created) => vec![parcel.dispatched(context)],
        (Timer::InTransit(_), Status::Dispatched) => {
            let town = parcel.ship_to.0.as_ref().map(|address| address.city.clone());
            vec![parcel.in_transit(town, None)]
        }
        (Timer::Deliver(_), Status::Dispatched | Status::InTransit) => {
            let town = parcel.ship_to.0.as_ref().map(|address| address.city.clone());
            vec![parcel.delivered(town, None)]
        }
        _ => Vec::new(),
    }
}

fn record_tracking(report: &RecordTracking, parcel: Option<&Shipment>) -> Decision {
    let shipment_id = report.shipment_id;
    let parcel = parcel
        .filter(|parcel| parcel.id == shipment_id)
        .ok_or(Refusal::UnknownShipment(shipment_id))?;
    match parcel.status {
        Status::Dispatched | Status::InTransit => {}
        status => return Err(Refusal::NotOnItsWay { shipment_id, status }),
    }
    let (location, note) = (report.location.clone(), report.note.clone());
    Ok(vec![match report.status {
        TrackingStatus::InTransit => parcel.in_transit(location, note),
        TrackingStatus::Delivered => parcel.delivered(location, note),
        TrackingStatus::Failed => parcel.failed(location, note),
    }])
}

impl Shipment {
    fn dispatched(&self, context: &Context<'_, LogisticsService>) -> LogisticsEvent {
        let Settings { carrier: mode, transit, .. } = *context.settings;
        let after = |duration| match mode {
            CarrierMode::Simulated => Some(context.now.plus(duration)),
            CarrierMode::Manual => None,
        };
        ShipmentDispatched {
            shipment_id: self.id,
            order_id: self.order_id,
            carrier: CARRIER.to_owned(),
            // The random half of the id: as unique, and short enough to be read out.
            tracking_number: format!("WB{:016X}", self.id.0.as_u64_pair().1),
            mode,
            in_transit_at: after(transit / 2).filter(|_| !transit.is_zero()),
            deliver_at: after(transit),
        }
        .into()
    }

    fn in_transit(&self, location: Option<Text>, note: Option<Text>) -> LogisticsEvent {
        let (shipment_id, order_id) = (self.id, self.order_id);
        ShipmentInTransit { shipment_id, order_id, location, note }.into()
    }

    fn delivered(&self, location: Option<Text>, note: Option<Text>) -> LogisticsEvent {
        ShipmentDelivered {
            shipment_id: self.id,
            order_id: self.order_id,
            carrier: self.carrier.clone(),
            tracking_number: self.tracking_number.clone(),
            location,
            note,
        }
        .into()
    }

    fn failed(&self, location: Option<Text>, note: Option<Text>) -> LogisticsEvent {
        let (shipment_id, order_id) = (self.id, self.order_id);
        let reason = note.unwrap_or_else(|| Text::fit("the carrier reports a failure"));
        ShipmentFailed { shipment_id, order_id, reason, location }.into()
    }
}

/// The timers that an event sets or clears: packing until it left or never will, the simulated
/// carrier's until it reported or the parcel came to an end.
pub(crate) fn timers(event: &LogisticsEvent) -> Vec<TimerChange<Timer>> {
    match event {
        LogisticsEvent::Created(e) => vec![set(Timer::Pack(e.order_id), e.dispatch_at)],
        LogisticsEvent::Dispatched(e) => {
            let in_transit = e.in_transit_at.map(|at| set(Timer::InTransit(e.order_id), at));
            let deliver = e.deliver_at.map(|at| set(Timer::Deliver(e.order_id), at));
            let clear = clear(&Timer::Pack(e.order_id));
            [Some(clear), in_transit, deliver].into_iter().flatten().collect()
        }
        LogisticsEvent::InTransit(e) => vec![clear(&Timer::InTransit(e.order_id))],
        LogisticsEvent::Delivered(ShipmentDelivered { order_id, .. })
        | LogisticsEvent::Failed(ShipmentFailed { order_id, .. })
        | LogisticsEvent::Cancelled(ShipmentCancelled { order_id, .. }) => {
            [Timer::Pack, Timer::InTransit, Timer::Deliver]
                .map(|timer| clear(&timer(*order_id)))
                .into()
        }
    }
}

fn set(timer: Timer, due_at: Timestamp) -> TimerChange<Timer> {
    TimerChange::Set { key: key(&timer), due_at, timer }
}

fn clear(timer: &Timer) -> TimerChange<Timer> {
    TimerChange::Clear { key: key(timer) }
}

fn key(timer: &Timer) -> String {
    match timer {
        Timer::Pack(order_id) => format!("pack-{order_id}"),
        Timer::InTransit(order_id) => format!("in_transit-{order_id}"),
        Timer::Deliver(order_id) => format!("deliver-{order_id}"),
    }
}

impl Evolve for Shipment {
    fn changed_by(event: &LogisticsEvent) -> Vec<OrderId> {
        vec![match event {
            LogisticsEvent::Created(e) => e.order_id,
            LogisticsEvent::Dispatched(e) => e.order_id,
            LogisticsEvent::InTransit(e) => e.order_id,
            LogisticsEvent::Delivered(e) => e.order_id,
            LogisticsEvent::Failed(e) => e.order_id,
            LogisticsEvent::Cancelled(e) => e.order_id,
        }]
    }

    fn evolve(
        row: Option<Self>,
        _: &OrderId,
        recorded: &Recorded<'_, LogisticsEvent>,
    ) -> Option<Self> {
        let mut parcel = match recorded.event {
            LogisticsEvent::Created(e) => return Some(Self::created(e, recorded.time)),
            LogisticsEvent::Cancelled(e) => {
                row.unwrap_or_else(|| Self::empty(e.order_id, e.shipment_id, recorded.time))
            }
            _ => row?,
        };
        parcel.updated_at = recorded.time;
        match recorded.event {
            LogisticsEvent::Dispatched(e) => {
                parcel.status = Status::Dispatched;
                parcel.carrier.clone_from(&e.carrier);
                parcel.tracking_number.clone_from(&e.tracking_number);
            }
            LogisticsEvent::InTransit(e) => {
                parcel.report(Status::InTransit, e.location.as_ref(), e.note.as_ref());
            }
            LogisticsEvent::Delivered(e) => {
                parcel.report(Status::Delivered, e.location.as_ref(), e.note.as_ref());
            }
            LogisticsEvent::Failed(e) => {
                parcel.report(Status::Failed, e.location.as_ref(), Some(&e.reason));
            }
            LogisticsEvent::Cancelled(_) => parcel.status = Status::Cancelled,
            LogisticsEvent::Created(_) => {}
        }
        Some(parcel)
    }
}

impl Shipment {
    fn created(event: &ShipmentCreated, time: Timestamp) -> Self {
        Self {
            lines: Json(event.lines.clone()),
            ship_to: Json(Some(event.ship_to.clone())),
            ..Self::empty(event.order_id, event.shipment_id, time)
        }
    }

    fn empty(order_id: OrderId, id: ShipmentId, time: Timestamp) -> Self {
        Self {
            order_id,
            id,
            status: Status::Created,
            lines: Json(Vec::new()),
            ship_to: Json(None),
            carrier: String::new(),
            tracking_number: String::new(),
            location: None,
            note: None,
            created_at: time,
            updated_at: time,
            version: Version(0),
        }
    }

    /// A report that does not say where leaves it where it was last seen.
    fn report(&mut self, status: Status, location: Option<&Text>, note: Option<&Text>) {
        self.status = status;
        if let Some(location) = location {
            self.location = Some(location.clone());
        }
        self.note = note.cloned();
    }
}
